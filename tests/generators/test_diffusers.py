"""Every tested class, from random parts: the stock pipeline on the same noise is the oracle."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import FluxTransformer2DModel
from pydantic import ValidationError
from safetensors.torch import load_file, save_file
from torch._dynamo.testing import CompileCounter

from tailorset.commands.availability import model_finding
from tailorset.compute.memory import is_out_of_memory
from tailorset.generators.diffusers import Config, Diffusers, build, build_tokenizers
from tailorset.generators.parts.components import load_tokenizers
from tailorset.generators.parts.families import TESTED, denoiser
from tailorset.generators.parts.pipelines import load_pipeline
from tests.generators import tiny_pipelines
from tests.storage.test_hub import NEW, cached_repository

pytestmark = pytest.mark.usefixtures("one_thread")  # quicker for networks this small
CLASSES = tuple(tiny_pipelines.MAKERS)
PROMPTS, SEEDS = ["a red cup", "a boat next to the clock", "a red cup"], [1, 2, 3]
GUIDED = {"kind": "classifier_free", "scale": 4.0}
OFF = {"kind": "none"}
SAME = {"atol": 1e-5, "rtol": 0}  # a batch changes the rounding of matrix products
FolderOf = Callable[[str], Path]
Make = Callable[..., Diffusers]


def px_of(name: str) -> int:
    return 32 if name == "SanaPipeline" else 16


@pytest.fixture(scope="session")
def folder_of(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> FolderOf:
    """Folders of the tiny pipelines, by class, or by the name of another maker; each is written once."""
    written: dict[str, Path] = {}

    def folder(name: str) -> Path:
        if name not in written:
            maker = tiny_pipelines.MAKERS.get(name) or getattr(tiny_pipelines, name)
            written[name] = tiny_pipelines.save(tmp_path_factory.mktemp(name), maker, tiny_tokenizer)
        return written[name]

    return folder


@pytest.fixture(scope="session")
def make(folder_of: FolderOf) -> Make:
    """Generators by class and settings; each is built once, as drawing changes nothing in it."""
    built: dict[str, Diffusers] = {}

    def build_tiny(name: str, guidance: dict[str, Any] = GUIDED, **settings: Any) -> Diffusers:
        values = {"model": str(folder_of(name)), "image_px": px_of(name), "guidance": guidance} | settings
        key = json.dumps(values)
        if key not in built:
            built[key] = build(Config(**values), "cpu")
        return built[key]

    return build_tiny


def num_predictions(generator: Diffusers, num_inference_steps: int) -> int:
    """Predictions that the network makes for a batch of three."""
    sizes: list[int] = []

    def count(module: Any, inputs: tuple[Any, ...], named: dict[str, Any]) -> None:
        sizes.append(len(inputs[0] if inputs else named.get("hidden_states", named.get("sample"))))

    hook = denoiser(generator.pipeline).register_forward_pre_hook(count, with_kwargs=True)
    generator.sample(PROMPTS, SEEDS, num_inference_steps)
    hook.remove()
    return sum(sizes)


def test_every_class_of_the_table_is_tested() -> None:
    assert set(CLASSES) == set(TESTED)


@pytest.mark.parametrize("name", CLASSES)
def test_an_image_depends_on_its_own_prompt_and_seed_only(make: Make, name: str) -> None:
    generator = make(name)
    images = generator.sample(PROMPTS, SEEDS, 2)
    assert images.shape == (3, 3, px_of(name), px_of(name))
    assert images.dtype == torch.float32
    assert 0 <= images.min() < images.max() <= 1
    assert torch.equal(generator.sample(PROMPTS, SEEDS, 2), images)
    for number in range(3):
        alone = generator.sample([PROMPTS[number]], [SEEDS[number]], 2)
        torch.testing.assert_close(alone[0], images[number], **SAME)
    backwards = generator.sample(PROMPTS[::-1], SEEDS[::-1], 2)
    torch.testing.assert_close(backwards.flip(0), images, **SAME)
    assert (images[0] - images[2]).abs().max() > 1e-2
    other_prompt = generator.sample([PROMPTS[1]], [SEEDS[0]], 2)
    assert (other_prompt[0] - images[0]).abs().max() > 1e-3


STOCK: dict[str, dict[str, Any]] = {
    "StableDiffusionPipeline": {"guidance_scale": 4.0},
    "StableDiffusionXLPipeline": {"guidance_scale": 4.0},
    "StableDiffusion3Pipeline": {"guidance_scale": 4.0},
    "PixArtSigmaPipeline": {"guidance_scale": 4.0, "use_resolution_binning": False, "clean_caption": False},
    "SanaPipeline": {"guidance_scale": 4.0, "use_resolution_binning": False, "complex_human_instruction": None},
    "PRXPipeline": {"guidance_scale": 4.0, "use_resolution_binning": False, "skip_text_cleaning": True},
    "ZImagePipeline": {"guidance_scale": 3.0},  # prompt + scale * (prompt - nothing)
    "FluxPipeline": {"true_cfg_scale": 4.0, "guidance_scale": 1.0},
    "Flux2KleinPipeline": {"guidance_scale": 4.0},
    "QwenImagePipeline": {"true_cfg_scale": 4.0},
}


@pytest.mark.parametrize("name", CLASSES)
def test_images_equal_the_stock_pipelines(make: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Text in, instead of embeddings; the seed's noise through the pipeline's own hands."""
    negative = {} if name == "Flux2KleinPipeline" else {"negative_prompt": "the tree"}
    generator = make(name, **negative)
    ours = generator.sample(PROMPTS[1:2], SEEDS[1:2], 3)
    stock = generator.pipeline(
        prompt=PROMPTS[1],
        height=px_of(name),
        width=px_of(name),
        num_inference_steps=3,
        generator=torch.Generator().manual_seed(SEEDS[1]),
        output_type="pt",
        **negative,
        **STOCK[name],
    ).images
    torch.testing.assert_close(ours, stock, **SAME)


