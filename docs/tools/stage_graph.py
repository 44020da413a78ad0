"""The picture of the stages: an SVG drawn from dvc.yaml, in which an arrow is a product that a later stage reads."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

WIDTH, HEIGHT, STEP = 410, 44, 64  # of a stage, and from one to the next, in px
PALETTE = ("#3f51b5", "#00796b", "#c2185b", "#ef6c00", "#5d4037", "#7b1fa2", "#455a64")


def stage_graph(root: Path) -> str:
    """Return the SVG: stages in a column, an arrow to the next one, and arcs of the stage's colour to later ones."""
    stages = yaml.safe_load((root / "dvc.yaml").read_text(encoding="utf-8"))["stages"]
    places = {name: place for place, name in enumerate(stages)}
    arrows = [(places[start], places[end]) for start, end in readings(stages)]
    width, height = WIDTH + 40 * len(stages), STEP * len(stages)
    heads = "".join(_head(number, colour) for number, colour in enumerate(PALETTE))
    drawn = "".join(_arrow(start, end) for start, end in arrows)
    boxes = "".join(_box(place, name, _made(stages[name], ("outs",))) for name, place in places.items())
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
        f' font-family="sans-serif"><defs>{heads}</defs>{drawn}{boxes}</svg>'
    )


def readings(stages: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield a pair for each stage and each later one that reads a product of it."""
    for start, stage in stages.items():
        made = [f"{path}/" for path in _made(stage, ("outs", "plots", "metrics"))]
        for end, later in stages.items():
            if any(f"{dep}/".startswith(path) for dep in later["deps"] for path in made):
                yield start, end


def _made(stage: dict[str, Any], kinds: tuple[str, ...]) -> list[str]:
    listed = [one for kind in kinds for one in stage.get(kind, [])]
    return [one if isinstance(one, str) else next(iter(one)) for one in listed]


def _head(number: int, colour: str) -> str:
    shape = f'<path d="M0,0 L7,3.5 L0,7 z" fill="{colour}"/>'
    return (
        f'<marker id="head{number}" markerWidth="7" markerHeight="7" refX="6" refY="3.5" orient="auto">{shape}</marker>'
    )


def _box(place: int, name: str, products: list[str]) -> str:
    top = place * STEP + 10
    return (
        f'<rect x="1" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="6" fill="#e8eaf6"'
        f' stroke="{PALETTE[place % len(PALETTE)]}"/>'
        f'<text x="12" y="{top + 18}" font-size="14" font-weight="bold" fill="#1a237e">{name}</text>'
        f'<text x="12" y="{top + 35}" font-size="10.5" fill="#37474f">{", ".join(products)}</text>'
    )


def _arrow(start: int, end: int) -> str:
    """An arrow down to the next stage, or an arc on the right."""
    number = start % len(PALETTE)
    top, bottom = start * STEP + 10, end * STEP + 10
    if end == start + 1:
        path = f"M40,{top + HEIGHT} L40,{bottom}"
    else:
        leaves, arrives = top + HEIGHT - 14, bottom + 8 + 28 * start // end
        reach = WIDTH + 50 * (end - start)
        path = f"M{WIDTH},{leaves} C{reach},{leaves} {reach},{arrives} {WIDTH + 2},{arrives}"
    return (
        f'<path d="{path}" fill="none" stroke="{PALETTE[number]}" stroke-width="1.4" marker-end="url(#head{number})"/>'
    )
