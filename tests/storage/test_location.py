"""Shards at an address: on a real S3 server of this machine, in another folder, and where none can be."""

from __future__ import annotations

import runpy
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pandas as pd
import pytest
import requests
import yaml
from upath import UPath

from tailorset.commands.doctor import place
from tailorset.generation.shard_store import ShardStore
from tailorset.project.layout import REAL
from tailorset.project.params import load_params
from tailorset.project.stage import run_stage
from tailorset.registry.version import example_image
from tailorset.storage.location import open_storage, shards_of
from tailorset.storage.shards import CorruptShardError, load_images, write_shard
from tests.generation.test_shard_store import NAME, shard
from tests.generation_project import (
    ROOT,
    change_params,
    products,
    remove_products,
    run_and_kill,
    run_stage_script,
)

pytest.importorskip("s3fs", reason="s3fs is not installed")
pytest.importorskip("moto", reason="moto is not installed")


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """Address of an S3 server in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "--host", "127.0.0.1", "--port", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address = f"http://127.0.0.1:{port}"
    try:
        while not _answers(address):
            assert process.poll() is None, "the S3 server ended"
            time.sleep(0.1)
        yield address
    finally:
        process.kill()
        process.wait()


def _answers(address: str) -> bool:
    try:
        return requests.get(address, timeout=5).ok
    except requests.ConnectionError:
        return False


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[UPath]:
    """An empty bucket, its address and credentials where S3's own tools look for them."""
    variables = {"AWS_ENDPOINT_URL": server, "AWS_ACCESS_KEY_ID": "tester", "AWS_SECRET_ACCESS_KEY": "secret"}
    for name, value in (variables | {"AWS_DEFAULT_REGION": "us-east-1"}).items():
        monkeypatch.setenv(name, value)
    folder = UPath("s3://shards")
    folder.fs.clear_instance_cache()
    folder = UPath("s3://shards")
    folder.fs.mkdir("shards")
    yield folder
    folder.fs.rm("shards", recursive=True)