@pytest.mark.parametrize("name", [*(name for name in CLASSES if name != "FluxPipeline"), "flux_schnell"])
def test_guidance_off_is_one_prediction_per_step(make: Make, name: str) -> None:
    assert num_predictions(make(name, OFF), 2) == 2 * 3
    assert num_predictions(make(name), 2) == 2 * 3 * 2
    assert not torch.equal(make(name, OFF).sample(PROMPTS, SEEDS, 2), make(name).sample(PROMPTS, SEEDS, 2))


def test_embedded_guidance_is_one_prediction_per_step(make: Make) -> None:
    weak, strong = (make("FluxPipeline", {"kind": "embedded", "scale": scale}) for scale in (1.0, 8.0))
    assert num_predictions(weak, 2) == 2 * 3
    assert (weak.sample(PROMPTS, SEEDS, 2) - strong.sample(PROMPTS, SEEDS, 2)).abs().max() > 1e-4


@pytest.mark.parametrize(
    "name", ["StableDiffusionXLPipeline", "FluxPipeline", "Flux2KleinPipeline", "QwenImagePipeline"]
)
def test_a_negative_prompt_has_an_effect(make: Make, name: str) -> None:
    without, negative = make(name), make(name, negative_prompt="a kite next to the photo")
    assert (without.sample(PROMPTS, SEEDS, 2) - negative.sample(PROMPTS, SEEDS, 2)).abs().max() > 1e-4


@pytest.mark.parametrize("name", CLASSES)
def test_in_half_precision_the_vae_stays_in_float32(make: Make, name: str) -> None:
    half = make(name, dtype="bfloat16")
    assert half.pipeline.vae.dtype == torch.float32
    assert denoiser(half.pipeline).dtype == torch.bfloat16
    images = half.sample(PROMPTS, SEEDS, 2)
    assert images.dtype == torch.float32
    torch.testing.assert_close(images, make(name).sample(PROMPTS, SEEDS, 2), atol=0.2, rtol=0)


@pytest.mark.parametrize("name", ["StableDiffusionPipeline", "SanaPipeline", "FluxPipeline"])
def test_compiled_parts_draw_the_same(make: Make, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    torch.compiler.reset()
    compile_module, graphs = torch.nn.Module.compile, CompileCounter()
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module: compile_module(module, backend=graphs))
    compiled = make(name, compile=True)
    for part in (slice(3), slice(2)):
        expected = make(name).sample(PROMPTS[part], SEEDS[part], 2)
        torch.testing.assert_close(compiled.sample(PROMPTS[part], SEEDS[part], 2), expected, **SAME)
    assert graphs.frame_count >= 2  # denoiser and decoder


