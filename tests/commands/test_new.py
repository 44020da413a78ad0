"""`tailorset new`: what it writes can be used as it is, and it says what is found and what is missing."""

from __future__ import annotations

import csv
import shutil
import subprocess
from pathlib import Path

import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from tailorset import cli
from tailorset.datasets.reading.changes import remember_state, state_of
from tailorset.project.definition import stage_definition
from tailorset.project.layout import REAL
from tailorset.project.params import load_params, named_models
from tailorset.project.presets import load_preset, overlay, preset_names, preset_text
from tailorset.records import LabelSpace
from tests.fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("--labels", "Mug, lamp,sofa", "--images", "photos")


@pytest.fixture
def photos(project: Path) -> Path:
    shutil.copytree(ROOT / "presets", project / "presets")
    folder = project / "photos"
    for place in range(60):
        path = folder / ("mug", "sofa", "lamp")[place % 3] / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16), (4 * place, 0, 0)).save(path)
    return folder


def run(*arguments: str) -> tuple[int, str]:
    answer = CliRunner().invoke(cli.app, list(arguments), env={"COLUMNS": "200"})
    return answer.exit_code, answer.output


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("name", [*preset_names(ROOT / "presets"), "toybox_b"])
def test_files_that_somebody_else_wrote_are_protected(name: str) -> None:
    before = {path: path.read_bytes() for path in Path.cwd().rglob("*.yaml")}
    code, output = run("new", name, *LABELS, "--force")
    assert code == 1
    assert f"{name}.yaml was not written by `tailorset new`: choose another name, or remove the file" in output
    assert {path: path.read_bytes() for path in Path.cwd().rglob("*.yaml")} == before


@pytest.mark.usefixtures("photos")
def test_without_annotations_there_is_a_table_to_fill_in(hub: FakeHub) -> None:
    hub.deliver(load_preset("folder"))
    code, output = run("new", "rooms", *LABELS, "--seen", "plant")
    assert code == 0, output
    assert "Found:   60 photos" in output
    assert "Missing: what they show. Fill in data/labels/rooms.csv" in output
    rows = list(csv.reader(Path("data/labels/rooms.csv").read_text().splitlines()))
    assert rows[0] == ["image", "Mug", "lamp", "sofa", "plant"]
    assert len(rows) == 61
    space = LabelSpace.load("data/labels/rooms.yaml")
    assert (space.unseen, space.seen) == (("Mug", "lamp", "sofa"), ("plant",))
    params = load_preset("rooms")
    assert params.label_space == Path("data/labels/rooms.yaml")
    assert params.tune_text_encoder.held_out_prompts == 12  # a fifth of ten for each of six pairs
    assert params.prepare_dataset.config.images == Path("photos")  # type: ignore[attr-defined]
    assert run("use", "rooms")[0] == 0
    code, output = run("check")
    assert code == 1
    assert "data/labels/rooms.csv annotates no photo" in output  # nobody has filled it in


@pytest.mark.usefixtures("photos")
def test_with_annotations_it_says_what_they_give() -> None:
    code, output = run("new", "rooms", *LABELS, "--annotations", "folders")
    assert code == 0, output
    assert "60 photos, 60 annotated for every label" in output
    assert not Path("data/labels/rooms.csv").exists()
    params = load_preset("rooms")
    assert params.train_classifier.config.train_on == ("synthetic",)  # type: ignore[attr-defined]
    assert params.fit_thresholds.source == "synthetic"


@pytest.mark.usefixtures("photos")
def test_labels_are_named_as_people_name_them() -> None:
    labels = ["T-shirt", "men's shoe", "杯子", "no", "7"]
    code, output = run("new", "Müller's Rooms", "--labels", ", ".join(labels), "--images", "photos")
    assert code == 0, output
    (label_file,) = (path for path in Path("data/labels").glob("*.yaml") if "ller" in path.name)
    assert label_file.name.isascii()
    assert LabelSpace.load(label_file).unseen == tuple(labels)
    assert LabelSpace.load(label_file).name == "Müller's Rooms"
    table = next(csv.reader(label_file.with_suffix(".csv").read_text(encoding="utf-8").splitlines()))
    assert table == ["image", *labels]
    assert run("use", label_file.stem)[0] == 0
    assert load_params("params.yaml").label_space == label_file


