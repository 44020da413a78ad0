"""The web service: the same scores as in memory, the facts about the model, and a clear no to everything else."""

from __future__ import annotations

import base64
import logging
import logging.config
import re
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient

from tailorset.images.codec import decode_image
from tailorset.inference.predictor import Predictor, answer_columns, load_predictor
from tailorset.inference.uploads import MAX_BODY_BYTES
from tailorset.serving.app import PAGE, create_app
from tailorset.serving.server_log import ACCESS, LogfmtFormatter, log_config
from tailorset.serving.service import Load, Service
from tailorset.thresholds.rules import Thresholds
from tests.registered import scores_of

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def client(folder: Path, other_folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Service(str(folder), str(other_folder)))) as client:
        yield client


@pytest.fixture(scope="module")
def onnx_client(folder: Path) -> Iterator[TestClient]:
    with TestClient(create_app(Service(str(folder), backend="onnx"))) as client:
        yield client


@pytest.fixture(scope="module")
def predictor(folder: Path) -> Predictor:
    return load_predictor(folder)


@pytest.fixture
def photo(photos: Path) -> bytes:
    return (photos / "turned.jpg").read_bytes()


def scores(answer: dict[str, Any]) -> torch.Tensor:
    return torch.tensor([label["score"] for label in answer["labels"]])


@pytest.mark.parametrize("backend", ["client", "onnx_client"])
def test_every_way_to_ask_gives_the_scores_of_the_predictor(
    backend: str, request: pytest.FixtureRequest, predictor: Predictor, photo: bytes
) -> None:
    client: TestClient = request.getfixturevalue(backend)
    expected = scores_of(predictor, [photo])[0]
    text = base64.b64encode(photo).decode()
    raw = client.post("/predict", content=photo, headers={"content-type": "image/jpeg"}).json()
    unnamed = client.post("/predict", content=photo, headers={"content-type": "application/octet-stream"}).json()
    form = client.post("/predict", files={"image": ("x.jpg", photo)}).json()
    for answer in (raw, unnamed, form):
        torch.testing.assert_close(scores(answer), expected, atol=1e-5, rtol=0)
    for rows in (
        {"dataframe_split": {"columns": ["name", "image"], "data": [["a", text], ["b", text]]}},
        {"dataframe_records": [{"image": text}, {"image": text}]},
    ):
        predictions = client.post("/invocations", json=rows).json()["predictions"]
        assert [list(row) for row in predictions] == [list(answer_columns(predictor.labels))] * 2
        said = torch.tensor([predictions[1][f"score/{label}"] for label in predictor.labels])
        torch.testing.assert_close(said, expected, atol=1e-5, rtol=0)
        for label in form["labels"]:
            for kind in ("probability", "decision", "threshold"):
                assert predictions[1][f"{kind}/{label['label']}"] == (
                    label[kind] if kind == "decision" else pytest.approx(label[kind], abs=1e-5)
                )
        assert predictions[1]["novelty"] == pytest.approx(form["novelty"], rel=1e-4)


def test_an_answer_decides_as_the_thresholds_do(client: TestClient, photo: bytes, thresholds: Thresholds) -> None:
    answer = client.post("/predict", content=photo, headers=PNG).json()
    decisions = thresholds.apply(scores(answer)[None])
    for index, label in enumerate(answer["labels"]):
        rule = thresholds.rules[label["label"]]
        assert label["probability"] == pytest.approx(float(decisions.probabilities[0, index]), abs=1e-6)
        assert (label["threshold"], label["abstain_low"]) == (rule.threshold, rule.abstain_low)
        present = "present" if decisions.present[0, index] else "absent"
        assert label["decision"] == ("open" if decisions.abstained[0, index] else present)
        assert label["seen"] == (label["label"] == "ball")


