"""Stage write_prompts: a language model writes diverse prompts for the unseen labels, alone and in pairs."""

from __future__ import annotations

import logging

from tailorset.progress import Bar
from tailorset.project.layout import PROMPTS
from tailorset.project.stage import Stage, run_stage
from tailorset.prompts.files import read_ledger, save_ledger, save_prompts
from tailorset.prompts.report import metrics, pair_table, warning
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.writer import Ledger, write_prompts

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("write_prompts") as stage:
        generator = stage.params.generator
        limit = TokenLimit(generator.plugin.build_tokenizers(generator.config))
        ledger = write_all(stage, limit)
        save_prompts(ledger.prompts, PROMPTS)

        plot = stage.plots_dir / "prompts_per_pair.csv"
        pair_table(ledger.prompts).to_csv(plot, index=False)
        stage.log_figures(plot)
        figures = metrics(ledger, limit)
        stage.save_metrics(figures)
        if problem := warning(figures):
            log.warning("%s", problem)


def write_all(stage: Stage, limit: TokenLimit) -> Ledger:
    """Write every prompt; the ledger is kept in the resume folder, so that a restart asks for nothing twice."""
    config, label_space = stage.params.write_prompts, stage.label_space
    llm = config.llm.build(stage.device)
    path = stage.work_dir / "ledger.json"
    ledger = read_ledger(path)
    ledgers = write_prompts(llm.reply, label_space, config, stage.params.seed, llm.batch_size, ledger, limit)
    total, done = config.num_prompts(label_space), len(ledger.prompts)
    with Bar(total=total, initial=done, unit="prompt", is_whole=True) as bar:
        for step, ledger in enumerate(ledgers):
            bar.update(len(ledger.prompts) - bar.n)
            bar.set_postfix(attempt=ledger.attempt)
            stage.log_metrics({"prompts/written": len(ledger.prompts)}, step=step)
            save_ledger(ledger, path)
    return ledger


if __name__ == "__main__":
    main()