@pytest.mark.parametrize("name", [*CLASSES, "pixart_alpha"])
def test_weights_that_visit_the_device_draw_the_same(make: Make, folder_of: FolderOf, name: str) -> None:
    """Without an accelerator they visit the CPU, which `build` refuses as of no use."""
    values = {"model": str(folder_of(name)), "image_px": px_of(name), "guidance": GUIDED, "offload": "group"}
    pipeline = load_pipeline(values["model"], None, torch.float32)
    offloaded = Diffusers(Config(**values), pipeline, "cpu")
    assert all(hasattr(part, "_diffusers_hook") for part in pipeline.vae.modules() if isinstance(part, torch.nn.Conv2d))
    torch.testing.assert_close(offloaded.sample(PROMPTS, SEEDS, 2), make(name).sample(PROMPTS, SEEDS, 2), **SAME)


def test_offloading_needs_an_accelerator_and_excludes_compiling(folder_of: FolderOf) -> None:
    values = {"model": str(folder_of("FluxPipeline")), "image_px": 16, "guidance": GUIDED, "offload": "group"}
    config = Config(**values)
    with pytest.raises(
        ValueError, match=r"generator\.offload is group, and the device is the CPU itself: set it to none"
    ):
        build(config, "cpu")
    assert config.misfit(folder_of("FluxPipeline")) == ""
    with pytest.raises(ValidationError, match="offload is group and compile is true: choose one"):
        Config(**values, compile=True)


@pytest.mark.parametrize(
    ("name", "settings", "problem"),
    [
        (
            "FluxPipeline",
            {"guidance": OFF},
            "set guidance.kind to embedded or classifier_free",
        ),
        ("stable_diffusion_lcm", {"guidance": OFF}, "every step reads a scale; set guidance.kind to embedded$"),
        ("stable_diffusion_lcm", {}, "every step reads a scale; set guidance.kind to embedded$"),
        ("flux_schnell", {"guidance": {"kind": "embedded", "scale": 3.5}}, "no embedded guidance; choose"),
        ("flux_2_klein_distilled", {}, "distilled and ignores guidance; set guidance.kind to none"),
        ("StableDiffusionPipeline", {"image_px": 15}, "choose a multiple of 2,"),
        ("FluxPipeline", {"image_px": 18}, "choose a multiple of 4,"),
    ],
)
def test_settings_that_do_not_fit_the_model_are_refused(
    make: Make, folder_of: FolderOf, tmp_path: Path, name: str, settings: dict[str, Any], problem: str
) -> None:
    with pytest.raises(ValueError, match=problem) as refused:
        make(name, **settings)
    values = {"guidance": GUIDED, "image_px": 16} | settings
    config = Config(model=str(unread(folder_of(name), tmp_path)), **values)
    assert config.misfit(tmp_path / "model") == str(refused.value)


def unread(folder: Path, where: Path) -> Path:
    """A copy whose weights cannot be read."""
    copied = Path(shutil.copytree(folder, where / "model"))
    for file in copied.rglob("*.safetensors"):
        file.write_bytes(b"")
    return copied


@pytest.mark.parametrize("name", [*CLASSES, "pixart_alpha"])
def test_settings_are_compared_with_the_configs_of_a_model_alone(
    folder_of: FolderOf, tmp_path: Path, name: str
) -> None:
    folder = unread(folder_of(name), tmp_path)
    config = Config(model=str(folder), image_px=px_of(name), guidance=GUIDED)
    assert config.misfit(folder) == ""
    rename(folder, "DDPMPipeline")
    assert "is a DDPMPipeline, which is not a text-to-image pipeline" in config.misfit(folder)


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"guidance": OFF, "negative_prompt": "blurry"}, "no effect with guidance.kind none: remove it"),
        ({"guidance": {"kind": "embedded", "scale": 3.5}, "negative_prompt": "blurry"}, "no effect"),
        ({"guidance": {"kind": "none", "scale": 3.0}}, "give a scale, or kind: none without one"),
        ({"guidance": {"kind": "classifier_free"}}, "give a scale"),
        ({"guidance": {"kind": "classifier_free", "scale": 1.0}}, "above 1, or kind: none"),
    ],
)
def test_contradictory_settings_are_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValidationError, match=problem):
        Config(model="some/model", image_px=16, **settings)