def test_without_thresholds_a_label_is_present_from_a_half_on(folder: Path, tmp_path: Path, photo: bytes) -> None:
    (tmp_path / "classifier").symlink_to(folder)
    with TestClient(create_app(Service(str(tmp_path / "classifier")))) as client:
        labels = client.post("/predict", content=photo, headers=PNG).json()["labels"]
        assert not client.get("/model").json()["calibrated"]
    for label in labels:
        assert label["probability"] is None
        assert label["decision"] == ("present" if label["score"] >= 0.5 else "absent")


@pytest.mark.parametrize("backend", ["client", "onnx_client"])
def test_a_map_is_the_classifiers_own(
    backend: str, request: pytest.FixtureRequest, predictor: Predictor, photo: bytes
) -> None:
    client: TestClient = request.getfixturevalue(backend)
    answer = client.post("/predict?map=ball", content=photo, headers=PNG).json()["map"]
    pixels = predictor.pixels(decode_image(photo))[None].float() / 255
    expected = predictor.classifier.spatial_maps(pixels)[0, 1]
    assert answer["label"] == "ball"
    torch.testing.assert_close(torch.tensor(answer["weights"]), expected.detach(), atol=1e-5, rtol=0)
    assert sum(map(sum, answer["weights"])) == pytest.approx(1, abs=1e-4)


def test_two_models_are_compared_on_request(client: TestClient, other_folder: Path, photo: bytes) -> None:
    plain = client.post("/predict", content=photo, headers=PNG).json()
    assert plain["challenger"] is None
    both = client.post("/predict?compare=true&map=ball", content=photo, headers=PNG).json()
    expected = scores_of(load_predictor(other_folder), [photo])[0]
    torch.testing.assert_close(scores(both), scores(plain), atol=1e-5, rtol=0)
    torch.testing.assert_close(scores(both["challenger"]), expected, atol=1e-5, rtol=0)
    assert not torch.allclose(scores(both), expected, atol=1e-3)
    assert both["challenger"]["map"]["weights"] != both["map"]["weights"]


