"""`make foundation` on a few dozen pictures: every stage, and a second training that continues from the first."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[2] / "pipeline" / "foundation"))
import draw_web
import publish
import train_clip
import train_llm
import train_oracle
import train_tokenizer
import train_unet
import train_vae
import training_loop

from tailorset.generators.stable_diffusion import Config, build

ROOT = Path(__file__).parents[2]
CLIPS = ("text_tower", "discriminator", "judge", "backbone")
STATE = "model.safetensors"


def small_settings() -> dict:
    settings = yaml.safe_load((ROOT / "pipeline/foundation/params.yaml").read_text(encoding="utf-8"))
    settings["draw_web"]["num_images"] = 520  # the VAE's scale is measured on 512
    others = (settings[f"train_{name}"] for name in ("vae", "oracle", "unet", "llm"))
    for options in (*settings["train_clip"].values(), *others):
        options |= {"num_steps": 2, "batch_size": 4}
    settings["train_vae"]["num_decoder_steps"] = 1
    settings["train_llm"]["num_tokenizer_examples"] = 500
    return settings


def write_settings(settings: dict) -> None:
    Path("pipeline/foundation/params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")


def work_in(folder: Path, patch: pytest.MonkeyPatch) -> None:
    patch.chdir(folder)
    patch.setattr(training_loop, "FOUNDATION", folder / "pipeline/foundation")


def train_all() -> None:
    train_tokenizer.main()
    for name in CLIPS:
        train_clip.main(name)
    for stage in (train_vae, train_unet, train_llm, train_oracle, publish):
        stage.main()


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which everything was trained once."""
    folder = tmp_path_factory.mktemp("foundation")
    (folder / "pipeline/foundation").mkdir(parents=True)
    shutil.copytree(ROOT / "data/labels", folder / "data/labels")
    with pytest.MonkeyPatch.context() as patch:
        work_in(folder, patch)
        write_settings(small_settings())
        draw_web.main()
        train_all()
    return folder


def test_every_model_is_trained_and_published(trained: Path) -> None:
    published = trained / "models/foundation/toybox"
    assert {file.parent.name for file in published.rglob("SHA256SUMS")} == set(publish.MODELS)
    generator = build(Config(model=str(published / "diffusion"), image_px=64), torch.device("cpu"))
    image = generator.sample(["a photo of a red key"], [1], 2)
    assert image.shape == (1, 3, 64, 64)
    assert image.std() > 0


def test_the_text_encoder_learns_with_the_unet(trained: Path) -> None:
    before = load_file(trained / "data/foundation/models/text_tower/open_clip_model.safetensors")
    after = load_file(trained / "models/foundation/toybox/diffusion/text_encoder" / STATE)
    name = next(key for key in after if key.endswith("token_embedding.weight"))
    moved = (before["token_embedding.weight"].float() - after[name].float()).abs().max()
    assert 0 < moved < 0.01  # a little, in two steps; not anew


def test_a_training_continues_from_published_models(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    work_in(trained, monkeypatch)
    first = load_file("models/foundation/toybox/diffusion/text_encoder" / Path(STATE))
    settings = small_settings() | {"continue_from": "models/foundation/toybox", "output": "data/foundation/second"}
    write_settings(settings)
    for part in ("tokenizer", "vae"):
        shutil.copytree(f"data/foundation/models/diffusion/{part}", f"data/foundation/second/diffusion/{part}")
    train_unet.main()
    second = load_file("data/foundation/second/diffusion/text_encoder" / Path(STATE))
    largest = max((first[key].float() - second[key].float()).abs().max() for key in first)
    assert 0 < largest < 0.01