@pytest.fixture(params=["s3", "file", "folder"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        return str(request.getfixturevalue("bucket") / "team")
    return f"{'file://' if request.param == 'file' else ''}{tmp_path / 'elsewhere'}"


def test_a_shard_in_storage_is_found_again_unless_a_bit_of_it_flipped(address: str) -> None:
    store = ShardStore(open_storage(address))
    assert store.finished_rows(NAME) is None
    store.keep(*shard())
    again = ShardStore(open_storage(address))
    assert again.finished_rows(NAME) == shard()[1]
    for name in (NAME, f"{NAME}.rows.parquet", f"{NAME}.sha256"):
        whole = (again.folder / name).read_bytes()
        (again.folder / name).write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        assert again.finished_rows(NAME) is None
        (again.folder / name).write_bytes(whole)
    assert again.finished_rows(NAME) == shard()[1]


def test_a_product_in_storage_is_read_from_there_and_damage_is_named(address: str, tmp_path: Path) -> None:
    store, product = ShardStore(open_storage(address)), tmp_path / "product"
    store.keep(*shard())
    store.assemble([NAME], product)
    assert sorted(path.name for path in product.iterdir()) == ["manifest.parquet", "shards_at.txt"]
    assert (store.folder / "manifest.parquet").read_bytes() == (product / "manifest.parquet").read_bytes()
    rows = pd.read_parquet(product / "manifest.parquet")
    assert [name for name, _ in load_images(rows, product)] == list(rows["image_id"])
    tar = shards_of(product) / NAME
    tar.write_bytes(tar.read_bytes()[:-600])
    with pytest.raises(CorruptShardError, match="is cut off"):
        list(load_images(rows, product))
    tar.unlink()
    with pytest.raises(CorruptShardError, match="cannot be read"):
        list(load_images(rows, product))


def test_a_failing_writer_leaves_nothing_in_storage(bucket: UPath) -> None:
    def broken():
        yield "img-0", b"png"
        raise RuntimeError("no more")

    with pytest.raises(RuntimeError, match="no more"):
        write_shard(bucket / "one.tar", broken())
    assert not (bucket / "one.tar").exists()


@pytest.mark.timeout(1800)
def test_killed_and_restarted_on_another_machine_with_the_same_storage(generation_project: Path, bucket: UPath) -> None:
    """The resume folder is gone, as on another machine: shards that were finished are not drawn again."""
    run_stage_script()
    expected = products(generation_project)
    remove_products(generation_project)
    change_params(storage=str(bucket / "team"))
    with run_stage("generate_images") as stage:
        folder = stage.shard_folder
    finished = run_and_kill(generation_project, 5, folder)
    shutil.rmtree(generation_project / ".work")
    places = [next(folder.rglob(name)) for name in finished]
    times = [_written(place) for place in places]
    run_stage_script()
    assert [_written(place) for place in places] == times
    made = products(generation_project)
    assert made.pop("data/synthetic/shards_at.txt").decode().strip() == str(folder)
    assert made.pop("data/synthetic/negatives/shards_at.txt").decode().strip() == str(folder / "negatives")
    shards = {name for name in expected if name.endswith(".tar")}
    assert made == {name: content for name, content in expected.items() if name not in shards}
    for name in shards:
        assert next(folder.rglob(Path(name).name)).read_bytes() == expected[name]


def test_photos_in_storage_are_made_once_and_read_by_all(project: Path, bucket: UPath) -> None:
    small = yaml.safe_load(Path("params.yaml").read_text())["prepare_dataset"]
    small |= {"num_train": 6, "num_val": 8, "num_test": 4, "shard_size": 4}
    change_params(storage=str(bucket / "team"), prepare_dataset=small)
    _prepare()
    manifest = pd.read_parquet("data/real/manifest.parquet")
    assert [name for name, _ in load_images(manifest, REAL)] == list(manifest["image_id"])
    assert not (REAL / "shards").exists()
    assert example_image(REAL).startswith(b"\x89PNG")
    shards = shards_of(REAL)
    times = {name: _written(shards / name) for name in manifest["shard"].unique()}
    lost = manifest["shard"].iloc[0]
    (shards / lost).unlink()
    shutil.rmtree(".work")
    _prepare()
    again = {name: _written(shards / name) for name in times}
    assert [name for name in times if again[name] != times[name]] == [lost]
    assert len(list(load_images(manifest, REAL))) == len(manifest)


def _prepare() -> None:
    time.sleep(1.1)  # S3 tells times in seconds
    runpy.run_path(str(ROOT / "pipeline" / "prepare_dataset.py"), run_name="__main__")


def _written(path: UPath) -> object:
    path.fs.invalidate_cache()
    return path.fs.info(path.path)["LastModified"]


def test_without_credentials_or_server_it_is_said(
    monkeypatch: pytest.MonkeyPatch, bucket: UPath, tmp_path: Path
) -> None:
    bucket.fs.clear_instance_cache()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(ValueError, match=r"storage 's3://shards/x'.*EndpointConnection"):
        open_storage("s3://shards/x")
    bucket.fs.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"storage 's3://shards/x'.*credentials"):
        open_storage("s3://shards/x")
    bucket.fs.clear_instance_cache()


@pytest.mark.parametrize("address", ["shards", "~/shards", ""])
def test_a_path_that_depends_on_the_folder_is_refused(project: Path, address: str) -> None:
    change_params(storage=address)
    with pytest.raises(ValueError, match="is not a URL"):
        load_params()


def test_params_of_an_earlier_version_are_told_what_they_lack(project: Path) -> None:
    params = Path("params.yaml")
    params.write_text("\n".join(line for line in params.read_text().splitlines() if not line.startswith("storage:")))
    with pytest.raises(ValueError, match="storage"):
        load_params()


@pytest.mark.parametrize(
    ("address", "reason"),
    [("s3://no-such-bucket/x", "NoSuchBucket|bucket"), ("gopher://x/y", "gopher"), ("/proc/nowhere", "proc")],
)
def test_an_address_that_cannot_be_used_is_named(address: str, reason: str, bucket: UPath) -> None:
    with pytest.raises(ValueError, match=f"storage '{address}'.*(?i:{reason})"):
        open_storage(address)


def test_the_doctor_finds_storage_that_cannot_be_used(project: Path) -> None:
    change_params(storage="gopher://x/y")
    (finding,) = place(load_params())
    assert (finding.status, finding.subject) == ("error", "storage")
    change_params(storage=str(project / "elsewhere"))
    assert [found.status for found in place(load_params())] == ["ok"]
