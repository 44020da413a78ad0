"""Settings of a model that a server offers; the key itself is not among them."""

from __future__ import annotations

import os
import re
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field

from tailorset.messages import Strict
from tailorset.storage.hub import Name

EXAMPLE = "http://localhost:11434/v1"


def _root(url: str) -> str:
    """Check the address; parts that may hold a password are not repeated in errors."""
    try:
        parts = urlsplit(url)
        is_address = (
            parts.scheme in ("http", "https") and bool((parts.hostname or "").encode("idna")) and parts.port != 0
        )
    except ValueError:
        is_address = False
    if not is_address or re.search(r"[\s\x00-\x1f]", url):
        raise ValueError(f"not an address of a server: give http:// or https://, host, port and path, e.g. {EXAMPLE}")
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise ValueError(
            "an address with user, password, ? or # is refused, as params.yaml is not a place for secrets: put the key"
            " into an environment variable and name it in api_key_env"
        )
    if (path := parts.path.rstrip("/")).endswith(("/chat/completions", "/models")):
        raise ValueError(f"{url!r} is one function of the API: give its root, e.g. {EXAMPLE}, not {path}")
    return url.rstrip("/")


def _variable(name: str) -> str:
    """Check the name of a variable; the value is not repeated, as it may be the key itself."""
    if not re.fullmatch(r"[A-Z_][A-Z0-9_]{0,63}", name):
        raise ValueError(
            "not the name of an environment variable (capital letters, digits, _): give the name, e.g."
            " OPENAI_API_KEY, and never the key itself; if it was the key, replace the key, as git may keep this file"
        )
    return name


class ServedModel(Strict):
    """base_url: root of the API. model: its name there. api_key_env: environment variable with the key; None = no key.

    timeout_s: until a reply is complete. max_retries: of a request that meets a busy or failing server.
    """

    base_url: Annotated[str, AfterValidator(_root)]
    model: Name
    api_key_env: Annotated[str, AfterValidator(_variable)] | None = None
    timeout_s: float = Field(default=120, gt=0)
    max_retries: int = Field(default=8, ge=0)

    def api_key(self) -> str | None:
        """Return the key, from the environment; None if no variable is named.

        Raises:
            ValueError: the variable is not set, or its value cannot be a key.
        """
        if self.api_key_env is None:
            return None
        key = os.environ.get(self.api_key_env, "").strip()
        if not key:
            raise ValueError(
                f"write_prompts.llm.api_key_env names {self.api_key_env}, which is not set: `export"
                f" {self.api_key_env}=...`, or set api_key_env to null for a server that needs no key"
            )
        if not re.fullmatch(r"[!-~]+", key):
            raise ValueError(
                f"${self.api_key_env} holds a space or a character that no header can carry: export the key alone"
            )
        return key
