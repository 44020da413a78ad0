"""CLIP as a scorer: open_clip is the oracle."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from tailorset.clip.model import Clip, OpenClip, load_clip, normalise_scores
from tailorset.clip.weights import name_problem
from tailorset.storage.checksums import file_digest

NAMES, TEMPLATE = ("kite", "boat", "clock"), "a photo of a {}"


@pytest.fixture(scope="module", params=["tiny_clip_folder", "tiny_judge_folder"])
def folder(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def clip(folder: Path) -> Clip:
    return load_clip(f"local-dir:{folder}", "cpu")


@pytest.fixture
def images() -> torch.Tensor:
    """Smooth random images of 24 px whose values are multiples of 1/255, as a PNG's are."""
    coarse = torch.rand(3, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    smooth = torch.nn.functional.interpolate(coarse, size=(24, 24), mode="bilinear")
    return (smooth * 255).round() / 255


def test_text_and_image_features_are_unit_vectors(clip: Clip, images: torch.Tensor) -> None:
    for features in (clip.encode_texts(NAMES, TEMPLATE), clip.encode_images(images)):
        torch.testing.assert_close(features.norm(dim=1), torch.ones(3))


def test_logits_equal_open_clips_own_preprocessing_and_model(clip: Clip, folder: Path, images: torch.Tensor) -> None:
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pictures = [Image.fromarray(np.uint8(image.permute(1, 2, 0) * 255 + 0.5)) for image in images]
    pixels = torch.stack([preprocess(picture) for picture in pictures])
    torch.testing.assert_close(clip.preprocess(images), pixels, atol=2 / 255 / 0.25, rtol=0)  # PIL rounds to 1/255
    tokens = open_clip.get_tokenizer(f"local-dir:{folder}")([TEMPLATE.format(name) for name in NAMES])
    with torch.no_grad():
        expected, _ = model.eval().get_logits(pixels, tokens)
    actual = clip.logits(images, clip.encode_texts(NAMES, TEMPLATE))
    torch.testing.assert_close(actual, expected, atol=0.05, rtol=0)


def test_scores_have_a_gradient_to_the_image_and_none_to_the_weights(clip: Clip, images: torch.Tensor) -> None:
    pixels = images.clone().requires_grad_()
    clip.logits(pixels, clip.encode_texts(NAMES, TEMPLATE))[:, 0].sum().backward()
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0
    assert all(weight.grad is None and not weight.requires_grad for weight in clip.model.parameters())


def test_preprocessing_gradient_equals_finite_differences(clip: Clip) -> None:
    pixels = 0.3 + 0.4 * torch.rand(1, 3, 5, 7, dtype=torch.float64)  # squashed; away from 0 and 1, where it clamps
    assert torch.autograd.gradcheck(clip.preprocess, pixels.requires_grad_())


def test_scores_do_not_depend_on_the_batch(clip: Clip, images: torch.Tensor) -> None:
    texts = clip.encode_texts(NAMES, TEMPLATE)
    together, alone = clip.logits(images, texts), torch.cat([clip.logits(image[None], texts) for image in images])
    torch.testing.assert_close(together, alone, atol=1e-4, rtol=0)


def test_the_label_stands_in_the_template(clip: Clip) -> None:
    with pytest.raises(ValueError, match="no place for the label"):
        clip.encode_texts(NAMES, "a photo")
    with pytest.raises(ValueError, match="at least one label"):
        clip.encode_texts([], TEMPLATE)


def test_missing_and_truncated_weights_are_refused_with_a_remedy(tiny_clip_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip_folder, folder)
    weights = folder / "open_clip_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cannot be loaded.*git checkout"):
        load_clip(f"local-dir:{folder}", "cpu")
    weights.unlink()
    with pytest.raises(ValueError, match=r"open_clip_model.safetensors is missing.*git checkout"):
        load_clip(f"local-dir:{folder}", "cpu")


def test_weights_other_than_those_of_the_thresholds_are_refused(tiny_clip_folder: Path, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(tiny_clip_folder, tmp_path / "clip"))
    weights, model = folder / "open_clip_model.safetensors", f"local-dir:{folder}"
    pinned = OpenClip(model=model, sha256=file_digest(weights))
    pinned.load("cpu")
    tensors = load_file(weights)
    tensors["logit_scale"] += 1
    save_file(tensors, weights)
    with pytest.raises(ValueError, match=rf"filter_images.*quota_threshold.*write sha256: {file_digest(weights)}"):
        pinned.load("cpu")
    OpenClip(model=model).load("cpu")
    assert "sha256" not in OpenClip(model=model).model_dump()  # of the backbone in saved classifiers


