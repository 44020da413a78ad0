"""HTML pages from templates of this folder: each is one file that needs nothing else, and all text in it is escaped."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined


def render_page(template: str, context: Mapping[str, object], filters: Mapping[str, Callable[..., str]]) -> str:
    """The page of a template; `pages.css` is the style that all share."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,  # prompts were written by an LLM
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    return environment.get_template(template).render(context) + "\n"
