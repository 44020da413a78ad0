"""A server that answers as the Hugging Face hub does when it is asked about models."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote

from tailorset.project.params import Params, named_models

USUAL_FILES = (
    "model_index.json",
    "model.safetensors",
    "text_encoder/model.safetensors",
    "unet/model.safetensors",
    "vae/model.safetensors",
)


@dataclass
class FakeHub:
    """models: files by repository. sizes: bytes of a file, by its path. gated: repositories that nobody here may read.

    digests: sha256 of a file, by its path. asked: every path of a request.
    """

    models: dict[str, tuple[str, ...]] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    digests: dict[str, str] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)

    def deliver(self, params: Params) -> None:
        """Have every model that the settings name."""
        for _, model in named_models(params):
            self.models[str(model.repository)] = tuple(need.replace("*", "model") for need in model.needed_files)

    def answer(self, path: str) -> tuple[int, str, object]:
        """Status, error code and content for the path of a request."""
        self.asked.append(path)
        repository, _, rest = path.removeprefix("/api/models/").partition("/revision/")
        owner, name, *more = repository.split("/")
        repository = f"{owner}/{name}"
        if repository not in self.models:
            return 401, "RepoNotFound", {"error": "Repository not found"}
        if rest not in ("", "v1"):
            return 404, "RevisionNotFound", {"error": f"Invalid rev id: {rest}"}
        if more == ["auth-check"] and repository in self.gated:
            return 403, "GatedRepo", {"error": "Access to this model is restricted"}
        siblings: list[dict[str, object]] = [
            {"rfilename": file, "size": self.sizes.get(file, 1000)} for file in self.models[repository]
        ]
        for one in siblings:
            if sha256 := self.digests.get(str(one["rfilename"])):
                one["lfs"] = {"size": one["size"], "sha256": sha256, "pointerSize": 130}
        gated = "auto" if repository in self.gated else False
        return 200, "", {"id": repository, "sha": "a" * 40, "siblings": siblings, "gated": gated}

    def server(self) -> ThreadingHTTPServer:
        """Bound to a free port; the caller runs it."""
        hub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                status, code, content = hub.answer(unquote(self.path.partition("?")[0]))
                body = json.dumps(content).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(body)))
                if code:
                    self.send_header("X-Error-Code", code)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *arguments: object) -> None:
                pass

        return ThreadingHTTPServer(("127.0.0.1", 0), Handler)