@pytest.fixture
def copy(folder_of: FolderOf, tmp_path: Path) -> Path:
    """A folder of StableDiffusionPipeline to damage."""
    return Path(shutil.copytree(folder_of("StableDiffusionPipeline"), tmp_path / "model"))


def rename(folder: Path, kind: object) -> None:
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps(index | {"_class_name": kind}))


def refusal(folder: Path) -> str:
    """Message of the error that stops the folder's model from being built."""
    with pytest.raises(ValueError, match=r"restore it|name another model|name a model") as error:
        build(Config(model=str(folder), image_px=16, guidance=OFF), "cpu")
    return str(error.value)


@pytest.mark.parametrize(
    "kind", ["StableDiffusionImg2ImgPipeline", "StableDiffusionInpaintPipeline", "DDPMPipeline", "WanPipeline"]
)
def test_a_pipeline_that_is_not_text_to_image_is_refused(copy: Path, kind: str) -> None:
    rename(copy, kind)
    assert f"is a {kind}, which is not a text-to-image pipeline: name a model that" in refusal(copy)


@pytest.mark.parametrize("kind", ["PipelineOfTomorrow", ["pipeline", "MyPipeline"], None])
def test_a_class_that_diffusers_lacks_is_refused(copy: Path, kind: object) -> None:
    rename(copy, kind)
    (copy / "pipeline.py").write_text("raise SystemExit('code of the repository was run')")
    assert "code from model repositories is never run: update diffusers" in refusal(copy)


@pytest.mark.parametrize("part", ["unet", "scheduler", "text_encoder", "tokenizer"])
@pytest.mark.parametrize("source", [["own_code", "OwnPart"], ["diffusers", "PartOfTomorrow"]])
def test_a_part_that_no_library_has_is_refused(copy: Path, part: str, source: list[str]) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: source}))
    assert f"its {part} is a {source[1]} of {source[0]}, which diffusers" in refusal(copy)
    found = model_finding("generator", Config(model=str(copy), image_px=16, guidance=OFF), whole=False)
    assert found.status == "error"
    assert "code from model repositories is never run: update them" in found.text


@pytest.mark.parametrize("part", ["unet", "scheduler", "text_encoder", "tokenizer"])
@pytest.mark.parametrize("source", [["diffusers"], [], ["diffusers", None], "diffusers", None, [1, 2], [None, None]])
def test_a_part_without_library_and_class_is_refused(copy: Path, part: str, source: object) -> None:
    index = copy / "model_index.json"
    index.write_text(json.dumps(json.loads(index.read_text()) | {part: source}))
    assert f"its {part} in model_index.json is {source!r}, not a library and a class" in refusal(copy)
    found = model_finding("generator", Config(model=str(copy), image_px=16, guidance=OFF), whole=False)
    assert found.status == "error"
    assert f"its {part} in model_index.json is {source!r}" in found.text


@pytest.mark.parametrize("part", ["unet", "text_encoder", "text_encoder_2", "tokenizer"])
def test_sdxl_needs_what_diffusers_calls_optional(folder_of: FolderOf, tmp_path: Path, part: str) -> None:
    folder = Path(shutil.copytree(folder_of("StableDiffusionXLPipeline"), tmp_path / "model"))
    index = json.loads((folder / "model_index.json").read_text())
    for source in ([], ["transformers"], [None, None], None):
        (folder / "model_index.json").write_text(json.dumps(index | {part: source}))
        assert f"its {part} in model_index.json is {source!r}" in refusal(folder)


