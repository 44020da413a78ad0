"""A project whose registry holds a tiny classifier with its thresholds, and files as people have them."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import uvicorn
from mutations import TURNED, exif_photo
from PIL import Image
from safetensors.torch import load_file, save_file
from starlette.types import ASGIApp, Receive, Scope, Send
from tiny_backbone import write_backbone
from torch import Tensor

from tailorset.images.codec import encode_png
from tailorset.inference.predictor import Predictor
from tailorset.plugins import load_plugin
from tailorset.project.layout import CLASSIFIER, EXAMPLES, FITTED_TO, MEASURED, MODEL_CARD, NOVELTY, THRESHOLDS
from tailorset.project.tracking import connect
from tailorset.records import LabelSpace
from tailorset.registry.measurement import Measurement
from tailorset.registry.version import make_challenger, register
from tailorset.serving.app import create_app
from tailorset.serving.service import Service
from tailorset.storage import checksums
from tailorset.storage.shards import write_shard
from tailorset.thresholds.novelty import fit_novelty
from tailorset.thresholds.rules import LabelRule, Thresholds

TINY_COCO = Path(__file__).resolve().parents[2] / "shared" / "data" / "tiny_coco"

MEASUREMENT = Measurement(
    test_set="a" * 64,
    num_photos=200,
    maps={"zsl/map": 0.5, "gzsl/map": 0.6},
    clip_maps={"zsl/map": 0.3, "gzsl/map": 0.4},
    average_precision={"tea cup": 0.5, "ball": 0.7},
    val_set="c" * 64,
    val_maps={"zsl/map": 0.51, "gzsl/map": 0.61},
    val_clip_maps={"zsl/map": 0.31, "gzsl/map": 0.41},
    unseen=["tea cup"],
)


@pytest.fixture(scope="session")
def label_space() -> LabelSpace:
    labels = [{"name": "tea cup", "seen": False}, {"name": "ball", "seen": True}]
    return LabelSpace.model_validate({"name": "tiny", "labels": labels})


@pytest.fixture(scope="session")
def thresholds() -> Thresholds:
    return Thresholds({"tea cup": LabelRule(1.5, -0.5, 0.4, 0.3, 0.6), "ball": LabelRule(2.0, 0.1, 0.5, 0.45, 0.55)})


def write_model(root: Path, label_space: LabelSpace, thresholds: Thresholds) -> None:
    """Write a tiny random classifier with all that belongs to a version, and a test photo, to the project here."""
    (root / "data" / "real" / "shards").mkdir(parents=True)
    write_shard(Path("data/real/shards/test-00000.tar"), [("a", encode_png(np.full((9, 7, 3), 200, np.uint8)))])
    plugin = load_plugin("classifiers", "dual_prompt")
    backbone = write_backbone(root / "backbone", "resnet")
    config = plugin.Config(backbone={"model": backbone}, num_context_tokens=2)
    plugin.build(config, label_space, torch.device("cpu")).save(CLASSIFIER)
    thresholds.save(THRESHOLDS)
    features = torch.randn(300, 16, generator=torch.Generator().manual_seed(0))
    fit_novelty(features[:200], features[200:]).save(NOVELTY)
    checksums.bind(CLASSIFIER, FITTED_TO)
    MEASUREMENT.save(MEASURED)
    EXAMPLES.mkdir()
    for number in range(2):
        (EXAMPLES / f"{number}.png").write_bytes(encode_png(np.full((30, 40, 3), 100 * number, np.uint8)))
    MODEL_CARD.write_text("# A card\n")


@pytest.fixture(scope="session")
def registry(tmp_path_factory: pytest.TempPathFactory, label_space: LabelSpace, thresholds: Thresholds) -> Path:
    """A project in which the stage's code has registered a small classifier as tiny, version 1."""
    root = tmp_path_factory.mktemp("registry")
    before = Path.cwd()
    os.chdir(root)
    try:
        write_model(root, label_space, thresholds)
        Path("dvc.lock").write_text("schema: '2.0'\n")
        Path("params.yaml").write_text("seed: 0\n")
        client, experiment = connect(root)
        run_id = client.create_run(experiment).info.run_id
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("DVC_EXP_NAME", "sunny-dune")
            make_challenger("tiny", register("tiny", run_id, label_space.names, MEASUREMENT, {}))
        assert client.get_registered_model("tiny").aliases == {"challenger": 1}  # a sweep never promotes
    finally:
        os.chdir(before)
        os.environ.pop("MLFLOW_TRACKING_URI", None)
    return root


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """One file of each kind a camera, a scanner or a browser makes, all sizes, and real photos where present."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (61, 35, 3), dtype=np.uint8))
    exif = rgb.getexif()
    exif[0x0112] = 6  # turned by 90 degrees
    rgb.save(folder / "turned.jpg", exif=exif)
    (folder / "odd_exif.jpg").write_bytes(exif_photo([TURNED, (282, 2, b"not a resolution")]))
    rgb.save(folder / "browser.jfif", "JPEG")
    rgb.save(folder / "phone.avif")
    rgb.convert("CMYK").save(folder / "cmyk.jpg")
    rgb.convert("L").save(folder / "grey.png")
    rgb.convert("P").save(folder / "palette.gif")
    rgb.convert("RGBA").save(folder / "alpha.webp")
    Image.fromarray(rng.integers(0, 65536, (40, 300), dtype=np.uint16)).save(folder / "deep.png")
    rgb.resize((1, 1)).save(folder / "dot.png")
    for photo in sorted(TINY_COCO.rglob("*.jpg"))[:10]:
        (folder / photo.name).write_bytes(photo.read_bytes())
    return folder


@pytest.fixture(scope="session")
def folder(registry: Path) -> Path:
    """The folder of the tiny classifier, with its thresholds beside it."""
    return registry / "models" / "classifier"


@pytest.fixture(scope="session")
def other_folder(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same labels and thresholds with another classifier: it says something else."""
    root = tmp_path_factory.mktemp("other")
    shutil.copytree(folder, root / "classifier")
    for name in ("thresholds.json", "novelty.safetensors"):
        shutil.copy(folder.parent / name, root)
    weights = root / "classifier" / "classifier.safetensors"
    tensors = load_file(weights)
    tensors["text_features"] = tensors["text_features"].flip(0)
    save_file(tensors, weights)
    checksums.seal(weights.parent)
    return root / "classifier"


def scores_of(predictor: Predictor, contents: Sequence[bytes]) -> Tensor:
    """Scores (N, L) of the bytes of photos."""
    return predictor.scores(torch.stack([predictor.pixels(content) for content in contents]))


@contextlib.contextmanager
def running(service: Service, below: str = "") -> Iterator[str]:
    """The service on a free port of this machine, in a thread; its address. below: a proxy's path, which it strips."""
    app = create_app(service)

    async def proxied(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            path = scope["path"].removeprefix(below) if scope["path"].startswith(f"{below}/") else "/elsewhere"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await app(scope, receive, send)

    with running_app(proxied) as url:
        yield url


@contextlib.contextmanager
def running_app(app: ASGIApp) -> Iterator[str]:
    """An app on a free port of this machine, in a thread; its address."""
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning"))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
