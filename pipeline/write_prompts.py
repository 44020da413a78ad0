"""Stage write_prompts: a language model writes diverse prompts for the unseen labels, alone and in pairs."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import ValidationError

from tailorset.plugins import load_plugin
from tailorset.progress import Bar
from tailorset.project.layout import PROMPTS
from tailorset.project.stage import Stage, run_stage
from tailorset.prompts.contract import main_cause, refused_replies
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.writer import ORIGINS, Ledger, Recipe, metrics, write_prompts
from tailorset.records import PROMPT_COLUMNS, Prompt
from tailorset.storage.files import atomic_output

log = logging.getLogger(__name__)

COLUMN_TYPES = {"labels": pa.list_(pa.string()), "attempt": pa.int64()}  # the others are strings
SCHEMA = pa.schema([(column, COLUMN_TYPES.get(column, pa.string())) for column in PROMPT_COLUMNS])


def write_all(stage: Stage, limit: TokenLimit) -> Ledger:
    """Every prompt; the ledger is kept in the work folder, so that a restart asks nothing twice."""
    options = stage.params.write_prompts
    llm = load_plugin("llms", options.llm.name).build(options.llm.config, stage.device)
    recipe = Recipe(
        prompts_per_pair=options.prompts_per_pair,
        min_words=options.min_words,
        max_attempts=options.max_attempts,
        batch_size=llm.batch_size,
        seed=stage.params.seed,
        max_prompts=options.max_prompts,
    )
    path = stage.work_dir / "ledger.json"
    start = ledger = read_ledger(path)
    total, done = recipe.num_prompts(stage.label_space), len(ledger.prompts)
    with Bar(total=total, initial=done, unit="prompt", is_whole=True) as progress:
        for step, ledger in enumerate(write_prompts(llm.reply, stage.label_space, recipe, start, limit)):
            progress.update(len(ledger.prompts) - progress.n)
            progress.set_postfix(attempt=ledger.attempt)
            stage.log_metrics({"prompts/written": len(ledger.prompts)}, step=step)
            with atomic_output(path) as partial:
                partial.write_text(ledger.model_dump_json(), encoding="utf-8")
    return ledger


def read_ledger(path: Path) -> Ledger:
    """The ledger of an interrupted run, or a new one."""
    if not path.exists():
        return Ledger()
    try:
        return Ledger.model_validate_json(path.read_bytes())
    except ValidationError as error:
        raise ValueError(f"{path} is damaged ({error.error_count()} faults): delete it to start anew") from error


def save_prompts(prompts: Sequence[Prompt], path: Path) -> None:
    table = pa.Table.from_pylist([prompt.model_dump() for prompt in prompts], schema=SCHEMA)
    with atomic_output(path) as partial:
        pq.write_table(table, partial)


def plot_pairs(prompts: Sequence[Prompt], path: Path) -> None:
    """One row per pair: how many of its prompts came from where."""
    counts = Counter((" + ".join(prompt.labels), prompt.origin) for prompt in prompts)
    pairs = dict.fromkeys(" + ".join(prompt.labels) for prompt in prompts)
    rows = [{"pair": pair, **{origin: counts[pair, origin] for origin in ORIGINS}} for pair in pairs]
    pd.DataFrame(rows).to_csv(path, index=False)


def tell_refused(figures: Mapping[str, float]) -> None:
    """Say why, where more replies were refused than taken."""
    refused = refused_replies(figures)
    if sum(refused.values()) > figures["prompts/count"] - figures["prompts/origin/template"]:
        log.warning("%s", main_cause(refused))


def main() -> None:
    with run_stage("write_prompts") as stage:
        generator = stage.params.generator
        limit = TokenLimit(load_plugin("generators", generator.name).build_tokenizers(generator.config))
        ledger = write_all(stage, limit)
        save_prompts(ledger.prompts, PROMPTS)
        plot = stage.plots_dir / "prompts_per_pair.csv"
        plot_pairs(ledger.prompts, plot)
        stage.log_figure(plot)
        figures = metrics(ledger, limit)
        stage.save_metrics(figures)
        tell_refused(figures)


if __name__ == "__main__":
    main()
