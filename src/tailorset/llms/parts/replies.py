"""Replies of a server in a folder: one small JSON file per reply, complete or missing."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tailorset.storage.files import write_json

REPLIES = Path(".work/replies")  # kept when a stage is finished
log = logging.getLogger(__name__)


class ChatReply(NamedTuple):
    """Text of a reply. thoughts: only from a server that returns them separately."""

    content: str
    thoughts: str = ""


class StoredReplies:
    """Replies by the hash of all that was sent and where to; a request that was answered once is not sent again."""

    def __init__(self, folder: Path, base_url: str) -> None:
        self.folder, self.base_url, self.is_told = folder, base_url, False

    def find(self, request: Mapping[str, Any]) -> ChatReply | None:
        """Return the reply to an earlier request like this one; None if there is none, or its file is damaged."""
        path = self._path(request)
        try:
            stored = json.loads(path.read_text(encoding="utf-8"))
            reply = ChatReply(str(stored["content"]), str(stored["thoughts"]))
        except FileNotFoundError:
            return None
        except (ValueError, KeyError, TypeError) as error:
            log.warning("%s is damaged (%s): the LLM is asked again", path, error)
            return None
        if not self.is_told:
            self.is_told = True
            log.warning("earlier replies are repeated from %s: delete that folder to ask the server again", self.folder)
        return reply

    def keep(self, request: Mapping[str, Any], reply: ChatReply) -> None:
        """Write a reply together with its request, which holds no key."""
        content = {"base_url": self.base_url, "request": request, **reply._asdict()}
        write_json(self._path(request), content)

    def _path(self, request: Mapping[str, Any]) -> Path:
        name = hashlib.sha256(json.dumps([self.base_url, request], sort_keys=True).encode()).hexdigest()
        return self.folder / name[:2] / f"{name}.json"
