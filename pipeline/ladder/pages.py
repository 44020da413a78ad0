"""The ladder's pages: docs/results.md, and the summary in docs/components.md."""

from __future__ import annotations

import re
from collections.abc import Mapping

import pandas as pd
from points import ASIDE, BOUNDS, CURVES, FULL, SUPERVISED, Ladder

from tailorset.evaluation.bootstrap import Interval
from tailorset.evaluation.results import percent
from tailorset.messages import count

MEASURES = {"zsl_map": "ZSL mAP", "zsl_f1": "ZSL F1@3", "gzsl_map": "GZSL mAP", "gzsl_f1": "GZSL F1@3"}
SUMMARY = re.compile(r"(<!-- ladder -->\n).*?(<!-- /ladder -->)", re.DOTALL)
ONE_SEED = "Intervals are over the test photos only: another seed may move a figure by as much again."
Tables = Mapping[str, pd.DataFrame]  # of one part of the ladder


def cell(row: pd.Series, name: str, signed: bool = False) -> str:
    """Return `48.7 [46.1, 50.9]`, a figure in percent with its interval."""
    if pd.isna(row[name]):
        return "not measured"
    return Interval(row[name], row[f"{name}_low"], row[f"{name}_high"]).in_percent(signed)


def verdict(row: pd.Series, name: str) -> str:
    """Return the side of 0 on which a difference's interval is; it may contain 0."""
    if pd.isna(row[name]):
        return ""
    if row[f"{name}_low"] > 0:
        return "helps"
    return "hurts" if row[f"{name}_high"] < 0 else "no effect shown"


def markdown(table: pd.DataFrame) -> str:
    lines = ["| " + " | ".join(table.columns) + " |", "|" + "---|" * len(table.columns)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in table.itertuples(index=False)])


