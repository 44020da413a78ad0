"""Checksums beside a folder's files: every kind of damage is found, and named."""

from __future__ import annotations

import random
import shutil
import subprocess
from pathlib import Path

import pytest

from tailorset.clip.model import load_clip
from tailorset.storage import checksums

ROOT = Path(__file__).resolve().parents[2]
FOUNDATION = ROOT / "models" / "foundation" / "toybox"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "sub folder").mkdir()
    (tmp_path / "a.json").write_text("{}")
    (tmp_path / "sub folder" / "b.bin").write_bytes(bytes(range(256)))
    checksums.seal(tmp_path)
    return tmp_path


def test_a_whole_folder_passes_here_and_to_sha256sum(folder: Path) -> None:
    checksums.check(folder)
    subprocess.run(["sha256sum", "--check", "--strict", "--quiet", checksums.SUMS], cwd=folder, check=True)
    checksums.seal(folder)  # again: the list is not in the list
    assert len((folder / checksums.SUMS).read_text().splitlines()) == 2


def test_a_folder_without_checksums_has_nothing_to_compare(tmp_path: Path) -> None:
    checksums.check(tmp_path)
    checksums.check(tmp_path / "nowhere")


def test_every_flipped_bit_is_found(folder: Path) -> None:
    draw = random.Random(0)
    files = [folder / "a.json", folder / "sub folder" / "b.bin", folder / checksums.SUMS]
    for _ in range(60):
        path = draw.choice(files)
        whole = path.read_bytes()
        place, bit = draw.randrange(len(whole)), 1 << draw.randrange(8)
        path.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        with pytest.raises(ValueError, match=r"is missing|is damaged"):
            checksums.check(folder)
        path.write_bytes(whole)
    checksums.check(folder)


def test_a_missing_file_is_named_with_the_remedy(folder: Path) -> None:
    (folder / "a.json").unlink()
    with pytest.raises(ValueError, match=r"a\.json .*is missing; fetch it"):
        checksums.check(folder, "fetch it")


def test_the_committed_models_are_sealed_and_one_flipped_bit_of_theirs_is_not_loaded(tmp_path: Path) -> None:
    folders = [path for path in FOUNDATION.iterdir() if path.is_dir()]
    assert len(folders) == 6
    for path in folders:
        assert (path / checksums.SUMS).is_file()
        checksums.check(path)
    shutil.copytree(FOUNDATION / "judge", tmp_path / "judge")
    weights = tmp_path / "judge" / "open_clip_model.safetensors"
    content = bytearray(weights.read_bytes())
    content[len(content) // 2] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ValueError, match="differs from its checksum"):
        load_clip(f"local-dir:{tmp_path / 'judge'}", "cpu")


def test_what_was_fitted_to_a_folder_is_refused_next_to_another(tmp_path: Path) -> None:
    folder, note = tmp_path / "classifier", tmp_path / "fitted_to.sha256"
    folder.mkdir()
    (folder / "weights").write_text("one")
    checksums.check_bound(folder, note)  # older products have no note
    for seal in (lambda: None, lambda: checksums.seal(folder)):
        (folder / "weights").write_text("one")
        seal()
        checksums.bind(folder, note)
        checksums.check_bound(folder, note)
        (folder / "weights").write_text("two")
        seal()
        with pytest.raises(ValueError, match=r"classifier were fitted to another classifier.*dvc repro fit_thresholds"):
            checksums.check_bound(folder, note)