def test_a_tag_with_a_pickle_only_is_refused_with_one_that_has_safetensors(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """DFN's repositories hold open_clip_pytorch_model.bin and no safetensors."""
    pickle = tmp_path / "open_clip_pytorch_model.bin"
    pickle.write_bytes(b"not read")
    monkeypatch.setattr("open_clip.pretrained.download_pretrained", lambda *_: str(pickle))
    with pytest.raises(ValueError, match=r"never read; .*ViT-B-16 with pretrained: datacomp_xl_s13b_b90k"):
        load_clip("ViT-B-16-quickgelu", "cpu", "dfn2b")
    assert name_problem("ViT-B-16", "datacomp_xl_s13b_b90k") == ""


def test_weights_of_another_model_are_refused(tiny_clip_folder: Path, tiny_judge_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "clip"
    shutil.copytree(tiny_clip_folder, folder)
    shutil.copy(tiny_judge_folder / "open_clip_model.safetensors", folder)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_clip(f"local-dir:{folder}", "cpu")


def test_a_name_without_weights_never_becomes_a_random_model(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="pretrained=None; choose one of"):
        load_clip("ViT-B-32", "cpu")
    with pytest.raises(ValueError, match="unknown"):
        load_clip("ViT-B-33", "cpu")
    pickle = tmp_path / "weights.pt"
    pickle.write_bytes(b"not read")
    with pytest.raises(ValueError, match="never read"):
        load_clip("ViT-B-32", "cpu", str(pickle))


@pytest.mark.parametrize(
    ("model", "pretrained", "remedy"),
    [
        ("ViT-B-32", "openai", "write ViT-B-32-quickgelu"),
        ("RN50", "openai", "write RN50-quickgelu"),
        ("ViT-B-16", "metaclip_400m", "write ViT-B-16-quickgelu"),
        ("roberta-ViT-B-32", "laion2b_s12b_b32k", "choose another tag"),
    ],
)
@pytest.mark.parametrize("revision", [None, "a" * 40])
def test_weights_of_another_activation_are_refused_with_the_right_name(
    model: str, pretrained: str, revision: str | None, remedy: str
) -> None:
    with pytest.raises(ValueError, match=rf"trained with another activation.*{remedy}"):
        load_clip(model, "cpu", pretrained, revision)


def test_no_tag_that_is_offered_has_another_activation() -> None:
    for model in open_clip.list_models():
        for tag in open_clip.list_pretrained_tags_by_model(model):
            built = open_clip.get_model_config(model).get("quick_gelu", False)
            trained = open_clip.get_pretrained_cfg(model, tag).get("quick_gelu", False)
            assert (name_problem(model, tag) == "") == (built == trained), (model, tag)
    offered = name_problem("ViT-B-32", None)
    assert "laion2b_s34b_b79k" in offered
    assert "openai" not in offered


def small_clip(folder: Path, **vision: object) -> Path:
    """The weights of a random ViT-B-32 with a tiny tower, and `open_clip` taught to build it as tiny-ViT."""
    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16} | vision,
        "text_cfg": {"context_length": 8, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
    }
    (folder / "tiny-ViT.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / "tiny-ViT.json")
    model = open_clip.create_model("tiny-ViT")
    save_file(
        {name: weight.half().contiguous() for name, weight in model.state_dict().items()}, folder / "w.safetensors"
    )
    return folder / "w.safetensors"


def test_half_precision_weights_are_computed_in_float32(tmp_path: Path) -> None:
    file = small_clip(tmp_path)
    clip = load_clip("tiny-ViT", "cpu", str(file))
    assert {weight.dtype for weight in clip.model.parameters()} == {torch.float32}
    assert clip.encode_texts(NAMES, TEMPLATE).dtype == torch.float32


@pytest.mark.parametrize("other", [{"image_size": 32}, {"patch_size": 4}])
def test_weights_of_another_image_size_are_refused(tmp_path: Path, other: dict[str, int]) -> None:
    file = small_clip(tmp_path)
    kept = file.rename(tmp_path / "of_16_px.safetensors")
    small_clip(tmp_path, **other)
    with pytest.raises(ValueError, match="cannot be loaded"):
        load_clip("tiny-ViT", "cpu", str(kept))


def test_the_preprocessing_is_that_of_the_tag(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file of weights under a name whose tags agree is preprocessed as they are, and never by a guess."""
    file = small_clip(tmp_path)
    tag = {"mean": (0.1, 0.2, 0.3), "std": (0.4, 0.5, 0.6), "interpolation": "bilinear", "resize_mode": "squash"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "tiny-ViT", {"one": tag | {"url": "", "hf_hub": "a/b/"}})
    for written in (str(file), f"{tmp_path}/./{file.name}"):
        clip = load_clip("tiny-ViT", "cpu", written)
        assert clip._mean.flatten().tolist() == pytest.approx(tag["mean"])
        assert clip._std.flatten().tolist() == pytest.approx(tag["std"])
        assert clip.interpolation == "bilinear"
    other = tag | {"mean": (0.5, 0.5, 0.5), "url": "", "hf_hub": "a/c/"}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED["tiny-ViT"], "two", other)
    with pytest.raises(ValueError, match=r"different mean and std.*open_clip_config.json"):
        load_clip("tiny-ViT", "cpu", str(file))


def test_a_file_that_its_folder_describes_is_read_with_its_folder(tiny_clip_folder: Path) -> None:
    file = tiny_clip_folder / "open_clip_model.safetensors"
    with pytest.raises(ValueError, match=f"name the folder: local-dir:{tiny_clip_folder}"):
        load_clip("ViT-B-32", "cpu", str(file))


def test_a_model_that_wants_bilinear_images_gets_them(
    tiny_clip_folder: Path, tmp_path: Path, images: torch.Tensor
) -> None:
    folder = Path(shutil.copytree(tiny_clip_folder, tmp_path / "bilinear"))
    config = folder / "open_clip_config.json"
    config.write_text(config.read_text().replace("bicubic", "bilinear"))
    _, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{folder}")
    pictures = [Image.fromarray(np.uint8(image.permute(1, 2, 0) * 255 + 0.5)) for image in images]
    pixels = torch.stack([preprocess(picture) for picture in pictures])
    ours = load_clip(f"local-dir:{folder}", "cpu").preprocess(images)
    torch.testing.assert_close(ours, pixels, atol=1.1 / 255 / 0.25, rtol=0)
    bicubic = load_clip(f"local-dir:{tiny_clip_folder}", "cpu").preprocess(images)
    assert (ours - pixels).abs().mean() < 0.2 * (bicubic - pixels).abs().mean()


def test_normalised_scores_have_no_offset_per_label_and_unit_spread_per_image() -> None:
    scores = torch.randn(50, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([1.0, 5, 2, 1]) + 3
    normalised = normalise_scores(scores)
    torch.testing.assert_close(normalised.mean(dim=1), torch.zeros(50), atol=1e-5, rtol=0)
    torch.testing.assert_close(normalised.std(dim=1, correction=0), torch.ones(50))
    torch.testing.assert_close(normalise_scores(scores * 7 + torch.arange(4)), normalised, atol=1e-4, rtol=0)


def test_normalising_scores_by_hand() -> None:
    scores = torch.tensor([[1.0, 5.0, 2.0], [3.0, 5.0, 0.0]])
    # per label: (-1, 0, 1) and (1, 0, -1); then each image has mean 0 and spread sqrt(2/3)
    expected = torch.tensor([[-1.0, 0.0, 1.0], [1.0, 0.0, -1.0]]) * 1.5**0.5
    torch.testing.assert_close(normalise_scores(scores), expected)


def test_normalising_keeps_the_order_of_the_images_of_a_single_label() -> None:
    scores = torch.tensor([[1.0], [5.0], [3.0]])
    torch.testing.assert_close(normalise_scores(scores), torch.tensor([[-1.0], [1.0], [0.0]]) * 1.5**0.5)


def test_weights_of_a_folder_are_not_chosen_by_a_tag() -> None:
    with pytest.raises(ValueError, match="pretrained is 'openai', but local-dir:somewhere has its own weights: remove"):
        OpenClip(model="local-dir:somewhere", pretrained="openai")
