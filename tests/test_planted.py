"""Planted code: wherever models, caches, label files and shards are read, it is refused and nothing of it runs.

Every planted object would make the file `canary` when it is unpickled or constructed.
"""

from __future__ import annotations

import io
import json
import pickle
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from tiny_backbone import write_backbone
from torch import nn

from tailorset.clip.model import load_clip
from tailorset.generators import stable_diffusion
from tailorset.generators.parts.lora import WEIGHTS as LORA_WEIGHTS
from tailorset.generators.parts.lora import load_lora
from tailorset.inference.predictor import load_predictor
from tailorset.plugins import load_plugin
from tailorset.project.params import load_params
from tailorset.records import LabelSpace
from tailorset.serving.app import create_app
from tailorset.serving.service import Service
from tailorset.storage import checksums
from tailorset.storage.checkpoint import load_checkpoint, save_checkpoint
from tailorset.storage.image_set import real_rows
from tailorset.storage.shards import CorruptShardError, read_shard
from tailorset.thresholds.rules import Thresholds


class Bomb:
    """Writes the canary when it is unpickled."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return Path.write_text, (self.canary, "executed")


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture(params=["pickle", "torch archive", "old torch file"])
def planted(request: pytest.FixtureRequest, canary: Path) -> bytes:
    """The bytes of a file that runs code when it is loaded the careless way."""
    if request.param == "pickle":
        content = pickle.dumps({"weights": Bomb(canary)})
    else:
        buffer = io.BytesIO()
        torch.save({"weights": Bomb(canary)}, buffer, _use_new_zipfile_serialization=request.param == "torch archive")
        content = buffer.getvalue()
    torch.load(io.BytesIO(content), weights_only=False) if request.param != "pickle" else pickle.loads(content)
    assert canary.exists()  # the bomb works
    canary.unlink()
    return content


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """classifier/ and thresholds.json of a tiny classifier."""
    root = tmp_path_factory.mktemp("models")
    space = LabelSpace.model_validate({"name": "tiny", "labels": [{"name": "ball", "seen": False}]})
    plugin = load_plugin("classifiers", "dual_prompt")
    config = plugin.Config(backbone={"model": write_backbone(root / "backbone", "resnet")}, num_context_tokens=2)
    plugin.build(config, space, torch.device("cpu")).save(root / "classifier")
    Thresholds({}).save(root / "thresholds.json")
    return root


@pytest.mark.parametrize(
    "name", ["classifier.safetensors", "config.json", "../thresholds.json", "../novelty.safetensors"]
)
def test_a_classifier(models: Path, tmp_path: Path, planted: bytes, canary: Path, name: str) -> None:
    copy = tmp_path / "models" / "classifier"
    shutil.copytree(models, copy.parent)
    (copy / name).write_bytes(planted)
    (copy / checksums.SUMS).unlink()  # whoever plants can seal as well
    with pytest.raises(ValueError, match=str(copy) if name == "classifier.safetensors" else Path(name).name):
        load_predictor(copy)
    assert not canary.exists()


def test_a_checkpoint_to_resume_from(tmp_path: Path, planted: bytes, canary: Path) -> None:
    path = tmp_path / "step.safetensors"
    path.write_bytes(planted)
    with pytest.raises(ValueError, match="cannot be used"):
        load_checkpoint(path, model=nn.Linear(2, 2))
    assert not canary.exists()


def test_an_adapter(tmp_path: Path, planted: bytes, canary: Path, tiny_diffusion_folder: Path) -> None:
    from transformers import CLIPTextModel

    (tmp_path / LORA_WEIGHTS).write_bytes(planted)
    encoder = CLIPTextModel.from_pretrained(tiny_diffusion_folder / "text_encoder")
    with pytest.raises(ValueError, match="damaged"):
        load_lora(nn.ModuleDict({"text_encoder": encoder}), tmp_path)
    assert not canary.exists()


@pytest.mark.parametrize("name", ["open_clip_model.safetensors", "open_clip_pytorch_model.bin"])
def test_a_clip_model(tmp_path: Path, planted: bytes, canary: Path, tiny_clip_folder: Path, name: str) -> None:
    folder = shutil.copytree(tiny_clip_folder, tmp_path / "clip")
    (folder / "open_clip_model.safetensors").unlink()
    (folder / name).write_bytes(planted)
    with pytest.raises(ValueError, match="CLIP"):
        load_clip(f"local-dir:{folder}", "cpu")
    assert not canary.exists()


@pytest.mark.parametrize("part", ["unet", "vae", "text_encoder"])
@pytest.mark.parametrize("beside", [False, True])
def test_a_generator(
    tmp_path: Path, planted: bytes, canary: Path, tiny_diffusion_folder: Path, part: str, beside: bool
) -> None:
    """As the safetensors file itself, and as the pickle that libraries read where there is none."""
    folder = shutil.copytree(tiny_diffusion_folder, tmp_path / "diffusion")
    weights = next((folder / part).glob("*.safetensors"))
    weights.unlink()
    old = "pytorch_model.bin" if part == "text_encoder" else "diffusion_pytorch_model.bin"
    (weights.with_name(old) if beside else weights).write_bytes(planted)
    with pytest.raises(ValueError, match=str(folder)):
        stable_diffusion.load_components(str(folder), torch.float32)
    assert not canary.exists()


def test_a_language_model(tmp_path: Path, planted: bytes, canary: Path) -> None:
    """Pickled weights, and a model class that the folder brings along."""
    code = f"from pathlib import Path\nPath({str(canary)!r}).write_text('executed')\n"
    for name in ("modeling.py", "configuration.py", "tokenization.py"):
        (tmp_path / name).write_text(code)
    auto = {"AutoConfig": "configuration.C", "AutoModelForCausalLM": "modeling.M", "AutoTokenizer": "tokenization.T"}
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "planted", "auto_map": auto}))
    (tmp_path / "tokenizer_config.json").write_text(
        json.dumps({"auto_map": {"AutoTokenizer": ["tokenization.T", None]}})
    )
    (tmp_path / "pytorch_model.bin").write_bytes(planted)
    plugin = load_plugin("llms", "transformers")
    config = plugin.Config(
        model=str(tmp_path), quantization="none", temperature=1, top_p=1, max_new_tokens=4, batch_size=1
    )
    with pytest.raises(ValueError, match=str(tmp_path)):
        plugin.build(config, torch.device("cpu"))
    assert not canary.exists()


def test_a_manifest(tmp_path: Path, planted: bytes, canary: Path, models: Path) -> None:
    (tmp_path / "manifest.parquet").write_bytes(planted)
    with pytest.raises(ValueError, match="arquet"):
        real_rows(tmp_path, "train", load_predictor_space(models))
    assert not canary.exists()


def load_predictor_space(models: Path) -> LabelSpace:
    description = json.loads((models / "classifier" / "config.json").read_text())
    return LabelSpace.model_validate(description["label_space"])


def test_a_shard_that_is_no_tar(tmp_path: Path, planted: bytes, canary: Path) -> None:
    (tmp_path / "x.tar").write_bytes(planted)
    with pytest.raises(CorruptShardError):
        list(read_shard(tmp_path / "x.tar"))
    assert not canary.exists()


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE, tarfile.DIRTYPE])
@pytest.mark.parametrize("target", ["a.png", "/etc/passwd", "../../etc/passwd"])
def test_a_shard_with_links_or_devices(tmp_path: Path, kind: bytes, target: str) -> None:
    """Also a link to a member of the same tar: an image is a file."""
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.USTAR_FORMAT) as tar:
        image = tarfile.TarInfo("a.png")
        image.size = 4
        tar.addfile(image, io.BytesIO(b"fine"))
        link = tarfile.TarInfo("b.png")
        link.type, link.linkname = kind, target
        tar.addfile(link)
    with pytest.raises(CorruptShardError, match=r"'b\.png' is not a file"):
        list(read_shard(tmp_path / "x.tar"))


TAGS = (
    "!!python/object/apply:pathlib.Path.write_text [!!python/object/apply:pathlib.Path [{canary}], executed]",
    '!!python/object/apply:os.system ["touch {canary}"]',
    '!!python/object/new:subprocess.Popen [["touch", "{canary}"]]',
    "!!python/name:os.system",
)


@pytest.mark.parametrize("tag", TAGS)
@pytest.mark.parametrize("load", [LabelSpace.load, load_params])
def test_yaml_tags(tmp_path: Path, canary: Path, tag: str, load: Callable[[Path], object]) -> None:
    path = tmp_path / "planted.yaml"
    path.write_text(f"name: {tag.format(canary=canary)}\nlabels: []\n")
    with pytest.raises(ValueError, match="planted"):
        load(path)
    assert not canary.exists()


def test_an_upload(models: Path, planted: bytes, canary: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(models / "classifier", tmp_path / "alone")
    with TestClient(create_app(Service(str(folder)))) as client:
        for kind in ("image/png", "application/octet-stream", "application/x-pickle"):
            assert client.post("/predict", content=planted, headers={"content-type": kind}).status_code == 415
    assert not canary.exists()


def test_tensors_alone_are_read(tmp_path: Path) -> None:
    """The same call on what it is made for: the refusals above are not for want of a readable file."""
    save_checkpoint(tmp_path / "s", 3, model=nn.Linear(2, 2))
    assert load_checkpoint(tmp_path / "s", model=nn.Linear(2, 2)) == 3