REFUSED: dict[str, tuple[int, str, dict[str, Any]]] = {
    "no type": (415, "Content-Type", {"content": b"x"}),
    "a page": (415, "text/html", {"content": b"<p>", "headers": {"content-type": "text/html"}}),
    "a url": (415, "Content-Type", {"data": {"url": "http://127.0.0.1/"}}),
    "gif": (415, "send it as JPEG, PNG or WebP", {"content": b"GIF89a", "headers": PNG}),
    "heic": (415, "HEIC format, as iPhones take them", {"content": b"\0\0\0\x18ftypheic\0\0\0\0mif1", "headers": PNG}),
    "avif": (415, "a photo in AVIF format", {"content": b"\0\0\0\x1cftypmif1\0\0\0\0mif1avif", "headers": PNG}),
    "empty": (400, "empty", {"content": b"", "headers": PNG}),
    "half": (400, "damaged", {"content": b"\x89PNG\r\n\x1a\n\0\0", "headers": PNG}),
    "no boundary": (400, "boundary", {"content": b"x", "headers": {"content-type": "multipart/form-data"}}),
    "no file": (422, "form has no file", {"files": {"a": (None, b"x")}}),
    "two files": (400, "Too many files", {"files": [("a", b"x"), ("b", b"y")]}),
    "too long": (413, "10 MiB", {"content": bytes(MAX_BODY_BYTES + 1), "headers": PNG}),
    "label": (422, "Did you mean 'ball'?", {"content": b"x", "headers": PNG, "params": {"map": "bal"}}),
    "flag": (422, "compare", {"content": b"x", "headers": PNG, "params": {"compare": "perhaps"}}),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_answered_is_refused_in_one_line(client: TestClient, case: str) -> None:
    status, words, request = REFUSED[case]
    answer = client.post("/predict", **request)
    assert answer.status_code == status, answer.text
    assert list(answer.json()) == ["error"]
    assert words in answer.json()["error"]
    assert "\n" not in answer.json()["error"]


ROWS: dict[str, tuple[int, str, Any]] = {
    "neither": (422, "dataframe_split or dataframe_records", {"instances": ["aGk="]}),
    "both": (
        422,
        "dataframe_split or dataframe_records",
        {"dataframe_split": {"columns": [], "data": []}, "dataframe_records": []},
    ),
    "column": (422, "row 0 has the columns ['img']", {"dataframe_records": [{"img": "aGk="}]}),
    "width": (
        422,
        "row 0 has 2 values for 1 columns",
        {"dataframe_split": {"columns": ["image"], "data": [["a", "b"]]}},
    ),
    "empty row": (
        422,
        "row 1 has 0 values for 1 columns",
        {"dataframe_split": {"columns": ["image"], "data": [["a"], []]}},
    ),
    "number": (422, "row 1: this is int", {"dataframe_records": [{"image": "aGk="}, {"image": 5}]}),
    "url": (422, "row 0: this text is not valid base64", {"dataframe_records": [{"image": "http://127.0.0.1/"}]}),
    "no image": (415, "row 1: This is not a photo", {"dataframe_records": [{"image": None}, {"image": "aGk="}]}),
    "too many": (413, "at most 32", {"dataframe_records": [{"image": "aGk="}] * 33}),
    "no object": (422, "should be an object", [1, 2]),
}


@pytest.mark.parametrize("case", ROWS)
def test_rows_that_cannot_be_scored_are_named(client: TestClient, case: str, photo: bytes) -> None:
    status, words, rows = ROWS[case]
    if case == "no image":
        rows["dataframe_records"][0]["image"] = base64.b64encode(photo).decode()
    answer = client.post("/invocations", json=rows)
    assert (answer.status_code, words in answer.json()["error"]) == (status, True), answer.text


def test_what_is_no_json_is_told_apart(client: TestClient) -> None:
    assert client.post("/invocations", content=b"{", headers={"content-type": "application/json"}).status_code == 400
    assert client.post("/invocations", content=b"{}", headers={"content-type": "text/csv"}).status_code == 415


def post_scope() -> dict[str, Any]:
    """A photo sent to /predict without a Content-Length, as a server tells an app."""
    return {
        "type": "http",
        "method": "POST",
        "path": "/predict",
        "raw_path": b"/predict",
        "query_string": b"",
        "headers": [(b"content-type", b"image/png")],
        "http_version": "1.1",
        "root_path": "",
        "scheme": "http",
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }


def test_reading_stops_where_a_body_is_too_long(folder: Path) -> None:
    """Without a Content-Length; the app is called as a server calls it."""
    import asyncio

    chunk, taken, sent = bytes(2**20), 0, []

    async def receive() -> dict[str, Any]:
        nonlocal taken
        taken += 1
        return {"type": "http.request", "body": chunk, "more_body": True}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    asyncio.run(create_app(Service(str(folder)))(post_scope(), receive, send))
    assert sent[0]["status"] == 413
    assert (b"connection", b"close") in sent[0]["headers"]
    assert taken == MAX_BODY_BYTES // len(chunk) + 1


def test_a_file_of_ten_megabytes_may_come_in_base64(client: TestClient) -> None:
    """Refused for what it is, not for its length."""
    chunk = (MAX_BODY_BYTES - 20).to_bytes(4, "big") + b"IDAT" + bytes(MAX_BODY_BYTES - 16)
    text = base64.b64encode(b"\x89PNG\r\n\x1a\n" + chunk).decode()
    answer = client.post("/invocations", json={"dataframe_records": [{"image": text}]})
    assert answer.status_code == 400
    assert "damaged" in answer.json()["error"]
    answer = client.post("/invocations", json={"dataframe_records": [{"image": text + 2000 * "A"}]})
    assert (answer.status_code, "13 MiB" in answer.json()["error"]) == (413, True)


@pytest.mark.parametrize("way", ["stalls", "leaves"])
def test_a_body_that_does_not_arrive_is_the_senders_fault(
    folder: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    import asyncio

    monkeypatch.setattr("tailorset.serving.admission.IDLE_S", 0.2)
    parts, sent = iter([{"type": "http.request", "body": b"abc", "more_body": True}]), []

    async def receive() -> dict[str, Any]:
        if part := next(parts, None):
            return part
        if way == "stalls":
            await asyncio.sleep(60)
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    service = Service(str(folder))
    asyncio.run(create_app(service)(post_scope(), receive, send))
    assert sent[0]["status"] == 400
    assert 'status="500"' not in service.measures.text().decode()
    assert "tailorset_requests_in_flight 0.0" in service.measures.text().decode()


def test_beyond_the_limit_requests_are_told_to_come_again(folder: Path, photo: bytes) -> None:
    service = Service(str(folder), load=Load(max_batch=1, max_waiting=2))
    free, original = threading.Event(), service.champion.predictor.look
    service.champion.predictor.look = lambda pixels: (free.wait(30), original(pixels))[1]  # type: ignore[method-assign]
    with TestClient(create_app(service)) as client, ThreadPoolExecutor(2) as pool:
        slow = [pool.submit(client.post, "/predict", content=photo, headers=PNG) for _ in range(2)]
        while "tailorset_requests_in_flight 2.0" not in client.get("/metrics").text:
            pass
        refused = client.post("/predict", content=photo, headers=PNG)
        assert client.get("/health").status_code == 200  # still answered
        free.set()
        assert [future.result().status_code for future in slow] == [200, 200]
        assert client.post("/predict", content=photo, headers=PNG).status_code == 200
    assert refused.status_code == 429
    assert int(refused.headers["retry-after"]) >= 1


def test_a_classifier_that_fails_is_a_503_and_the_next_request_is_answered(folder: Path, photo: bytes) -> None:
    service = Service(str(folder))
    original = service.champion.predictor.look

    def out_of_memory(_: torch.Tensor) -> torch.Tensor:
        service.champion.predictor.look = original  # type: ignore[method-assign]
        raise RuntimeError("out of memory")

    service.champion.predictor.look = out_of_memory  # type: ignore[method-assign, assignment]
    with TestClient(create_app(service)) as client:
        failed = client.post("/predict", content=photo, headers=PNG)
        assert (failed.status_code, failed.headers["retry-after"]) == (503, "5")
        assert client.post("/predict", content=photo, headers=PNG).status_code == 200


def test_the_second_model_is_optional(folder: Path, photo: bytes) -> None:
    with TestClient(create_app(Service(str(folder)))) as client:
        assert client.get("/model").json()["challenger"] is None
        refused = client.post("/predict?compare=true", content=photo, headers=PNG)
        assert (refused.status_code, "--challenger" in refused.json()["error"]) == (422, True)


def test_a_queue_that_cannot_hold_a_photo_of_both_models_is_refused(folder: Path, other_folder: Path) -> None:
    with pytest.raises(ValueError, match="max_waiting is 1, and a photo waits twice"):
        Service(str(folder), str(other_folder), Load(max_waiting=1))


def test_the_facts_about_the_model(
    client: TestClient, folder: Path, other_folder: Path, thresholds: Thresholds
) -> None:
    assert client.get("/health").json() == {"status": "ok"}
    for path in ("/health", "/ready", "/model", "/metrics"):
        assert client.head(path).status_code == 200  # as balancers ask
    assert client.get("/ready").json() == {"status": "ready"}
    model = client.get("/model").json()
    assert (model["model"], model["challenger"]["model"]) == (str(folder), str(other_folder))
    assert [(label["label"], label["seen"]) for label in model["labels"]] == [("tea cup", False), ("ball", True)]
    assert [label["threshold"] for label in model["labels"]] == [rule.threshold for rule in thresholds.rules.values()]


def test_a_registered_version_says_where_it_comes_from(
    registry: Path, monkeypatch: pytest.MonkeyPatch, photo: bytes
) -> None:
    monkeypatch.chdir(registry)
    with TestClient(create_app(Service("models:/tiny/1"))) as client:
        model = client.get("/model").json()
        assert (model["version"], len(model["run_id"])) == ("1", 32)
        assert client.post("/predict", content=photo, headers=PNG).json()["version"] == "1"


def test_every_answer_is_a_line_of_the_log_and_nothing_in_a_path_can_forge_one(
    folder: Path, photo: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with TestClient(create_app(Service(str(folder)))) as client, caplog.at_level("INFO", ACCESS):
        client.post("/predict?map=ball", content=photo, headers=PNG)
        client.post("/predict", content=b"x", headers=PNG)
        client.get("/no%0Atime=2000%22 %E2%80%A8" + 3000 * "a")
        for path in ("/health", "/ready", "/metrics"):
            client.get(path)  # a balancer's questions would bury everything else
    lines = [LogfmtFormatter().format(record) for record in caplog.records if record.name == ACCESS]
    time = r"time=20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00"
    for line, (level, path, status) in zip(
        lines, [("info", "/predict", 200), ("warning", "/predict", 415), ("warning", ".*", 404)], strict=True
    ):
        expected = rf"{time} level={level} method=\w+ path={path} status={status} seconds=\d+\.\d{{4}} client=\w+"
        assert re.fullmatch(expected, line, re.ASCII), line
        assert line.isascii()
        assert len(line) < 2000


def test_other_events_of_the_server_have_a_time_too() -> None:
    record = logging.LogRecord("uvicorn.error", logging.INFO, "", 0, "Uvicorn runs on %s", ("http://x:1",), None)
    assert LogfmtFormatter().format(record).endswith(' level=info message="Uvicorn runs on http://x:1"')
    try:
        raise ValueError("lost")
    except ValueError:
        record = logging.LogRecord("uvicorn.error", logging.ERROR, "", 0, "failed", (), sys.exc_info())
    assert LogfmtFormatter().format(record).splitlines()[-1] == "ValueError: lost"
    logging.config.DictConfigurator(log_config()).configure_formatter(log_config()["formatters"]["logfmt"])


def test_photos_to_try_are_those_of_the_version(client: TestClient, folder: Path) -> None:
    assert client.get("/model").json()["num_examples"] == 2
    answer = client.get("/examples/1")
    assert answer.content == (folder.parent / "examples" / "1.png").read_bytes()
    assert answer.headers["content-type"] == "image/png"
    gone = client.get("/examples/2")
    assert (gone.status_code, gone.json()["error"]) == (404, "There is no example 2: this model has 2.")


def test_what_happened_is_counted(folder: Path, photo: bytes) -> None:
    with TestClient(create_app(Service(str(folder)))) as client:
        client.post("/predict", content=photo, headers=PNG)
        client.post("/predict", content=b"x", headers=PNG)
        client.get("/there/is/no/such/path")
        text = base64.b64encode(photo).decode()
        rows = client.post("/invocations", json={"dataframe_records": [{"image": text}] * 2}).json()["predictions"]
        text = client.get("/metrics").text
    for line in (
        'tailorset_requests_total{path="/predict",status="200"} 1.0',
        'tailorset_requests_total{path="/predict",status="415"} 1.0',
        'tailorset_requests_total{path="other",status="404"} 1.0',
        "tailorset_batch_images_count 2.0",
        f'tailorset_decisions_total{{decision="{rows[0]["decision/ball"]}",label="ball"}} 3.0',
        "tailorset_photos_total 3.0",
        f"tailorset_photos_undecided_total {3.0 * ('open' in rows[0].values())}",
        f"tailorset_photos_unfamiliar_total {3.0 * (rows[0]['novelty'] > 1)}",
        "tailorset_requests_in_flight 0.0",
    ):
        assert line in text
    assert 'tailorset_decisions_total{decision="' in text


def test_the_page_needs_nothing_from_elsewhere(client: TestClient) -> None:
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "default-src 'self'" in page.headers["content-security-policy"]
    for name in ("page.css", "page.js"):
        assert client.get(f"/{name}").text == (PAGE / name).read_text(encoding="utf-8")
    assert not [file.name for file in PAGE.iterdir() if "https://" in file.read_text(encoding="utf-8")]
    for path in ("/docs", "/redoc", "/page.py", "/../app.py"):
        assert client.get(path).status_code == 404
