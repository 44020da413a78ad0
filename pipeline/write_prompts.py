"""Stage write_prompts: a language model writes diverse prompts for the unseen labels, alone and in pairs."""

from __future__ import annotations

import logging

from tailorset.project.layout import PROMPTS
from tailorset.project.loops import write_all
from tailorset.project.stage import run_stage
from tailorset.prompts.files import save_prompts
from tailorset.prompts.report import metrics, pair_table, warning
from tailorset.prompts.token_limit import TokenLimit

log = logging.getLogger(__name__)


def main() -> None:
    with run_stage("write_prompts") as stage:
        generator = stage.params.generator
        limit = TokenLimit(generator.plugin.build_tokenizers(generator.config))
        ledger = write_all(stage, stage.label_space, limit)
        save_prompts(ledger.prompts, PROMPTS)

        plot = stage.plots_dir / "prompts_per_pair.csv"
        pair_table(ledger.prompts).to_csv(plot, index=False)
        stage.log_figures(plot)
        figures = metrics(ledger, limit)
        stage.save_metrics(figures)
        if problem := warning(figures):
            log.warning("%s", problem)


if __name__ == "__main__":
    main()