@pytest.mark.parametrize("name", CLASSES)
def test_each_part_without_weights_must_have_its_folder(folder_of: FolderOf, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folder_of(name), tmp_path / "model"))
    config = Config(model=str(folder), image_px=16, guidance=OFF)
    parts = [part for part in sorted(folder.iterdir()) if part.is_dir() and not [*part.glob("*.safetensors")]]
    assert {"scheduler", "tokenizer"} <= {part.name for part in parts}
    for part in parts:
        hidden = part.rename(tmp_path / "hidden")
        assert config.lacking_in(folder) == [f"{part.name}/"]
        found = model_finding("generator", config, whole=False)
        assert f"not all of one: it lacks {part.name}/" in found.text
        hidden.rename(part)


def test_a_folder_without_an_index_is_refused(copy: Path) -> None:
    (copy / "model_index.json").unlink()
    assert "model_index.json cannot be loaded" in refusal(copy)


def test_weights_in_bin_files_only_are_refused(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    torch.save(load_file(weights), weights.with_suffix(".bin"))
    weights.unlink()
    assert "unet has no .safetensors weights" in refusal(copy)


@pytest.mark.parametrize("name", CLASSES)
def test_each_part_with_weights_must_have_them(folder_of: FolderOf, tmp_path: Path, name: str) -> None:
    folder = Path(shutil.copytree(folder_of(name), tmp_path / "model"))
    config = Config(model=str(folder), image_px=16, guidance=OFF)
    assert config.lacking_in(folder) == []
    files = sorted(folder.rglob("*.safetensors"))
    assert len(files) >= 3
    for file in files:
        hidden = file.rename(file.with_suffix(".fp16.safetensors"))  # a variant, which is not read
        part = file.parent.name
        assert config.lacking_in(folder) == [f"{part}/*.safetensors"]
        found = model_finding("generator", config, whole=False)
        assert f"not all of one: it lacks {part}/*.safetensors, and has {part}/{hidden.name}" in found.text
        assert "load a copy with variant='fp16'" in found.remedy
        hidden.rename(file)


def test_the_text_encoder_of_prx_is_missed_before_its_pipeline_was_imported(tmp_path: Path) -> None:
    index = {"_class_name": "PRXPipeline", "text_encoder": ["transformers", "T5GemmaEncoder"]}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    code = (
        "from pathlib import Path; from tailorset.generators.diffusers import Config;"
        " config = Config(model='.', image_px=16, guidance={'kind': 'none'}); print(config.lacking_in(Path()))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "['text_encoder/*.safetensors']"


def test_a_download_that_lacks_a_shard_is_not_whole(
    folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    repository = cached_repository(tmp_path / "hub", {"main": NEW}, source=folder_of("FluxPipeline"))
    config = Config(model="some/model", image_px=16, guidance={"kind": "embedded", "scale": 3.5})
    part = repository / "snapshots" / NEW / "transformer"
    network = FluxTransformer2DModel.from_pretrained(part)
    shutil.rmtree(part)
    network.save_pretrained(part, max_shard_size="10KB")
    assert model_finding("generator", config, whole=False).status == "ok"
    *_, last = shards = sorted(part.glob("*.safetensors"))
    last.unlink()
    assert len(shards) > 1
    found = model_finding("generator", config, whole=False)
    assert (found.status, f"the cache lacks transformer/{last.name}" in found.text) == ("error", True)
    (part / "diffusion_pytorch_model.safetensors.index.json").write_text("{")
    assert "lacks transformer/a readable diffusion" in model_finding("generator", config, whole=False).text


def test_a_missing_tensor_is_refused(copy: Path) -> None:
    weights = copy / "unet" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(weights)
    tensors.pop("conv_in.weight")
    save_file(tensors, weights)
    assert "1 tensors are missing, conv_in.weight first" in refusal(copy)


def test_a_class_that_is_not_tested_draws_one_by_one_with_a_warning(
    make: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        generator = make("pixart_alpha", negative_prompt="the tree")
    assert "PixArtAlphaPipeline is not tested with tailorset" in caplog.text
    images = generator.sample(PROMPTS, SEEDS, 2)
    assert images.shape == (3, 3, 16, 16)
    assert torch.equal(generator.sample(PROMPTS[1:], SEEDS[1:], 2), images[1:])
    assert num_predictions(generator, 2) == 2 * 3 * 2
    assert num_predictions(make("pixart_alpha", OFF), 2) == 2 * 3


def test_a_decoder_out_of_memory_is_recognised(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipeline of Sana catches torch's own error, and would end with an unbound name."""

    def fail(*inputs: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    generator = make("SanaPipeline")
    monkeypatch.setattr(generator.pipeline.vae.decoder, "forward", fail)
    with pytest.raises(RuntimeError, match="CUDA out of memory") as error:
        generator.sample(PROMPTS, SEEDS, 2)
    assert is_out_of_memory(error.value)


def test_what_only_tuning_asks_for_is_refused(make: Make, tmp_path: Path) -> None:
    generator = make("StableDiffusionPipeline")
    for options in ({"backprop_steps": 1}, {"stop_after": 1}):
        with pytest.raises(ValueError, match="cannot tune"):
            generator.sample(PROMPTS, SEEDS, 2, **options)
    (tmp_path / "tuning.json").write_text('{"num_updates": 7}')
    with pytest.raises(ValueError, match="adapter"):
        generator.load_adapter(tmp_path)


@pytest.mark.parametrize(
    ("name", "limits"),
    [
        ("StableDiffusion3Pipeline", [12, 12, 256]),
        ("FluxPipeline", [12, 300]),  # the tiny tokenizer's own limit
        ("PRXPipeline", [32]),
        ("flux_2_klein_long", [512 - 3]),  # less what the chat template adds
    ],
)
def test_tokenizers_have_the_limit_of_the_pipeline(folder_of: FolderOf, name: str, limits: list[int]) -> None:
    tokenizers = build_tokenizers(Config(model=str(folder_of(name)), image_px=16, guidance=OFF))
    assert [tokenizer.model_max_length for tokenizer in tokenizers] == limits


@pytest.mark.parametrize("part", ["tokenizer", "processor"])
def test_the_tokenizer_of_a_processor_is_found(folder_of: FolderOf, tmp_path: Path, part: str) -> None:
    """FLUX.2 has a processor as its tokenizer, Qwen-Image 2.1 only a processor."""
    import transformers

    folder = Path(shutil.copytree(folder_of("StableDiffusionPipeline"), tmp_path / "model"))
    model, index = str(folder), json.loads((folder / "model_index.json").read_text())
    (tokenizer,) = load_tokenizers(model, index)
    shutil.rmtree(folder / "tokenizer")
    transformers.CLIPProcessor(transformers.CLIPImageProcessor(), tokenizer).save_pretrained(folder / part)
    others = {name: value for name, value in index.items() if name != "tokenizer"}
    (found,) = load_tokenizers(model, others | {part: ["transformers", "CLIPProcessor"]})
    assert found(PROMPTS[0])["input_ids"] == tokenizer(PROMPTS[0])["input_ids"]
    with pytest.raises(ValueError, match=r"lists no tokenizer in model_index\.json"):
        load_tokenizers(model, others)


def test_a_tokenizer_that_transformers_does_not_have_is_refused(folder_of: FolderOf, tmp_path: Path) -> None:
    """Kolors brings a class of its own, in a module of diffusers."""
    folder = Path(shutil.copytree(folder_of("StableDiffusionPipeline"), tmp_path / "model"))
    index = folder / "model_index.json"
    own = {"tokenizer": ["kolors", "ChatGLMTokenizer"]}
    index.write_text(json.dumps(json.loads(index.read_text()) | own))
    with pytest.raises(ValueError, match=r"ChatGLMTokenizer.*(another folder|another model)"):
        build_tokenizers(Config(model=str(folder), image_px=16, guidance=OFF))


def test_a_pipeline_of_the_hub_is_the_one_of_its_revision(
    folder_of: FolderOf, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    cached_repository(tmp_path / "hub", {"v2": NEW}, source=folder_of("StableDiffusionPipeline"))
    config = Config(model="some/model", revision="v2", image_px=16, guidance=OFF)
    assert build(config, "cpu").sample(PROMPTS, SEEDS, 2).shape == (3, 3, 16, 16)
    with pytest.raises(ValueError, match=r"model_index\.json cannot be loaded"):
        build(config.model_copy(update={"revision": "v3"}), "cpu")
