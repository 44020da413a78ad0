"""Whether files that a data set reads are still as they were read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from pydantic import BaseModel

from tailorset.inputs import files_below, has_changed, remember_state, state_of


class Config(BaseModel):
    images: Path
    table: Path
    image_px: int = 64


@pytest.fixture
def config(tmp_path: Path) -> Config:
    (tmp_path / "images" / "deep").mkdir(parents=True)
    (tmp_path / "images" / "deep" / "a.png").write_bytes(b"a")
    (tmp_path / "table.csv").write_text("x")
    return Config(images=tmp_path / "images", table=tmp_path / "table.csv")


@pytest.mark.parametrize("change", ["write", "touch", "add", "remove", "table"])
def test_every_change_of_a_file_is_noticed(tmp_path: Path, config: Config, change: str) -> None:
    remember_state(tmp_path, config, state_of(config))
    assert not has_changed(tmp_path, config)
    image = config.images / "deep" / "a.png"
    {
        "write": lambda: image.write_bytes(b"ab"),
        "touch": lambda: os.utime(image, (1, 1)),
        "add": lambda: (config.images / "b.png").touch(),
        "remove": image.unlink,
        "table": lambda: config.table.write_text("yx"),
    }[change]()
    assert has_changed(tmp_path, config)


def test_what_systems_leave_about_is_no_change(tmp_path: Path, config: Config) -> None:
    remember_state(tmp_path, config, state_of(config))
    (config.images / ".DS_Store").touch()
    (config.images / ".thumbnails").mkdir()
    (config.images / ".thumbnails" / "a.png").touch()
    assert not has_changed(tmp_path, config)


def test_nothing_is_said_of_what_was_never_read_or_with_other_settings(tmp_path: Path, config: Config) -> None:
    assert not has_changed(tmp_path, config)
    remember_state(tmp_path, config, "another state")
    assert has_changed(tmp_path, config)
    assert not has_changed(tmp_path, config.model_copy(update={"image_px": 32}))


def test_linked_folders_are_read_once(tmp_path: Path, config: Config) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "c.png").touch()
    (config.images / "link").symlink_to(tmp_path / "elsewhere")
    (config.images / "loop").symlink_to(config.images)
    names = [path.relative_to(config.images).as_posix() for path in files_below(config.images)]
    assert names == ["deep/a.png", "link/c.png"]