@pytest.mark.usefixtures("photos")
def test_the_preset_holds_what_differs_and_its_settings_keep_their_comments() -> None:
    run("new", "rooms", *LABELS)
    assert yaml.safe_load(Path("presets/rooms.yaml").read_text()) == {
        "base": "folder",
        "label_space": "data/labels/rooms.yaml",
        "prepare_dataset": {"images": "photos", "annotations": "data/labels/rooms.csv"},
        "tune_text_encoder": {"held_out_prompts": 12},
        "train_classifier": {"train_on": ["synthetic"]},
        "fit_thresholds": {"source": "synthetic"},
    }
    ours, template = (preset_text(name).split("\nseed:")[1].splitlines() for name in ("rooms", "folder"))
    changed = [(old, new) for old, new in zip(template, ours, strict=True) if old != new]
    keys = ["label_space", "annotations", "held_out_prompts", "train_on", "source"]
    assert [new.split(":")[0].strip() for _, new in changed] == keys
    assert all(old.partition("#")[2] == new.partition("#")[2] for old, new in changed)


@pytest.mark.usefixtures("photos")
def test_a_rehearsal_has_the_same_labels_and_photos_and_the_toybox_s_models(hub: FakeHub) -> None:
    shutil.copytree(ROOT / "models" / "foundation" / "toybox", "models/foundation/toybox")
    subprocess.run(["git", "add", "models"], check=True)
    code, output = run("new", "rooms", *LABELS, "--annotations", "folders", "--preset", "toybox")
    assert code == 0, output
    assert "tailorset use rooms_rehearsal, then make run: every stage in minutes on a CPU" in output
    small, real = load_preset("rooms_rehearsal"), load_preset("rooms")
    assert small.label_space == real.label_space
    assert small.prepare_dataset.config.images == real.prepare_dataset.config.images  # type: ignore[attr-defined]
    assert {name: model.model for name, model in named_models(small)} == {
        name: model.model for name, model in named_models(load_preset("toybox")) if name != "write_prompts.llm"
    }
    assert small.train_classifier.config.train_on == ("synthetic",)  # type: ignore[attr-defined]
    assert run("use", "rooms_rehearsal")[0] == 0
    code, output = run("check")
    assert code == 0, output
    hub.deliver(load_preset("folder"))
    assert run("use", "rooms")[0] == 0  # one command, nothing to force
    code, output = run("check")
    assert code == 0, output


@pytest.mark.usefixtures("photos")
def test_a_rehearsal_may_be_added_later_and_protects_files_of_others() -> None:
    assert run("new", "rooms", *LABELS)[0] == 0
    rehearse = ("new", "rooms", *LABELS, "--preset", "toybox", "--force")
    Path("presets/rooms_rehearsal.yaml").write_text("base: toybox\n")
    code, output = run(*rehearse)
    assert code == 1
    assert "rooms_rehearsal.yaml was not written by `tailorset new`" in output
    Path("presets/rooms_rehearsal.yaml").unlink()
    assert run(*rehearse)[0] == 0
    code, output = run("new", "rooms", *LABELS, "--preset", "toyboks")
    assert code == 2
    assert "toybox" in output


