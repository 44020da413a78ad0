"""Answers of a server: the reply in them, or the error, which some gateways send with HTTP 200."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tailorset.llms.parts import retries
from tailorset.llms.parts.replies import ChatReply

_KINDS = {  # HTTP status -> words that name this kind of error in its type, code or message
    429: ("rate limit", "rate_limit", "too many requests", "overloaded", "temporarily", "at capacity"),
    401: ("api key", "api_key", "unauthorized", "authentication", "permission denied"),
    404: (
        *("not found", "not_found", "notfound", "does not exist", "no such model", "unknown model"),
        "unexpected endpoint",  # LM Studio's, where the address lacks /v1
    ),
}
WRONG_KEY = ("api key not valid", "incorrect api key", "invalid api key")
UNPAID, USED_UP = 402, "insufficient_quota"
FILTERED = ("content_filter", "content_policy_violation", "invalid_prompt")
SOME_THOUGHTS = "(thoughts)"  # in place of those that nobody reads


class ServerAnswer(NamedTuple):
    """An HTTP response that has arrived completely."""

    status: int
    headers: Mapping[str, str]
    text: str

    @property
    def meaning(self) -> int:
        """The status, or that of the error in the answer where this tells more.

        HTTP 200 may hold any error; 400 is Gemini's and xAI's for a wrong key; 429 is OpenAI's for a quota that is
        used up, too, where waiting does not help.
        """
        error = _error(self.text) if self.status in (200, 400, 429) else None
        if isinstance(error, dict) and USED_UP in (error.get("code"), error.get("type")):
            return UNPAID
        if self.status == 400 and any(word in str(error).casefold() for word in WRONG_KEY):
            return 401
        return self.status if error is None or self.status != 200 else _status(error)

    @property
    def is_filtered(self) -> bool:
        """Check that a content filter refused just this request, as those of Azure and OpenRouter do."""
        error = _error(self.text) if self.status in (200, 400, 403) else None
        if not isinstance(error, dict):
            return False
        details = error.get("metadata")
        return error.get("code") in FILTERED or (isinstance(details, dict) and "flagged_input" in details)

    @property
    def is_redirect(self) -> bool:
        return 300 <= self.status < 400

    @property
    def is_page(self) -> bool:
        return self.text.lstrip()[:1] == "<"

    def reply(self) -> ChatReply:
        """Return content and thoughts of the first choice; characters that no file can hold are replaced.

        Raises:
            ValueError, LookupError, TypeError or AttributeError: the text is not a chat completion.
        """
        choice = retries.parsed(self.text)["choices"][0]
        message = choice["message"]
        content, thoughts = _texts(message.get("content"))
        separate = message.get("reasoning_content") or message.get("reasoning")
        thoughts = separate if isinstance(separate, str) else thoughts
        if not content.strip() and choice.get("finish_reason") == "length":
            thoughts = thoughts or SOME_THOUGHTS  # OpenAI's models use up their tokens without showing these
        return ChatReply(*(text.encode(errors="replace").decode() for text in (content, thoughts)))


def _texts(content: Any) -> tuple[str, str]:
    """Return the text and the thoughts of a content, which may be a list of parts, as Mistral's models write it."""
    if isinstance(content, str | None):
        return content or "", ""
    if not isinstance(content, list) or not all(isinstance(part, dict) and "type" in part for part in content):
        raise TypeError("content is not text")
    texts = [part["text"] for part in content if part["type"] in ("text", "output_text")]
    thoughts = [part for part in content if part["type"] in ("thinking", "reasoning")]
    return "".join(texts), SOME_THOUGHTS if thoughts else ""


def _error(text: str) -> Any:
    """Return what a JSON text says about an error: of the request, or of its only choice; None if there is none."""
    try:
        content = retries.parsed(text)
    except ValueError:
        return None
    if isinstance(content, list) and len(content) == 1:  # Gemini's way
        content = content[0]
    if not isinstance(content, dict):
        return None
    if content.get("object") == "error":  # vLLM's former way
        return content
    choices = content.get("choices")
    first = choices[0] if isinstance(choices, list) and choices else None
    places = [place for place in (content, first) if isinstance(place, dict)]
    return next((place["error"] for place in places if place.get("error")), None)


def _status(error: Any) -> int:
    """Return the HTTP status that an error names as its code or, by its words, belongs to; else 400."""
    fields = error if isinstance(error, dict) else {"message": error}
    if re.fullmatch("[45][0-9]{2}", code := str(fields.get("code"))):
        return int(code)
    said = " ".join(value for value in fields.values() if isinstance(value, str)).casefold()
    return next((status for status, words in _KINDS.items() if any(word in said for word in words)), 400)
