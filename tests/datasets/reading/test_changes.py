"""Detection of changes to the files that a data set reads."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from tailorset.datasets.reading.changes import UserPath, has_changed, remember_state, state_of
from tailorset.storage.photo_files import Unread, files_below
from tests.unreadable import forbid

HERE, OTHERS = {"prepare_dataset.image_px": 64}, {"prepare_dataset.image_px": 32}


class Config(BaseModel):
    images: UserPath
    table: UserPath


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "a.png").write_bytes(b"a")
    (tmp_path / "table.csv").write_text("x")
    return Config(images=tmp_path / "images", table=tmp_path / "table.csv")


@pytest.fixture
def product(tmp_path: Path) -> Path:
    return made(tmp_path / "real", "first")


def made(product: Path, content: str) -> Path:
    """A product of prepare_dataset, as its tables tell it from others."""
    product.mkdir(exist_ok=True)
    (product / "manifest.parquet").write_text(content)
    return product


@pytest.mark.parametrize("change", ["write", "touch", "add", "remove", "table"])
def test_every_change_of_a_file_is_noticed(tmp_path: Path, config: Config, product: Path, change: str) -> None:
    remember_state(tmp_path, HERE, product, state_of(config))
    assert not has_changed(tmp_path, HERE, product, config)
    image = config.images / "deep" / "a.png"
    {
        "write": lambda: image.write_bytes(b"ab"),
        "touch": lambda: os.utime(image, (1, 1)),
        "add": lambda: (config.images / "b.png").touch(),
        "remove": image.unlink,
        "table": lambda: config.table.write_text("yx"),
    }[change]()
    assert has_changed(tmp_path, HERE, product, config)


def test_what_systems_leave_about_is_no_change(tmp_path: Path, config: Config, product: Path) -> None:
    remember_state(tmp_path, HERE, product, state_of(config))
    (config.images / ".DS_Store").touch()
    (config.images / ".thumbnails").mkdir()
    (config.images / ".thumbnails" / "a.png").touch()
    assert not has_changed(tmp_path, HERE, product, config)


def test_nothing_is_said_of_what_was_never_read_or_with_other_settings(
    tmp_path: Path, config: Config, product: Path
) -> None:
    assert not has_changed(tmp_path, HERE, product, config)
    remember_state(tmp_path, HERE, product, "another state")
    assert has_changed(tmp_path, HERE, product, config)
    assert not has_changed(tmp_path, OTHERS, product, config)


def test_an_experiment_in_a_copy_hides_no_change(tmp_path: Path, config: Config, product: Path) -> None:
    remember_state(tmp_path, HERE, product, state_of(config))
    config.table.write_text("corrected")
    theirs = made(tmp_path / "copy", "of other settings")
    remember_state(tmp_path, OTHERS, theirs, state_of(config))
    assert has_changed(tmp_path, HERE, product, config)
    again = made(tmp_path / "copy", "of the same settings and the corrected table")
    remember_state(tmp_path, HERE, again, state_of(config))
    assert has_changed(tmp_path, HERE, product, config)
    assert not has_changed(tmp_path, HERE, again, config)


def test_an_old_product_that_dvc_would_bring_back_is_noticed(tmp_path: Path, config: Config, product: Path) -> None:
    """Settings A, settings B, an annotation corrected, back to A: DVC takes A's product from its run cache."""
    remember_state(tmp_path, HERE, product, state_of(config))
    of_others = made(tmp_path / "real", "of other settings")
    remember_state(tmp_path, OTHERS, of_others, state_of(config))
    assert not has_changed(tmp_path, HERE, of_others, config)
    config.table.write_text("corrected")
    assert has_changed(tmp_path, HERE, of_others, config)


def test_a_project_may_move_together_with_its_photos(
    tmp_path: Path, config: Config, product: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    remember_state(tmp_path, HERE, product, state_of(config))
    tmp_path.rename(moved := tmp_path.with_name(f"{tmp_path.name}-moved"))
    there = Config(images=moved / "images", table=moved / "table.csv")
    assert not has_changed(moved, HERE, moved / "real", there)


def test_linked_folders_are_read_once(tmp_path: Path, config: Config) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").touch()
    (config.images / "link").symlink_to(tmp_path / "elsewhere")
    (config.images / "loop").symlink_to(config.images)
    names = [path.relative_to(config.images).as_posix() for path in files_below(config.images)]
    assert names == ["deep/a.png", "link/c.png"]


def test_a_linked_folder_has_both_its_names(tmp_path: Path) -> None:
    for folder in ("dog", ".store"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.png").touch()
    (tmp_path / "current").symlink_to("dog")
    (tmp_path / "stored").symlink_to(".store")
    (tmp_path / "dog" / "stored").symlink_to(tmp_path / "stored")
    (tmp_path / ".store" / "dog").symlink_to(tmp_path / "dog")  # each is below the other
    found = {path.relative_to(tmp_path).as_posix() for path in files_below(tmp_path) if isinstance(path, Path)}
    assert found >= {"current/a.png", "dog/a.png", "stored/a.png"}


def test_what_cannot_be_read_is_told_and_a_change_once_it_can(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    (config.images / "b.png").symlink_to("nowhere.png")
    os.mkfifo(config.images / "c.png")
    with monkeypatch.context() as patch:
        forbid(patch, config.images / "deep")
        found = list(files_below(config.images))
        state = state_of(config)
    assert found == [
        Unread(config.images / "b.png", "a link to nowhere.png, which is not there"),
        Unread(config.images / "c.png", "neither a file nor a folder"),
        Unread(config.images / "deep", "Permission denied"),
    ]
    assert state_of(config) != state


def test_paths_are_relative_to_the_project_in_dvc_s_copies_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    copy = tmp_path / "project" / ".dvc" / "tmp" / "exps" / "standalone" / "copy"
    copy.mkdir(parents=True)
    (tmp_path / "photos").mkdir()
    for folder in (copy.parents[4], copy):
        (folder / "tracked.csv").write_text(str(folder))
    (copy.parents[4] / "uncommitted.csv").touch()
    monkeypatch.chdir(copy)
    monkeypatch.setenv("DVC_ROOT", str(copy.parents[4]))
    config = Config(images=Path("../photos"), table=Path("tracked.csv"))
    assert config.images.samefile(tmp_path / "photos")
    assert config.table.read_text() == str(copy)  # with the experiment's changes
    assert Config(images=Path("../photos"), table=Path("uncommitted.csv")).table.exists()
    monkeypatch.chdir(copy.parents[4])
    lost = Config(images=Path("../photos"), table=Path("lost.csv"))
    assert str(lost.table) == "lost.csv"  # errors name it as it was written
