"""Many photos to a file: nothing is lost, whatever lies among them, and the scores are the endpoint's."""

from __future__ import annotations

import json
import os
import shutil
import tarfile
from pathlib import Path
from types import SimpleNamespace

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from tailorset import cli
from tailorset.cli import models as model_commands
from tailorset.images.codec import encode_png
from tailorset.inference.predictor import Looked, Predictor, load_predictor
from tailorset.inference.sources import image_sources
from tailorset.records import LabelSpace
from tailorset.storage.shards import add_member, write_shard
from tailorset.thresholds.rules import LabelRule, Thresholds
from tests.registered import scores_of


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(cli.app, ["predict", *map(str, arguments)], terminal_width=200)
    return result.exit_code, result.output


@pytest.fixture
def model(registry: Path) -> Path:
    return registry / "models" / "classifier"


@pytest.fixture
def predictor(model: Path) -> Predictor:
    return load_predictor(model, "cpu")


@pytest.fixture
def album(photos: Path, tmp_path: Path) -> Path:
    """Photos in nested folders, a shard, and what lies about in people's folders."""
    folder = tmp_path / "album"
    shutil.copytree(photos, folder / "2024" / "summer")
    rng = np.random.default_rng(0)
    images = [(f"i{n}", encode_png(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8))) for n in range(5)]
    write_shard(folder / "shards" / "a.tar", images)
    (folder / "notes.txt").write_text("no photo")
    (folder / "cut.jpg").write_bytes((photos / "turned.jpg").read_bytes()[:200])
    (folder / "empty.png").touch()
    (folder / "gone.png").symlink_to(folder / "nowhere.png")
    (folder / "cut.tar").write_bytes((folder / "shards" / "a.tar").read_bytes()[:-5000])
    os.mkfifo(folder / "pipe.jpg")
    (folder / "again").symlink_to(folder)  # leads back up
    (folder / ".thumbnails").mkdir()
    shutil.copy(photos / "turned.jpg", folder / ".thumbnails" / "hidden.jpg")
    return folder


BROKEN = {"notes.txt", "cut.jpg", "empty.png", "gone.png", "cut.tar", "pipe.jpg"}


def read(path: Path) -> pd.DataFrame:
    readers = {".parquet": pd.read_parquet, ".csv": pd.read_csv, ".jsonl": lambda p: pd.read_json(p, lines=True)}
    return readers[path.suffix](path)


def test_batches_shrink_for_good_when_memory_runs_out(
    photos: Path, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = (photos, photos, photos, "--model", model, "--batch-size", 4, "--device", "cpu", "--output")
    run(*asked, tmp_path / "roomy.csv")
    look, tried, room = Predictor.look, list[int](), 2

    def look_at_few(self: Predictor, pixels: torch.Tensor, batch_size: int) -> Looked:
        tried.append(len(pixels))
        if len(pixels) > room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return look(self, pixels, batch_size)

    monkeypatch.setattr(Predictor, "look", look_at_few)
    code, said = run(*asked, tmp_path / "cramped.csv")
    assert code == 0, said
    pd.testing.assert_frame_equal(read(tmp_path / "cramped.csv"), read(tmp_path / "roomy.csv"), atol=1e-5)
    assert [size for size in tried if size > room] == tried[:1]
    room = 0
    code, said = run(*asked, tmp_path / "none.csv")
    assert (code, "not even one at a time fits" in said, "--device cpu" in said) == (1, True, True)
    assert not (tmp_path / "none.csv").exists()


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".jsonl"])
def test_every_file_is_a_row_with_the_endpoint_s_scores_or_its_error(
    album: Path, model: Path, predictor: Predictor, tmp_path: Path, suffix: str
) -> None:
    output = tmp_path / f"out{suffix}"
    code, said = run(album, "--model", model, "--output", output, "--batch-size", 4, "--device", "cpu")
    assert code == 0, said
    table = read(output).set_index("path")
    photos = sorted((album / "2024" / "summer").iterdir())
    assert set(table.index) == {
        *map(str, photos),
        *(f"{album}/shards/a.tar/i{n}" for n in range(5)),
        *(str(album / name) for name in BROKEN),
    }
    failed = table[table["error"].notna()]
    assert {Path(path).name for path in failed.index} == BROKEN
    assert failed["score/ball"].isna().all()
    assert f"{len(table)} images, {len(BROKEN)} of them could not be read" in said
    for name in BROKEN:
        assert f"{album / name}: " in said
    expected = scores_of(predictor, [path.read_bytes() for path in photos]).numpy()
    answered = table.loc[[str(path) for path in photos], ["score/tea cup", "score/ball"]].to_numpy()
    np.testing.assert_allclose(answered, expected, atol=1e-5)


