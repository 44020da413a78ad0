"""Thinking models: the switch that keeps them from thinking, and their replies without thoughts."""

from __future__ import annotations

from tailorset.prompts.contract import after_thoughts, ends_in_thoughts, parse_reply

NO_THINKING = {"enable_thinking": False, "thinking": False}  # the names in chat templates; the rest ignore them
ONLY_THOUGHTS = "<think>"  # the contract counts it as a reply that ends within thoughts


def spoken(content: str, thoughts: str = "") -> str:
    """Return a reply without its finished thoughts; unfinished ones stay, and the contract counts them.

    thoughts: from a server that returns them separately from the content.
    """
    return ONLY_THOUGHTS if thoughts and not content.strip() else after_thoughts(content)


def has_phrase(reply: str) -> bool:
    """Check that a reply of `spoken` is neither empty nor unfinished thoughts."""
    return bool(parse_reply(reply)) and not ends_in_thoughts(reply)