def ladder_table(world: str, table: pd.DataFrame) -> str:
    rows = [
        {"row": row["title"]}
        | {title: cell(row, key) for key, title in MEASURES.items()}
        | {
            "step, ZSL mAP": "" if row["row"] in ASIDE else cell(row, "step", signed=True),
            "MLflow runs": run_names(world, row["row"]),
        }
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def run_names(world: str, row: str) -> str:
    return f"`ladder-{world}-{FULL if row.startswith('clip') else row}-*`"


def component_table(table: pd.DataFrame) -> str:
    rows = [
        {
            "component": row["component"],
            "measured as": f"`{row['with']}` - `{row['without']}`",
            "ZSL mAP": cell(row, "zsl_map", signed=True),
            "verdict (ZSL)": verdict(row, "zsl_map"),
            "GZSL mAP": cell(row, "gzsl_map", signed=True),
            "verdict (GZSL)": verdict(row, "gzsl_map"),
        }
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def label_table(table: pd.DataFrame) -> str:
    shown = {"clip": "raw CLIP", "seen": "seen only", FULL: "full", SUPERVISED: "supervised, label residuals"}
    rows = [
        {"label": row["label"]}
        | {title: percent(row[key]) for key, title in shown.items() if key in row}
        | {"full - seen only": Interval(row["difference"], row["low"], row["high"]).in_percent(signed=True)}
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def image_table(table: pd.DataFrame) -> str:
    shares = {
        "judge_precision": "of the kept, judge accepts",
        "oracle_precision": "of the kept, show their labels (oracle)",
    }
    rows = [
        {"row": row["row"], "images drawn": f"{row['drawn']:.0f}", "kept": f"{row['kept']:.0f}"}
        | {title: share(row[key]) for key, title in shares.items() if key in row}
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def share(value: float) -> str:
    return "-" if pd.isna(value) else f"{percent(value)} %"


def curve_table(table: pd.DataFrame) -> str:
    rows = [
        {"setting": f"`{row['setting']}`", "value": f"{row['value']:g}", "ZSL mAP": cell(row, "zsl_map")}
        for _, row in table.iterrows()
    ]
    return markdown(pd.DataFrame(rows))


def factor_text(ladder: Ladder, table: pd.DataFrame) -> str:
    """The table of the factors, in percent, and below it the settings of its rows."""
    maps = {"zsl_map": "ZSL mAP", "gzsl_map": "GZSL mAP"}
    rows = [
        {"row": row["row"]}
        | {f"{title}, val": cell(row, key) for key, title in maps.items()}
        | {f"change, {title}": cell(row, f"{key}_change", signed=True) for key, title in maps.items()}
        | {key: "" if pd.isna(row[key]) else row[key] for key in table.columns[table.columns.get_loc("best_epoch") :]}
        for _, row in table.iterrows()
    ]
    settings = {
        name: ", ".join(f"{key}={spelled(value)}" for key, value in row.settings.items())
        for name, row in ladder.factors.rows.items()
    }
    lines = [f"{name}: {ladder.factors.rows[name].title} ({changed})" for name, changed in settings.items()]
    return "\n".join([markdown(pd.DataFrame(rows)), "", f"Change: minus `{FULL}` of the same seed.", *lines])


def gap_sentence(world: str, tables: Tables) -> str:
    """Say how much of the gap is closed, and which bounds it has not been compared with."""
    gap, rows = tables["gap"], tables["ladder"].set_index("row")["zsl_map"]
    if gap.empty:
        return f"{world}: not available: full supervision is not measured, or its difference to raw CLIP may be 0."
    value, low, high = gap.iloc[0][["gap", "gap_low", "gap_high"]]
    missing = [name for name in BOUNDS if pd.isna(rows.get(name))]
    caveat = f" Not measured, so perhaps higher: {', '.join(f'`{name}`' for name in missing)}." if missing else ""
    return (
        f"{world}: {value:.3f} [{low:.3f}, {high:.3f}] of the way from raw CLIP to the best of the rows with all"
        f" labels annotated (goal 0.9).{caveat}"
    )


def change_sentence(then: Mapping[str, object], now: Mapping[str, object]) -> str:
    """Name the settings of the figures that params.yaml no longer has; "" if all are the same."""
    if not then and not now:
        return ""
    former = ", ".join(f"`{key}` {spelled(value)}" for key, value in then.items())
    added = ", ".join(f"`{key}`" for key in now)
    told = f"with {former}" if former else f"before there was {added}"
    return f"**Not measured with today's settings, labels and weights**, but {told}. `make ladder` measures it again."


def results_page(ladder: Ladder, parts: Mapping[str, Tables], changes: Mapping[str, str]) -> str:
    """docs/results.md; changes: `change_sentence` of each part."""
    text = [
        "# Results\n",
        "Written by `make ladder` from the test scores of all points; do not edit. Figures are percentages with"
        f" {100 * ladder.level:.0f} % bootstrap intervals over test photos and seeds. Steps and differences are paired:"
        " both rows are computed on the same resamples. Verdicts use the intervals before rounding. The last column"
        " names a row's runs in MLflow (`*` is the seed); CSV files are in `reports/ladder/`. A row uses `params.yaml`"
        " with the settings of the row in `pipeline/ladder/params.yaml`; `dvc exp run -S KEY=VALUE` makes the same"
        " classifier. If no epoch of a row helps on val, the row is raw CLIP, or the start of training if that is"
        " better.\n",
    ]
    for world in ladder.worlds:
        text += [f"## {world}\n"] + ([f"{change}\n"] if (change := changes.get(world)) else [])
        text += world_section(world, parts[world]) if world in parts else ["Not measured yet.\n"]
    text += ["## Curves\n"] + ([f"{change}\n"] if (change := changes.get(CURVES)) else [])
    text += curves_section(ladder, parts[CURVES]) if CURVES in parts else ["Not measured yet.\n"]
    text += [
        "![The ladder](pictures/ladder.png)\n",
        "## Reproduce a row\n",
        f"These commands reproduce seed 0 of each row of {ladder.first_world}, with the code, models and settings of"
        " the commit named above, to float rounding (the ladder computes"
        " on one thread); `reports/metrics.json` then has its figures. Other seeds cannot be reproduced in this way,"
        " because the ladder keeps the photos of seed 0. Another world needs its label file,"
        " `-S label_space=FILE`.\n",
        *(f"**{rung.title}**\n\n    {command(ladder, name)}\n" for name, rung in ladder.rungs.items()),
    ]
    return "\n".join(text)


def world_section(world: str, tables: Tables) -> list[str]:
    return [
        measured_with(tables["measured"]),
        ladder_table(world, tables["ladder"]) + "\n",
        f"**Gap closed.** {gap_sentence(world, tables)}\n",
        component_table(tables["components"]) + "\n",
        "Average precision of each unseen label:\n",
        label_table(tables["per_label"]) + "\n",
        "Generated images, means over the seeds:\n",
        image_table(tables["images"]) + "\n",
    ]


def curves_section(ladder: Ladder, tables: Tables) -> list[str]:
    return [
        measured_with(tables["measured"]),
        f"ZSL mAP of {ladder.first_world} if one setting differs from `{FULL}`: mean and range over the seeds.\n",
        curve_table(tables["curves"]) + "\n",
        "![Curves](pictures/ladder_curves.png)\n",
    ]


def measured_with(table: pd.DataFrame) -> str:
    seeds = int(table["seeds"][0])
    note = f" {ONE_SEED}" if seeds == 1 else ""
    return f"{count(seeds, 'seed')}, measured with commit `{table['commit'][0][:12]}`.{note}\n"


def command(ladder: Ladder, rung: str) -> str:
    """The `dvc exp run` that makes seed 0 of a rung on the first world."""
    settings = ladder.base | ladder.rungs[rung].settings
    return "dvc exp run " + " ".join(f"-S '{part}'" for item in settings.items() for part in overrides(*item))


def overrides(key: str, value: object) -> list[str]:
    """Return what sets a key in `dvc exp run -S`; a block is removed first, or it would be merged with the old one."""
    return [f"~{key}", f"+{key}={spelled(value)}"] if isinstance(value, dict) else [f"{key}={spelled(value)}"]


def spelled(value: object) -> str:
    """A value as `dvc exp run -S` reads it: [real], true, 0.003, {flip:true}."""
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{spelled(item)}" for key, item in value.items()) + "}"
    if isinstance(value, str) and ":" in value:
        return f'"{value}"'
    if isinstance(value, list):
        return "[" + ",".join(map(spelled, value)) + "]"
    return str(value).lower() if isinstance(value, bool) else str(value)


def gains_table(worlds: Mapping[str, Tables]) -> str:
    """Table of the ZSL mAP that each component adds, with one column per world."""
    rows: dict[str, dict[str, str]] = {}
    for world, tables in worlds.items():
        for _, row in tables["components"].iterrows():
            cells = rows.setdefault(row["component"], {"gain in ZSL mAP": row["component"]})
            answer = verdict(row, "zsl_map")
            cells[world] = cell(row, "zsl_map", signed=True) + (f": {answer}" if answer else "")
    return markdown(pd.DataFrame(list(rows.values())))


def with_summary(page: str, worlds: Mapping[str, Tables], change: str = "") -> str:
    """Renew the block between the page's two ladder marks: the first world's rows, the gains in all worlds.

    Raises:
        ValueError: the page lacks the marks.
    """
    if not SUMMARY.search(page):
        raise ValueError(
            "docs/components.md needs the lines `<!-- ladder -->` and `<!-- /ladder -->` around its summary"
        )
    rows = [
        {"test split, %": row["title"]} | {title: cell(row, key) for key, title in MEASURES.items()}
        for _, row in next(iter(worlds.values()))["ladder"].iterrows()
    ]
    single = [world for world, tables in worlds.items() if int(tables["measured"]["seeds"][0]) == 1]
    notes = [part for part in (change, f"{', '.join(single)}: one seed. {ONE_SEED}" if single else "") if part]
    gaps = " ".join(gap_sentence(world, tables) for world, tables in worlds.items())
    tables = [markdown(pd.DataFrame(rows)), gains_table(worlds), gaps]
    text = "\n\n".join([*notes, *tables]) + "\n"
    return SUMMARY.sub(lambda match: match[1] + text + match[2], page)
