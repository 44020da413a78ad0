"""A server that speaks the OpenAI protocol on this machine, with its usual faults."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np

from tailorset.prompts.wording import keywords_of, template_phrase

MODEL = "qwen3:4b"


@dataclass
class Response:
    """status and body as they are sent; promised: bytes that Content-Length announces, None = as many as there are."""

    status: int
    body: bytes | str | Mapping[str, Any]
    headers: dict[str, str] = field(default_factory=dict)
    promised: int | None = None

    def content(self) -> bytes:
        if isinstance(self.body, bytes | str):
            return self.body if isinstance(self.body, bytes) else self.body.encode()
        return json.dumps(self.body).encode()


Fault = Callable[[dict[str, Any]], Response | None]  # None: no fault this time


@dataclass
class ChatServer:
    """Answers with a phrase that depends on keywords and seed.

    listing: in place of the list of models. faults: sent first, one per request. always: asked at each request.
    """

    key: str | None = None
    models: tuple[str, ...] = (MODEL,)
    listing: Response | None = None
    faults: list[Response] = field(default_factory=list)
    always: Fault | None = None
    message: Callable[[dict[str, Any]], dict[str, Any]] | None = None
    pause: float = 0.0
    requests: list[dict[str, Any]] = field(default_factory=list)
    headers: list[Mapping[str, str]] = field(default_factory=list)
    at_once: int = 0
    most_at_once: int = 0
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def settings(self, **others: object) -> dict[str, Any]:
        """The plug-in's settings for this server."""
        return {"base_url": self.url, "model": MODEL, **others}

    def respond(self, method: str, path: str, headers: Mapping[str, str], body: bytes) -> Response:
        self.headers.append(headers)
        if self.key and headers.get("Authorization") != f"Bearer {self.key}":
            return Response(401, {"error": {"message": f"Incorrect API key: {headers.get('Authorization')}"}})
        if method == "GET" and path == "/v1/models":
            return self.listing or Response(200, {"object": "list", "data": [{"id": name} for name in self.models]})
        if method != "POST" or path != "/v1/chat/completions":
            return Response(404, "404 page not found")
        request = json.loads(body)
        self.requests.append(request)
        if self.faults:
            return self.faults.pop(0)
        if self.always and (response := self.always(request)):
            return response
        if "messages" not in request:
            return Response(400, {"error": {"message": "messages: field required"}})
        if request["model"] not in self.models:
            return Response(404, {"error": {"message": f"model {request['model']!r} not found"}})
        time.sleep(self.pause)
        message = self.message(request) if self.message else {"content": phrase(request)}
        return completion(**message)

    @contextmanager
    def serving(self) -> Iterator[ChatServer]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        server.daemon_threads = True
        self.port = server.server_port
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


def phrase(request: Mapping[str, Any]) -> str:
    """A phrase that meets the contract."""
    return template_phrase(keywords_of(request["messages"]), 10, np.random.default_rng(request["seed"]))


def completion(finish_reason: str = "stop", **message: object) -> Response:
    choice = {"index": 0, "message": {"role": "assistant", **message}, "finish_reason": finish_reason}
    return Response(200, {"object": "chat.completion", "model": MODEL, "choices": [choice]})


def _handler(chat: ChatServer) -> type[BaseHTTPRequestHandler]:
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer("GET")

        def do_POST(self) -> None:
            self._answer("POST")

        def _answer(self, method: str) -> None:
            with lock:
                chat.at_once += 1
                chat.most_at_once = max(chat.most_at_once, chat.at_once)
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            response = chat.respond(method, self.path, dict(self.headers), body)
            with lock:
                chat.at_once -= 1
            content = response.content()
            self.send_response(response.status)
            for name, value in ({"Content-Type": "application/json"} | response.headers).items():
                self.send_header(name, value)
            if response.promised != -1:
                self.send_header("Content-Length", str(response.promised or len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments: object) -> None:
            pass

    return Handler
