"""The comparison of backends in small: every figure is there, and int8 is timed only where scores hardly move."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest
import serving_backends
from serving_backends import checked, main
from serving_backends_page import table
from soak_load import Expected, Reply, some_photos
from soak_server import URI

from tailorset.serving.service import Service
from tests.registered import running


@contextlib.contextmanager
def server(root: Path, *options: str) -> Iterator[SimpleNamespace]:
    """`Server` without a process; what `--backend onnx` answers is tested elsewhere."""
    with contextlib.chdir(root):
        service = Service(URI)
    with running(service) as url:
        yield SimpleNamespace(url=url)


def test_every_backend_has_its_row_and_the_page_gets_the_table(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(serving_backends, "Server", server)
    Path("docs").mkdir()
    Path("docs/performance.md").write_text("a\n<!-- serving_backends -->\nold\n<!-- /serving_backends -->\nb\n")
    Path("photos").mkdir()
    for number, photo in enumerate(some_photos(4)):
        Path(f"photos/{number}.png").write_bytes(photo)
    small = ["--turns", "1", "--calls", "3", "--seconds", "1"]
    main(["--models", str(folder.parent), "--photos", "photos", "--write-docs", *small])

    figures = json.loads(Path("reports/serving_backends.json").read_text())
    rows = figures["rows"]
    assert list(rows)[:3] == ["torch", "onnx", "onnx, threads spin"]
    assert sum(name.startswith("int8") for name in rows) == 3
    assert rows["torch"]["difference"] == 0
    assert 0 < rows["onnx"]["difference"] < 1e-4
    for name, row in rows.items():
        assert ("single_p99_ms" in row) == (row["difference"] < 0.01), name
    for name in ("torch", "onnx"):
        assert 0 < rows[name]["half_p50_ms"] <= rows[name]["half_p99_ms"]
        assert rows[name]["answers_per_s"] > 0
    assert table(figures) in capsys.readouterr().out
    page = Path("docs/performance.md").read_text()
    assert page == f"a\n<!-- serving_backends -->\n{table(figures)}\n<!-- /serving_backends -->\nb\n"


def test_a_wrong_answer_ends_the_comparison() -> None:
    body = {"version": "1", "labels": [{"label": "cup", "score": 0.5}]}
    reply = Reply(200, 0.0, 0.1, None, json.dumps(body).encode(), 0)
    assert checked([reply], Expected({"1": [{"cup": 0.5}]})) == [reply]
    with pytest.raises(RuntimeError, match="1 of 1 answers are wrong"):
        checked([reply], Expected({"1": [{"cup": 0.6}]}))


def test_what_is_missing_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--models", str(tmp_path)])
    assert "name --models" in capsys.readouterr().err