def test_metadata_in_shards_of_other_programs_are_no_photos(photos: Path, model: Path, tmp_path: Path) -> None:
    shard, output = tmp_path / "00000.tar", tmp_path / "out.jsonl"
    with tarfile.open(shard, "w") as tar:
        folder = tarfile.TarInfo("photos")
        folder.type = tarfile.DIRTYPE
        tar.addfile(folder)
        for name in ("a.jpg", "a.json", "a.txt"):
            add_member(tar, name, (photos / "turned.jpg").read_bytes() if name == "a.jpg" else b"{}")
    code, said = run(shard, "--model", model, "--output", output, "--device", "cpu")
    assert code == 0, said
    assert [json.loads(line)["path"] for line in output.read_text().splitlines()] == [f"{shard}/a"]
    content = shard.read_bytes()
    shard.write_bytes(content.rstrip(b"\0").ljust(-(-len(content.rstrip(b"\0")) // 512) * 512, b"\0") + bytes(1024))
    code, said = run(shard, "--model", model, "--output", tmp_path / "short.jsonl", "--device", "cpu")
    assert "0 of them could not be read" in said or "could not be read" not in said
    shard.write_bytes(content[:-5000])
    code, said = run(shard, "--model", model, "--output", tmp_path / "cut.jsonl", "--device", "cpu")
    assert "the shard is cut off at" in said
    assert "dvc" not in said


def test_photos_in_folders_of_a_shard_keep_their_names_and_hidden_files_are_left_out(
    photos: Path, model: Path, tmp_path: Path
) -> None:
    shard, output = tmp_path / "00000.tar", tmp_path / "out.jsonl"
    odd = os.fsdecode(b"caf\xe9.jpg")  # not UTF-8
    with tarfile.open(shard, "w") as tar:
        for name in ("cats/1.jpg", "dogs/1.jpg", "dogs/._1.jpg", ".DS_Store", f"dogs/{odd}"):
            add_member(tar, name, (photos / "turned.jpg").read_bytes())
    code, said = run(shard, "--model", model, "--output", output, "--device", "cpu")
    assert code == 0, said
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    assert [row["path"] for row in rows] == [f"{shard}/{name}" for name in ("cats/1", "dogs/1", "dogs/caf\\xe9")]
    assert not any(row["error"] for row in rows)


def test_labels_are_decided_and_left_open_as_the_thresholds_say(
    photos: Path, model: Path, predictor: Predictor, tmp_path: Path
) -> None:
    output = tmp_path / "out.jsonl"
    assert run(photos, "--model", model, "--output", output, "--device", "cpu")[0] == 0
    rows = [json.loads(line) for line in output.read_text().splitlines()]
    decisions = predictor.decide(scores_of(predictor, [Path(row["path"]).read_bytes() for row in rows]))
    labels = np.array(predictor.labels)
    certain = decisions.present & ~decisions.abstained  # as the web service says it
    assert [row["present"] for row in rows] == [labels[mask].tolist() for mask in certain.numpy()]
    for row, words, chances in zip(rows, decisions.words, decisions.probabilities.tolist(), strict=True):
        assert [row[f"decision/{label}"] for label in labels] == words
        assert [row[f"probability/{label}"] for label in labels] == pytest.approx(chances, abs=1e-4)
        assert [row[f"threshold/{label}"] for label in labels] == pytest.approx([0.4, 0.5])
        assert row["novelty"] > 0
    assert [row["open"] for row in rows] == [labels[mask].tolist() for mask in decisions.abstained.numpy()]
    assert decisions.present.any()


def test_a_label_left_open_is_not_among_those_that_are_present(photos: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(model, tmp_path / "open" / "classifier")
    unsure = LabelRule(scale=1.0, bias=0.0, threshold=1e-6, abstain_low=0.0, abstain_high=1.0)
    certain = LabelRule(scale=1.0, bias=0.0, threshold=1e-6, abstain_low=1e-6, abstain_high=1e-6)
    Thresholds({"tea cup": unsure, "ball": certain}).save(tmp_path / "open" / "thresholds.json")
    assert run(photos, "--model", tmp_path / "open" / "classifier", "--output", tmp_path / "out.csv")[0] == 0
    table = read(tmp_path / "out.csv")
    assert set(table["present"]) == {"ball"}
    assert set(table["open"]) == {"tea cup"}


def test_without_thresholds_a_label_is_present_from_a_half_on(photos: Path, model: Path, tmp_path: Path) -> None:
    alone = Path(shutil.copytree(model, tmp_path / "alone" / "classifier"))
    code, said = run(photos, "--model", alone, "--output", tmp_path / "out.parquet")
    assert code == 0
    assert f"{alone} has no thresholds.json: a label is present from a score of 0.5 on" in said
    assert "`dvc repro fit_thresholds` makes the file" in said
    assert "thresholds.json" not in run(photos, "--model", model, "--output", tmp_path / "out.csv")[1]
    table = read(tmp_path / "out.parquet")
    for row in table.to_dict("records"):
        assert list(row["present"]) == [name for name in ("tea cup", "ball") if row[f"score/{name}"] >= 0.5]
        assert list(row["open"]) == []
        assert row["probability/ball"] is None or np.isnan(row["probability/ball"])  # nothing was calibrated
        assert np.isnan(row["novelty"])


def test_the_champion_answers_unless_another_model_is_named(
    registry: Path, label_space: LabelSpace, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(registry)
    monkeypatch.setattr(model_commands, "params_and_labels", lambda: (SimpleNamespace(model_name="tiny"), label_space))
    try:
        code, said = run(photos, "--output", tmp_path / "out.csv")
        assert code == 1
        assert "models:/tiny@champion is not in the registry" in said
        mlflow.MlflowClient().set_registered_model_alias("tiny", "champion", "1")
        code, said = run(photos, "--output", tmp_path / "out.csv")
        assert code == 0, said
        assert "by models:/tiny@champion, version 1: " in said
        others = LabelSpace.model_validate(
            {"name": "others", "labels": [{"name": name, "seen": False} for name in ("ball", "fish")]}
        )
        monkeypatch.setattr(model_commands, "params_and_labels", lambda: (SimpleNamespace(model_name="tiny"), others))
        code, said = run(photos, "--output", tmp_path / "out.csv")
        assert code == 1
        assert "is not of the labels of others in params.yaml: it alone has tea cup and it lacks fish" in said
        assert run(photos, "--model", "models:/tiny@champion", "--output", tmp_path / "out.csv")[0] == 0
    finally:
        mlflow.MlflowClient().delete_registered_model_alias("tiny", "champion")


def test_a_file_among_the_photos_is_not_read_as_one(photos: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "album")
    output = tmp_path / "album" / "out.csv"
    for _ in range(2):
        assert run(tmp_path / "album", "--model", model, "--output", output)[0] == 0
        assert len(read(output)) == len(list(photos.iterdir()))


def test_a_folder_is_never_replaced_by_a_file(photos: Path, model: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.parquet"
    output.mkdir()
    (output / "precious.txt").write_text("mine")
    code, said = run(photos, "--model", model, "--output", output)
    assert code == 1
    assert "out.parquet is a folder, which is never replaced" in said
    assert (output / "precious.txt").read_text() == "mine"


def test_a_place_where_nothing_can_be_written_is_one_line(photos: Path, model: Path, tmp_path: Path) -> None:
    (tmp_path / "file.csv").write_text("a")
    code, said = run(photos, "--model", model, "--output", tmp_path / "file.csv" / "out.csv")
    assert code == 1
    assert "file.csv" in said
    assert "Traceback" not in said


def test_of_many_failures_some_are_said_and_all_are_counted(photos: Path, model: Path, tmp_path: Path) -> None:
    shutil.copytree(photos, tmp_path / "album")
    for number in range(25):
        (tmp_path / "album" / f"{number:02}.png").touch()
    code, said = run(tmp_path / "album", "--model", model, "--output", tmp_path / "out.csv")
    assert code == 0
    assert "25 of them could not be read" in said
    assert "... and 5 more: the rows of" in said


def test_sources_are_opened_only_as_they_are_asked_for(tmp_path: Path) -> None:
    for number in range(3):
        Image.new("RGB", (4, 4)).save(tmp_path / f"{number}.png")
    sources = image_sources([tmp_path])
    first = next(sources)
    (tmp_path / "1.png").unlink()  # listed, not yet read
    assert first.name == str(tmp_path / "0.png")
    with pytest.raises(FileNotFoundError):
        next(sources).read()


def test_what_cannot_be_done_is_said_before_or_instead_of_writing(model: Path, photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "out.csv"
    for arguments, message in (
        (
            (photos, "--output", tmp_path / "out.xlsx"),
            "Unknown suffix of an output file: '.xlsx'. Choices: .parquet, .csv",
        ),
        ((tmp_path / "nowhere", "--output", output), "There is no "),
        (
            (tmp_path / "text", "--output", output),
            f"No image in {tmp_path / 'text'} could be read: nothing was written.",
        ),
    ):
        (tmp_path / "text").mkdir(exist_ok=True)
        (tmp_path / "text" / "a.txt").write_text("a")
        code, said = run(*arguments, "--model", model)
        assert code == 1
        assert message in said
        assert not output.exists()
    code, said = run(photos, "--model", tmp_path / "no_model", "--output", output)
    assert code == 1
    assert "There is no folder" in said
    assert "models:/NAME@ALIAS" in said


@pytest.mark.parametrize("name", ["config.json", "classifier.safetensors"])
def test_a_file_of_the_classifier_that_is_missing_is_named_with_what_makes_it(
    model: Path, photos: Path, tmp_path: Path, name: str
) -> None:
    folder = Path(shutil.copytree(model, tmp_path / "classifier"))
    (folder / name).unlink()
    code, said = run(photos, "--model", folder, "--output", tmp_path / "out.csv")
    assert code == 1
    assert f"{folder} has no {name}, so it is not a trained classifier: name another folder" in said
    assert "`dvc repro train_classifier` makes it" in said
    assert "Errno" not in said
