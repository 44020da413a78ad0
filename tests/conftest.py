"""Fixtures every folder of tests shares: tiny random foundation models, and a small project to run stages in."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

os.environ["COLUMNS"] = "160"  # tables break their lines in one place everywhere; read when a console is made

import pytest
import torch
import yaml

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.project.definition import stage_names
from tests.fake_hub import FakeHub
from tests.generation_project import prepare_generation
from tests.small_project import IDENTITY

pytest_plugins = ["tests.registered", "tests.browser"]
WORDS = ("a", "photo", "of", "the", "red", "next", "to", "and", "in", "kite", "boat", "clock", "cup", "fish", "tree")
TEXT_TOKENS = 12
ROOT = Path(__file__).resolve().parents[1]


def pytest_configure() -> None:
    """Hide what Triton's nanobind writes about leaked types while Python ends: pages after the verdict, no remedy."""
    atexit.register(lambda: os.dup2(os.open(os.devnull, os.O_WRONLY), 2))


@pytest.fixture(scope="module", autouse=True)
def own_environment() -> Iterator[None]:
    """Forget what one module's tests left in the environment, and the tracking that they chose: the next one is apart.

    Among others DVC_ROOT, which leads every path and run of a later project to another one.
    """
    _forget_tracking()
    before = dict(os.environ)
    yield
    os.environ.clear()
    os.environ.update(before)
    _forget_tracking()


def _forget_tracking() -> None:
    """MLflow keeps both in variables, and the experiment in its module too."""
    for variable in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_ID"):
        os.environ.pop(variable, None)
    if fluent := sys.modules.get("mlflow.tracking.fluent"):
        fluent._active_experiment_id = None


@pytest.fixture(scope="session")
def tracking_database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without runs, to copy: setting one up takes seconds."""
    import mlflow

    path = tmp_path_factory.mktemp("tracking") / "mlflow.db"
    mlflow.MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tracking_database: Path) -> Path:
    """A committed project to work in: params.yaml, label files, and a dvc.yaml whose stages depend on params only."""
    shutil.copy(ROOT / "params.yaml", tmp_path)
    shutil.copy(tracking_database, tmp_path)
    shutil.copytree(ROOT / "data" / "labels", tmp_path / "data" / "labels")
    blocks = list(yaml.safe_load((ROOT / "params.yaml").read_text()))
    stages = {name: {"cmd": f"python pipeline/{name}.py", "params": blocks} for name in stage_names(ROOT)}
    (tmp_path / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}))
    for command in (["init", "--quiet"], ["add", "--all"], [*IDENTITY, "commit", "--quiet", "--message", "all"]):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    monkeypatch.chdir(tmp_path)
    for variable in ("DVC_ROOT", "DVC_EXP_NAME", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(variable, raising=False)
    return tmp_path


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """A hub on this machine, without models until a test adds some; downloads are allowed, the cache is empty."""
    fake = FakeHub()
    server = fake.server()
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    yield fake
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def generation_project(
    project: Path, tiny_clip_folder: Path, tiny_judge_folder: Path, tiny_diffusion_folder: Path
) -> Path:
    """A project in which generate_images can run, with tiny random models."""
    prepare_generation(project, tiny_clip_folder, tiny_judge_folder, tiny_diffusion_folder)
    return project


@pytest.fixture
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """For this process and those it starts: how many threads add up shows in a float's last bits."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def failing_twice(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any, str], list[int]]:
    """Makes a method run out of memory at its 1st and 3rd call; returns how many samples each call was given."""

    def make(owner: Any, method: str) -> list[int]:
        original, calls = getattr(owner, method), []

        def failing(samples: Sequence[Any], *others: Any) -> Any:
            calls.append(len(samples))
            result = original(samples, *others)
            if len(calls) in (1, 3):
                raise torch.OutOfMemoryError("CUDA out of memory")
            return result

        monkeypatch.setattr(owner, method, failing)
        return calls

    return make


@pytest.fixture(scope="session")
def tiny_tokenizer() -> Any:
    """A CLIPTokenizer that knows letters and WORDS; as in OpenAI's, the end-of-text token has the highest id."""
    from transformers import CLIPTokenizer

    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    vocab: dict[str, int] = {}
    merges: list[tuple[str, str]] = []
    for token in (*letters, *(f"{letter}</w>" for letter in letters)):
        vocab[token] = len(vocab)
    for word in WORDS:
        parts = [*word[:-1], f"{word[-1]}</w>"]
        while len(parts) > 1:
            merges.append((parts[0], parts[1]))
            parts = [parts[0] + parts[1], *parts[2:]]
            vocab.setdefault(parts[0], len(vocab))
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    return CLIPTokenizer(vocab=vocab, merges=list(dict.fromkeys(merges)), model_max_length=TEXT_TOKENS)