@pytest.mark.usefixtures("photos")
def test_nothing_is_overwritten_unless_forced() -> None:
    assert run("new", "rooms", *LABELS)[0] == 0
    Path("data/labels/rooms.csv").write_text("my work\n")
    Path("data/labels/rooms.yaml").write_text("my work\n")
    code, output = run("new", "rooms", *LABELS)
    assert code == 1
    assert "rooms.yaml, presets/rooms.yaml would be overwritten" in output
    assert Path("data/labels/rooms.yaml").read_text() == "my work\n"
    code, output = run("new", "rooms", *LABELS, "--force")
    assert code == 0
    assert "Kept:    data/labels/rooms.csv, which has the columns" in output
    assert "sofa" in Path("data/labels/rooms.yaml").read_text()
    assert Path("data/labels/rooms.csv").read_text() == "my work\n"  # annotations are never overwritten


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("rooms", "--labels", "mug, lamp, so/fa", "--images", "photos"), "'so/fa' is not a label name"),
        (("rooms", "--labels", "mug, lamp, mug", "--images", "photos"), "labels ['mug'] are listed more than once"),
        (
            ("rooms", "--labels", "mug, lamp, sofa", "--images", "nowhere"),
            "there is no folder nowhere: set --images to",
        ),
        (("../rooms", *LABELS), "'../rooms' is not a label name"),
        (("folder", *LABELS, "--force"), "presets/folder.yaml was not written by `tailorset new`"),
        (("rooms", "--labels", "mug, lamp", "--images", "photos"), "--labels names 2: name at least 3"),
        (("rooms", "--labels", "mug, lamp, image", "--images", "photos"), "a column image of their own"),
        (("rooms", *LABELS, "--annotations", "none.csv"), "there is no file of annotations none.csv"),
        (("rooms", "--labels", "mug, lamp, sofa", "--images", ""), "is this project's own folder"),
        (
            ("rooms", "--labels", "cat, dog, cow", "--images", "photos", "--annotations", "folders"),
            "no folder in photos is called like a label (cat, dog, cow): its folders are ",
        ),
    ],
)
@pytest.mark.usefixtures("photos")
def test_faults_are_named_and_nothing_is_written(arguments: tuple[str, ...], message: str) -> None:
    before = set(Path.cwd().rglob("*.yaml"))
    code, output = run("new", *arguments)
    assert code == 1
    assert message in output
    assert set(Path.cwd().rglob("*.yaml")) == before


@pytest.mark.usefixtures("photos")
def test_check_refuses_settings_that_need_seen_labels_where_there_are_none() -> None:
    run("new", "rooms", *LABELS)
    text = preset_text("rooms")
    Path("params.yaml").write_text(overlay(text, "train_classifier: \n  train_on: [real, synthetic]\n"))
    assert "has no seen label, but train_classifier.train_on asks for real images" in run("check")[1]
    Path("params.yaml").write_text(overlay(text, "fit_thresholds:\n  source: seen_photos\n"))
    assert "fit_thresholds.source is seen_photos: set it to synthetic" in run("check")[1]


@pytest.mark.usefixtures("photos")
@pytest.mark.parametrize("name", ["no", "2024", "2024-13-45"])
def test_names_that_yaml_reads_as_something_else_stay_names(name: str) -> None:
    code, output = run("new", name, "--labels", "yes, 12, lamp", "--images", "photos")
    assert code == 0, output
    space = LabelSpace.load(f"data/labels/{name}.yaml")
    assert (space.name, space.unseen) == (name, ("yes", "12", "lamp"))


def test_photos_that_changed_after_they_were_read_are_noticed(photos: Path, hub: FakeHub) -> None:
    hub.deliver(load_preset("folder"))
    run("new", "rooms", *LABELS, "--annotations", "folders")
    run("use", "rooms")
    config = load_params("params.yaml").prepare_dataset.config
    assert run("check")[0] == 0
    remember_state(Path.cwd(), stage_definition("prepare_dataset")["params"], REAL, state_of(config))
    assert run("check")[0] == 0
    (photos / "sofa" / "1.jpg").write_bytes(b"other")
    code, output = run("check")
    assert code == 1
    assert "have changed since they were read: dvc repro --force --single-item prepare_dataset" in output
