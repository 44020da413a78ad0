"""Invalid requests: mutated files, broken bodies, and requests that schemathesis derives from the OpenAPI."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import requests
from mutations import MUTATIONS, floods, mutated, scan_bomb, size_bombs, text_bomb
from tqdm import tqdm

from tailorset.inference.uploads import MAX_BODY_BYTES
from tailorset.messages import MIB
from tailorset.seeding import numpy_rng

CLIENTS = 8
TIMEOUT_S = 60
LARGE_EVERY = 500  # the largest files take a while to send
SCHEMA_SHARE = 0.15


@dataclass
class Findings:
    """Answers: counts by status, the slowest one, and all faults."""

    statuses: dict[int, int] = field(default_factory=dict)
    slowest_s: float = 0.0
    faults: list[str] = field(default_factory=list)

    def add(self, what: str, response: requests.Response | Exception, seconds: float) -> None:
        self.slowest_s = max(self.slowest_s, seconds)
        if isinstance(response, Exception):
            self.statuses[0] = self.statuses.get(0, 0) + 1
            self.faults.append(f"{what}: no answer ({response!r})"[:300])
            return
        status = response.status_code
        self.statuses[status] = self.statuses.get(status, 0) + 1
        if problem := _problem(response):
            self.faults.append(f"{what}: {status}, {problem}: {response.text[:200]}")


def send_mutated(url: str, seed: int, numbers: range, findings: Findings) -> None:
    """One request per number, the same ones for the same seed."""

    def send(number: int) -> None:
        path, body, headers = _request(seed, number)
        start = time.perf_counter()
        try:
            answer: requests.Response | Exception = requests.post(
                url + path, data=body, headers=headers, timeout=TIMEOUT_S
            )
        except requests.RequestException as error:
            answer = error
        findings.add(f"request {number}", answer, time.perf_counter() - start)

    with ThreadPoolExecutor(CLIENTS) as pool:
        list(tqdm(pool.map(send, numbers), total=len(numbers), desc="mutated requests", disable=None))


def send_generated(url: str, seed: int, count: int, findings: Findings) -> int:
    """About `count` requests that schemathesis derives from the app's own OpenAPI; return the number sent."""
    import hypothesis
    import schemathesis

    schema: Any = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations = [result.ok() for result in schema.get_all_operations()]
    shares = 2 * sum(operation.method.upper() == "POST" for operation in operations)  # the rest are soon exhausted
    sent = 0
    for operation in operations:
        for mode in schemathesis.GenerationMode:

            @hypothesis.seed(seed)
            @hypothesis.settings(
                max_examples=max(1, count // shares),
                deadline=None,
                database=None,
                suppress_health_check=list(hypothesis.HealthCheck),
                phases=[hypothesis.Phase.generate],
            )
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def send(case: schemathesis.Case) -> None:
                nonlocal sent
                start = time.perf_counter()
                try:
                    answer: requests.Response | Exception = requests.request(
                        **case.as_transport_kwargs(), timeout=TIMEOUT_S
                    )
                except requests.exceptions.RequestException as error:
                    answer = error
                findings.add(f"schemathesis {case.method} {case.path}", answer, time.perf_counter() - start)
                sent += 1

            with contextlib.suppress(hypothesis.errors.Unsatisfiable):  # nothing can be wrong if nothing is sent
                send()
    return sent


def _request(seed: int, number: int) -> tuple[str, bytes | Iterator[bytes], dict[str, str]]:
    """(path, body, headers) of a request; most of them are mutated files."""
    rng = numpy_rng(seed, "request", number)
    if number % LARGE_EVERY == 0:
        return "/predict", _large(number // LARGE_EVERY), {"Content-Type": "image/png"}
    return WAYS[rng.choice(len(WAYS), p=[0.45, 0.2, 0.1, 0.15, 0.1])](seed, number, rng)


def _large(number: int) -> bytes | Iterator[bytes]:
    """Bombs in turn, and a body without a declared length that does not end."""
    bombs = [*size_bombs().values(), scan_bomb(), text_bomb(), *floods().values(), bytes(MAX_BODY_BYTES + 1)]
    return bombs[number % len(bombs)] if number % 7 else iter([bytes(MIB)] * 64)


def _raw(seed: int, number: int, rng: np.random.Generator) -> tuple[str, bytes, dict[str, str]]:
    kinds = ["image/jpeg", "image/png", "image/webp", "application/octet-stream", "text/plain", "", "image/png; x=\xff"]
    return f"/predict{_query(rng)}", mutated(seed, number), {"Content-Type": kinds[rng.integers(len(kinds))]}


def _form(seed: int, number: int, rng: np.random.Generator) -> tuple[str, bytes, dict[str, str]]:
    body, headers = _form_of(mutated(seed, number))
    return "/predict", body, headers


def _broken_form(seed: int, number: int, rng: np.random.Generator) -> tuple[str, bytes, dict[str, str]]:
    body, headers = _form_of(mutated(seed, number))
    return "/predict", _any_mutation(body, rng), headers


def _rows(seed: int, number: int, rng: np.random.Generator) -> tuple[str, bytes, dict[str, str]]:
    text = base64.b64encode(mutated(seed, number)).decode()
    rows = [{"dataframe_records": [{"image": text}]}, {"dataframe_split": {"columns": ["image"], "data": [[text]] * 3}}]
    return "/invocations", json.dumps(rows[rng.integers(2)]).encode(), {"Content-Type": "application/json"}


def _broken_rows(seed: int, number: int, rng: np.random.Generator) -> tuple[str, bytes, dict[str, str]]:
    path, body, headers = _rows(seed, number, rng)
    nested = b'{"dataframe_records": ' + b"[" * 50_000
    return path, nested if rng.random() < 0.1 else _any_mutation(body, rng), headers


WAYS: list[Callable[[int, int, np.random.Generator], tuple[str, bytes, dict[str, str]]]] = [
    _raw,
    _form,
    _broken_form,
    _rows,
    _broken_rows,
]


def _form_of(content: bytes) -> tuple[bytes, dict[str, str]]:
    request = requests.Request("POST", "http://127.0.0.1", files={"image": ("x.jpg", content)}).prepare()
    assert isinstance(request.body, bytes)
    return request.body, {"Content-Type": str(request.headers["Content-Type"])}


def _any_mutation(body: bytes, rng: np.random.Generator) -> bytes:
    ways = [MUTATIONS[name] for name in ("truncate", "change", "change head", "insert", "repeat", "remove")]
    return ways[rng.integers(len(ways))](body, rng)[:MAX_BODY_BYTES]


def _query(rng: np.random.Generator) -> str:
    return ["", "", "?map=ball", "?map=%00", "?compare=true", "?compare=%ff", "?map=ball&map=fish"][rng.integers(7)]


def _problem(response: requests.Response) -> str:
    status = response.status_code
    if status >= 500 and not (status == 503 and response.headers.get("Retry-After", "").isdecimal()):
        return "a failure of the server"
    if status == 429 and not response.headers.get("Retry-After", "").isdecimal():
        return "no Retry-After"
    if status in (400, 413, 415, 422, 429, 503) and "application/json" in response.headers.get("Content-Type", ""):
        error = response.json().get("error")
        return "" if isinstance(error, str) and error and "\n" not in error else "not one clear line"
    return ""
