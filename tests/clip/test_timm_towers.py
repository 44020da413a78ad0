"""Image towers of timm's: SigLIP's and PE-Core's, made small, with every other setting of the real ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from open_clip.timm_model import TimmModel
from safetensors.torch import load_file, save_file
from tiny_backbone import CONTEXT_LENGTH, IMAGE_PX, TIMM, padding_tokenizer
from torch.nn import functional as F

from tailorset.classifiers.parts.fusion import fuse
from tailorset.classifiers.parts.text_towers import WholeTextTower, text_tower
from tailorset.clip.dense_features import dense_encoder, feature_map, timm_transformer
from tailorset.clip.losses import grouped_softmax
from tailorset.clip.model import Clip, load_clip
from tests.tiny_classifier import backbones  # noqa: F401

NAMES = ["fish", "ball", "key"]


@pytest.fixture(params=TIMM)
def clip(request: pytest.FixtureRequest, backbones: dict[str, str]) -> Clip:  # noqa: F811
    return load_clip(backbones[request.param], "cpu")


@pytest.fixture
def siglip_folder(backbones: dict[str, str], tmp_path: Path) -> Path:  # noqa: F811
    source = backbones["tiny_siglip"].removeprefix("local-dir:")
    return Path(shutil.copytree(source, tmp_path / "siglip"))


def pixels() -> torch.Tensor:
    return torch.rand(3, 3, IMAGE_PX, IMAGE_PX, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def test_the_pooled_feature_is_open_clips_and_a_position_is_an_image_of_that_position_alone(clip: Clip) -> None:
    visual = clip.model.visual
    dense, pooled = dense_encoder(visual)(pixels())
    assert dense.shape == (3, 16, clip.architecture["embed_dim"])
    assert torch.equal(pooled, clip.model.encode_image(pixels(), normalize=True))
    trunk = timm_transformer(visual)
    patches = trunk.forward_features(pixels())[:, trunk.num_prefix_tokens :]
    torch.testing.assert_close(feature_map(visual)(pixels()), patches)
    one = visual.head(trunk.head(trunk.fc_norm(trunk.attn_pool(patches[:, 5:6]))))
    torch.testing.assert_close(dense[:, 5], F.normalize(one, dim=-1))
    torch.testing.assert_close(dense.norm(dim=-1), torch.ones(3, 16))


@pytest.mark.parametrize("training", [False, True])
def test_a_fusion_starts_at_the_features_and_every_part_of_it_learns(clip: Clip, training: bool) -> None:
    visual = clip.model.visual
    before, keys = visual(pixels()), visual.state_dict().keys()
    branches = fuse(visual).train(training)
    assert len(branches) == 2
    assert visual.state_dict().keys() == keys
    after = visual(pixels())
    assert not torch.equal(after, before)
    assert (after - before).norm() < 1e-3 * before.norm()
    after.square().sum().backward()  # the pool reads every patch of the last block, too
    for name, parameter in branches.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().max() > 0, name
    assert all(parameter.grad is None for parameter in visual.parameters())


def test_towers_without_patch_tokens_are_refused() -> None:
    convolutions = TimmModel("test_convnext", 16, 64, pool="avg", proj="linear")
    pooled_by_open_clip = TimmModel("test_convnext", 16, 64, pool="rot_attn", proj="")
    for visual in (convolutions, pooled_by_open_clip):
        with pytest.raises(ValueError, match=r"a vision transformer of timm's \(SigLIP 2, PE-Core\)"):
            dense_encoder(visual)
        with pytest.raises(ValueError, match="fusion: false"):
            fuse(visual)


@torch.no_grad()
def test_prompts_of_a_templates_own_words_are_the_texts_of_that_template(clip: Clip) -> None:
    tower = text_tower(clip.model, clip.tokenizer)
    words = tower.words(clip.tokenizer(["the"]))
    contexts = tower.part.token_embedding(words).unsqueeze(0)
    joined = "the" if isinstance(tower, WholeTextTower) else "the "  # CLIP's tokens know where a word ends
    expected = clip.encode_texts(NAMES, joined + "{}")
    torch.testing.assert_close(tower.encode_behind(contexts, clip.tokenizer(NAMES))[0], expected)


def test_the_gradient_of_whole_texts_is_that_of_the_plain_computation(backbones: dict[str, str]) -> None:  # noqa: F811
    clip = load_clip(backbones["tiny_siglip"], "cpu")
    tower = text_tower(clip.model, clip.tokenizer)
    assert isinstance(tower, WholeTextTower)
    ids, found = clip.tokenizer(NAMES), []
    for read in (tower.encode_behind, tower._read):
        contexts = torch.full((2, 4, 32), 0.1).requires_grad_()
        (read(contexts, ids) * torch.arange(32)).sum().backward()
        found.append(contexts.grad)
    torch.testing.assert_close(found[0], found[1])
    assert found[0].abs().max() > 0


@pytest.mark.parametrize(("pad", "words"), [("<pad>", 4), ("</s>", 4)])
def test_an_end_token_that_is_also_the_padding_is_no_word(siglip_folder: Path, pad: str, words: int) -> None:
    padding_tokenizer(pad).save_pretrained(siglip_folder)
    clip = load_clip(f"local-dir:{siglip_folder}", "cpu")
    tower = text_tower(clip.model, clip.tokenizer)
    ids = clip.tokenizer(["fish"])
    assert (ids[0, words:] == clip.tokenizer.tokenizer.pad_token_id).all() == (pad == "</s>")
    assert torch.equal(tower.words(ids), ids[0, :words])
    assert int(tower.ends(ids)[0]) in (words, words + 1)


def test_a_sigmoid_model_scores_with_its_bias_and_compares_labels_as_without(
    siglip_folder: Path,
) -> None:
    clip = load_clip(f"local-dir:{siglip_folder}", "cpu")
    texts = clip.encode_texts(NAMES, "a photo of a {}")
    with torch.no_grad():
        expected, _ = clip.model.get_logits(
            clip.preprocess(pixels()), clip.tokenizer([f"a photo of a {name}" for name in NAMES])
        )
        found = clip.logits(pixels(), texts)
    assert clip.logit_bias == -10
    torch.testing.assert_close(found, expected)
    requested = torch.tensor([[True, False, False], [True, True, False], [False, False, True]])
    torch.testing.assert_close(grouped_softmax(found, requested), grouped_softmax(found + 10, requested))
    odds = found.double().sigmoid() / (1 - found.double().sigmoid())
    exactly_one = odds / odds.sum(1, keepdim=True)  # of independent labels, given that exactly one is shown
    torch.testing.assert_close(grouped_softmax(found.double(), requested)[0], exactly_one[0])


@pytest.mark.parametrize("config_says", [CONTEXT_LENGTH + 13, CONTEXT_LENGTH // 2])
def test_another_context_length_is_refused_with_the_right_one(siglip_folder: Path, config_says: int) -> None:
    path = siglip_folder / "open_clip_config.json"
    description = json.loads(path.read_text())
    description["model_cfg"]["text_cfg"]["context_length"] = config_says
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=f"text.positional_embedding.*write context_length {CONTEXT_LENGTH} into its"):
        load_clip(f"local-dir:{siglip_folder}", "cpu")


def test_a_tokenizer_that_cannot_pad_is_refused(siglip_folder: Path) -> None:
    path = siglip_folder / "tokenizer_config.json"
    settings = json.loads(path.read_text())
    path.write_text(json.dumps({key: value for key, value in settings.items() if key != "pad_token"}))
    (siglip_folder / "special_tokens_map.json").unlink(missing_ok=True)
    with pytest.raises(ValueError, match=r"does not pad texts: name its pad_token in tokenizer_config.json"):
        load_clip(f"local-dir:{siglip_folder}", "cpu")


def test_a_tokenizer_of_another_model_is_refused(siglip_folder: Path) -> None:
    path, weights = siglip_folder / "open_clip_config.json", siglip_folder / "open_clip_model.safetensors"
    description, tensors = json.loads(path.read_text()), load_file(weights)
    description["model_cfg"]["text_cfg"]["vocab_size"] = 10
    tensors["text.token_embedding.weight"] = tensors["text.token_embedding.weight"][:10].clone()
    path.write_text(json.dumps(description))
    save_file(tensors, weights)
    with pytest.raises(ValueError, match="its text tower has only 10: put the model's own tokenizer next to"):
        load_clip(f"local-dir:{siglip_folder}", "cpu")
