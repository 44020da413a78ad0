"""Admission of requests: limits on their number and on the size of a body, counts, and the access log."""

from __future__ import annotations

import asyncio
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from tailorset.inference.uploads import MAX_BODY_BYTES, Refusal
from tailorset.messages import MIB
from tailorset.serving.answers import Problem
from tailorset.serving.measures import Measures
from tailorset.serving.server_log import log_access
from tailorset.serving.service import busy

BODY_S, IDLE_S = 30.0, 5.0  # for a body to arrive, and between two parts of it: a stalled sender blocks others
BASE64 = 4 / 3  # bytes of text per byte
PATHS = ("/", "/predict", "/invocations", "/health", "/ready", "/model", "/metrics")  # counted by name
PROTECTION = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
}


class Admission:
    """ASGI middleware around the whole app; only requests with a body (POST) are bounded in number."""

    def __init__(self, app: ASGIApp, measures: Measures, max_in_flight: int) -> None:
        self.app, self.measures, self.max_in_flight = app, measures, max_in_flight
        self.in_flight = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started, status = time.perf_counter(), 500

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message).update(PROTECTION)
            await send(message)

        try:
            await self._pass(scope, receive, watched)
        finally:
            path = scope["path"] if scope["path"] in PATHS else "other"
            self.measures.requests.labels(path, status).inc()
            seconds = time.perf_counter() - started
            self.measures.seconds.labels(path).observe(seconds)
            log_access(scope, status, seconds)

    async def _pass(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await self.app(scope, receive, send)
        elif _declared_length(scope) > (limit := _limit(scope)):
            await refused(_too_long(limit))(scope, receive, send)
        elif self.in_flight >= self.max_in_flight:
            await refused(busy())(scope, receive, send)
        else:
            self.in_flight += 1
            self.measures.in_flight.set(self.in_flight)
            try:
                await self.app(scope, _bounded(receive, limit), send)
            finally:
                self.in_flight -= 1
                self.measures.in_flight.set(self.in_flight)


def refused(refusal: Refusal) -> JSONResponse:
    """Return the response to a request that is not answered."""
    headers = {} if refusal.retry_after_s is None else {"Retry-After": str(refusal.retry_after_s)}
    if refusal.status == 413:
        headers["Connection"] = "close"  # the rest of the body is not read
    return JSONResponse(Problem(error=refusal.text).model_dump(), refusal.status, headers)


def _bounded(receive: Receive, limit: int) -> Receive:
    """Return `receive`, which refuses a body that is longer than `limit` bytes or takes too long."""
    loop = asyncio.get_running_loop()
    deadline, num_bytes = loop.time() + BODY_S, 0

    async def bounded() -> Message:
        nonlocal num_bytes
        try:
            async with asyncio.timeout_at(min(deadline, loop.time() + IDLE_S)):
                message = await receive()
        except TimeoutError:
            raise Refusal(400, f"The body stopped for {IDLE_S:.0f} s, or took more than {BODY_S:.0f} s.") from None
        num_bytes += len(message.get("body", b""))
        if num_bytes > limit:
            raise _too_long(limit)
        return message

    return bounded


def _declared_length(scope: Scope) -> int:
    length = Headers(scope=scope).get("content-length", "")
    return int(length) if length.isdecimal() else 0


def _limit(scope: Scope) -> int:
    """Return the limit on the bytes of a body: a file, or one in base64 with some JSON around it."""
    return round(MAX_BODY_BYTES * BASE64) + 1024 if scope["path"] == "/invocations" else MAX_BODY_BYTES


def _too_long(limit: int) -> Refusal:
    return Refusal(413, f"The body has more than {limit / MIB:.0f} MiB: at most that much is read.")
