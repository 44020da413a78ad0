"""`make soak` on a small scale: nothing breaks the service, overload is refused, and faults are noticed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from soak_decoder import decode_mutated, fault_of
from soak_load import Expected, Reply, after, closed_loop, open_loop, p99_ms, some_photos, statuses, throughput
from soak_mutated import Findings, send_generated, send_mutated
from soak_server import build_project, expected_scores

import tailorset
from tailorset.serving.service import Load, Service
from tests.registered import running


@pytest.fixture(scope="module")
def address(folder: Path, other_folder: Path) -> Iterator[str]:
    with running(Service(str(folder), str(other_folder))) as url:
        yield url


def test_mutated_requests_are_answered_or_refused(address: str) -> None:
    findings = Findings()
    send_mutated(address, 0, range(1, 301), findings)
    assert findings.faults == []
    assert findings.slowest_s < 5
    assert {200, 400, 413, 415, 422} <= set(findings.statuses)


def test_requests_made_from_the_openapi_are_answered_or_refused(address: str) -> None:
    findings = Findings()
    assert send_generated(address, 0, 60, findings) >= 30
    assert findings.faults == []


def test_what_pillow_can_show_is_decoded_whatever_its_header_says() -> None:
    found = decode_mutated(0, range(400))
    assert found.faults == []
    assert found.num_files == 400
    assert 100 < found.num_shown < 390
    assert fault_of(b"no picture", (64, 48)) != ""  # and the check can fail


def test_what_goes_wrong_is_found() -> None:
    findings = Findings()
    for status, body in ((500, "{}"), (503, "{}"), (429, '{"error": "busy"}'), (400, '{"error": "a\\nb"}')):
        response = requests.Response()
        response.status_code, response._content = status, body.encode()
        response.headers["Content-Type"] = "application/json"
        findings.add("request", response, 0.1)
    findings.add("request", requests.ConnectionError("reset"), 7.0)
    assert len(findings.faults) == 5
    assert findings.slowest_s == 7.0


def test_under_overload_every_answer_is_right_or_says_when_to_come_again(folder: Path) -> None:
    photos = some_photos(8)
    service = Service(str(folder), load=Load(max_batch=4, max_waiting=4))
    scores = tailorset.load(folder).predict(photos, "score").to_dict("records")
    with running(service) as url:
        busy = asyncio.run(closed_loop(url, photos, 4, after(1.0)))
        assert statuses(busy) == {"200": len(busy)}
        pressed = asyncio.run(open_loop(url, photos, 40, 3 * throughput(busy), 2.0))
    for reply in pressed:
        assert reply.status == 200 or reply.refused_rightly(), reply.told()
    assert {"200", "429"} <= set(statuses(pressed))
    expected = Expected({None: scores})  # type: ignore[dict-item] - a folder has no version
    assert expected.faults([*busy, *pressed]) == []
    assert expected.order() == [None]
    assert p99_ms(pressed) > 0
    wrong = Expected({None: scores[::-1]})  # type: ignore[dict-item]
    assert wrong.faults(busy)


def test_batches_are_formed_under_load(folder: Path) -> None:
    service, sizes = Service(str(folder), load=Load(max_batch=8)), []
    original = service.champion.predictor.look
    service.champion.predictor.look = lambda pixels: (sizes.append(len(pixels)), original(pixels))[1]  # type: ignore
    with running(service) as url:
        asyncio.run(closed_loop(url, some_photos(8), 16, after(1.0)))
    assert max(sizes) == 8
    assert sum(sizes) > 2 * len(sizes)


def test_requests_that_nobody_answers_are_counted() -> None:
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    replies = asyncio.run(closed_loop("http://127.0.0.1:9", some_photos(1), 2, stop.is_set))
    assert {reply.status for reply in replies} == {0}
    assert not Reply(429, 0, 0, None, b"", 0).refused_rightly()


def test_the_two_versions_of_the_project_answer_differently(tmp_path: Path) -> None:
    build_project(tmp_path, tmp_path / "no models here")
    (first, *_), (second, *_) = expected_scores(tmp_path, some_photos(1)).values()
    assert first.keys() == second.keys()
    assert first != second