@pytest.fixture(scope="session")
def tiny_clip_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A random open_clip ViT for 16 px images, to be loaded as local-dir:FOLDER."""
    vision = {"image_size": 16, "patch_size": 8, "width": 32, "layers": 1, "head_width": 16}
    return write_clip(tmp_path_factory.mktemp("clip"), tiny_tokenizer, vision, seed=1)


@pytest.fixture(scope="session")
def tiny_judge_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A random open_clip ModifiedResNet for 32 px images, to be loaded as local-dir:FOLDER."""
    vision = {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8, "head_width": 16}
    return write_clip(tmp_path_factory.mktemp("judge"), tiny_tokenizer, vision, seed=2)


def write_clip(folder: Path, tokenizer: Any, vision: dict[str, object], seed: int) -> Path:
    """Write a random open_clip model with a tiny text tower as a local-dir folder."""
    import open_clip
    from safetensors.torch import save_file

    text = {"context_length": TEXT_TOKENS, "vocab_size": len(tokenizer), "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vision, "text_cfg": text | {"hf_tokenizer_name": "local"}}
    torch.manual_seed(seed)
    model = open_clip.model.CLIP(**config)
    preprocess = {"mean": [0.5] * 3, "std": [0.25] * 3, "interpolation": "bicubic", "resize_mode": "squash"}
    description = {"model_cfg": config, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(description))
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, folder / "open_clip_model.safetensors")
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_diffusion_folder(tmp_path_factory: pytest.TempPathFactory, tiny_tokenizer: Any) -> Path:
    """A random StableDiffusionPipeline for 8 px images (4 x 4 latents) with v-prediction."""
    from diffusers import AutoencoderKL, DDIMScheduler, StableDiffusionPipeline, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    folder = tmp_path_factory.mktemp("diffusion")
    torch.manual_seed(0)
    text = CLIPTextConfig(
        vocab_size=len(tiny_tokenizer),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=TEXT_TOKENS,
        projection_dim=16,
        bos_token_id=tiny_tokenizer.bos_token_id,
        eos_token_id=tiny_tokenizer.eos_token_id,
    )
    unet = UNet2DConditionModel(
        sample_size=4,
        in_channels=4,
        out_channels=4,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D",) * 2,
        up_block_types=("CrossAttnUpBlock2D",) * 2,
        cross_attention_dim=16,
        attention_head_dim=2,
        norm_num_groups=4,
    )
    vae = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 16),
        latent_channels=4,
        norm_num_groups=4,
        sample_size=8,
    )
    scheduler = DDIMScheduler(
        beta_schedule="squaredcos_cap_v2",
        prediction_type="v_prediction",
        timestep_spacing="trailing",
        clip_sample=False,
    )
    StableDiffusionPipeline(
        vae=vae,
        text_encoder=CLIPTextModel(text),
        tokenizer=tiny_tokenizer,
        unet=unet,
        scheduler=scheduler,
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def tiny_blip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random BLIP for 16 px images that knows WORDS, as transformers writes it."""
    from transformers import (
        BertTokenizer,
        BlipConfig,
        BlipForConditionalGeneration,
        BlipImageProcessor,
        BlipProcessor,
        BlipTextConfig,
        BlipVisionConfig,
    )

    folder = tmp_path_factory.mktemp("blip")
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "[DEC]"]
    vocabulary = folder / "vocab.txt"
    vocabulary.write_text("\n".join([*special, *WORDS]))
    tokenizer = BertTokenizer(str(vocabulary))
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    ids = {"pad_token_id": 0, "bos_token_id": 5, "eos_token_id": 3, "sep_token_id": 3}
    text = BlipTextConfig(
        vocab_size=len(tokenizer),
        encoder_hidden_size=16,
        max_position_embeddings=64,
        projection_dim=16,
        **layers,
        **ids,
    )
    vision = BlipVisionConfig(image_size=16, patch_size=8, projection_dim=16, **layers)
    torch.manual_seed(3)
    model = BlipForConditionalGeneration(
        BlipConfig(text_config=text.to_dict(), vision_config=vision.to_dict(), projection_dim=16)
    )
    for weight in model.parameters():
        weight.data.add_(torch.randn_like(weight), alpha=0.3)  # or every photo would have the same caption
    model.save_pretrained(folder)
    images = BlipImageProcessor(size={"height": 16, "width": 16})
    BlipProcessor(image_processor=images, tokenizer=tokenizer).save_pretrained(folder)
    return folder
