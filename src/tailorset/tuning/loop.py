"""The loop of tuning: updates, evaluations, checkpoints, and an early stop."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path

from tailorset.compute import processes
from tailorset.progress import Bar
from tailorset.storage.checkpoint import load_checkpoint, restore_checkpoint, save_checkpoint
from tailorset.storage.files import atomic_output
from tailorset.tuning.early_stop import Evaluation, best_evaluation, is_over
from tailorset.tuning.held_out import HeldOut
from tailorset.tuning.tuner import Tuner, Update

log = logging.getLogger(__name__)
HISTORY, LAST = "history.json", "adapter.safetensors"


@dataclass
class Progress:
    """The updates and evaluations of a run, from its start even if it was interrupted."""

    updates: list[Update] = field(default_factory=list)
    evaluations: list[Evaluation] = field(default_factory=list)

    @property
    def num_skipped(self) -> int:
        """Number of updates without an effect."""
        return sum(record.skipped for record in self.updates)

    @property
    def kept_update(self) -> int:
        """The update after which the adapter is kept; 0 = the untuned text encoder."""
        return best_evaluation(self.evaluations).update if self.evaluations else 0


def tune(tuner: Tuner, held_out: HeldOut, progress: Progress, work_dir: Path) -> Iterator[Update | Evaluation]:
    """Yield each update and each evaluation, which also extend `progress`; in the end the adapter is the best one.

    The best adapter has the lowest loss on held-out prompts without fewer accepted images than at the start; after
    `patience` evaluations without a better one the loop ends. Several processes share the batches; process 0 alone
    writes checkpoints to `work_dir`.
    """
    config, updates = tuner.config, tuner.updates(progress.updates)
    if not progress.evaluations:
        yield _evaluated(tuner, held_out, progress, work_dir)
    with Bar(total=config.num_updates, initial=len(progress.updates), unit="update", is_whole=True) as bar:
        while not is_over(progress.evaluations, config.patience) and (update := next(updates, None)):
            progress.updates.append(update)
            yield update
            done = len(progress.updates)
            if done % config.evaluate_every == 0 or done == config.num_updates:
                yield _evaluated(tuner, held_out, progress, work_dir)
                _keep(work_dir, tuner, progress)
            elif done % config.checkpoint_every == 0:
                _keep(work_dir, tuner, progress)
            bar.update()
            bar.set_postfix(loss=f"{update.loss:.3f}", acceptance=f"{update.acceptance:.2f}")
    processes.barrier()  # for the last checkpoint
    restore_checkpoint(_best_file(work_dir, progress), adapter=tuner.adapter)
    if progress.num_skipped:
        log.warning(
            "%d of %d updates were skipped: their gradient was not finite", progress.num_skipped, len(progress.updates)
        )


def restored(work_dir: Path, tuner: Tuner) -> Progress:
    """Return the progress of an interrupted run, with its last checkpoint restored in the tuner."""
    done = load_checkpoint(work_dir / LAST, adapter=tuner.adapter, optimizer=tuner.optimizer)
    progress = _progress_until(done, work_dir / HISTORY) if done else Progress()
    processes.barrier()  # no process writes a checkpoint that another has yet to read
    return progress


def _progress_until(update: int, path: Path) -> Progress:
    """Return the history up to an update: it may be longer than the checkpoint, see `_keep`."""
    history = json.loads(path.read_text(encoding="utf-8"))
    evaluations = [Evaluation(*row) for row in history["evaluations"]]
    return Progress(
        [Update(*row) for row in history["updates"][:update]], [row for row in evaluations if row.update <= update]
    )


def _evaluated(tuner: Tuner, held_out: HeldOut, progress: Progress, work_dir: Path) -> Evaluation:
    """Evaluate the adapter, and store it if it is the best so far."""
    latest = held_out.evaluation(tuner, len(progress.updates))
    progress.evaluations.append(latest)
    if best_evaluation(progress.evaluations) is latest and processes.rank() == 0:
        save_checkpoint(_best_file(work_dir, progress), latest.update, adapter=tuner.adapter)
    return latest


def _best_file(work_dir: Path, progress: Progress) -> Path:
    """Return the file of the best adapter, named by its update: a file of an interrupted attempt is never used."""
    return work_dir / f"best-{best_evaluation(progress.evaluations).update}.safetensors"


def _keep(work_dir: Path, tuner: Tuner, progress: Progress) -> None:
    """Store the history, then the checkpoint: after a kill in between, `restored` cuts the history."""
    if processes.rank():
        return
    with atomic_output(work_dir / HISTORY) as partial:
        partial.write_text(json.dumps(asdict(progress)), encoding="utf-8")
    save_checkpoint(work_dir / LAST, len(progress.updates), adapter=tuner.adapter, optimizer=tuner.optimizer)
    for path in set(work_dir.glob("best-*.safetensors")) - {_best_file(work_dir, progress)}:
        path.unlink()
