"""Write docs/results.md, its figures and the summary in docs/components.md, from the tables of every measured part."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pandas as pd
from figures import curves_figure, ladder_figure
from pages import MEASURES, Tables, change_sentence, results_page, with_summary
from points import CURVES, REPORT, Ladder, load_ladder

from tailorset.card.verdicts import changed_since
from tailorset.project.params import flatten, read_yaml
from tailorset.storage.files import write_json

PAGE, PICTURES, SUMMARY = Path("docs/results.md"), Path("docs/pictures"), Path("docs/components.md")


def read_tables(ladder: Ladder) -> dict[str, Tables]:
    """The tables of each part, {part: {name: table}}; a part that was never measured is not in it.

    Raises:
        ValueError: the first world, which the summary shows, was never measured.
    """
    parts = {part: REPORT / part for part in (*ladder.worlds, CURVES) if (REPORT / part).is_dir()}
    if ladder.first_world not in parts:
        raise ValueError(f"{REPORT / ladder.first_world} is missing: run `make ladder`")
    return {
        part: {path.stem: pd.read_csv(path) for path in sorted(folder.glob("*.csv"))} for part, folder in parts.items()
    }


def main() -> None:
    ladder = load_ladder()
    parts = read_tables(ladder)
    worlds = {world: parts[world] for world in ladder.worlds if world in parts}
    PICTURES.mkdir(parents=True, exist_ok=True)
    rows = {world: tables["ladder"] for world, tables in worlds.items()}
    ladder_figure(rows).savefig(PICTURES / "ladder.png", dpi=120)
    if CURVES in parts:
        curves_figure(parts[CURVES]["curves"]).savefig(PICTURES / "ladder_curves.png", dpi=120)
    write_json(REPORT / "metrics.json", flat_metrics(worlds))
    settings = flatten(read_yaml("params.yaml"))
    changes = {part: change_sentence(*changed_since(REPORT / part, settings)) for part in parts}
    PAGE.write_text(results_page(ladder, parts, changes), encoding="utf-8")
    summary = with_summary(SUMMARY.read_text(encoding="utf-8"), worlds, changes[ladder.first_world])
    SUMMARY.write_text(summary, encoding="utf-8")


def flat_metrics(worlds: Mapping[str, Tables]) -> dict[str, float]:
    """The ladder's rows under flat names, as every other metrics.json has them."""
    metrics: dict[str, float] = {}
    for world, tables in worlds.items():
        table = tables["ladder"].set_index("row")[list(MEASURES)].stack()  # without what was not measured
        metrics |= {f"{world}/{row}/{key}": float(value) for (row, key), value in table.dropna().items()}
        metrics |= {f"{world}/gap_closed": float(value) for value in tables["gap"]["gap"]}
    return metrics


if __name__ == "__main__":
    main()
