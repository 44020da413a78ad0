"""A running stage, for the scripts in pipeline/: settings, paths, resume folder, metrics files and MLflow run.

The library does not depend on it.
"""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from tailorset.compute import processes
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.compute.memory import enforce_budget, explained
from tailorset.messages import GB
from tailorset.project.busy import yield_to_others
from tailorset.project.checks import contradictions
from tailorset.project.definition import fingerprint, stage_definition
from tailorset.project.layout import REPORTS
from tailorset.project.limits import clear_when_full, exclusive_run, time_limit
from tailorset.project.params import Params, load_params
from tailorset.project.running import close_work_dir, open_work_dir, progress_shown
from tailorset.project.tracking import Tracker
from tailorset.records import LabelSpace
from tailorset.seeding import sample_seed
from tailorset.storage.files import read_metrics, write_json
from tailorset.storage.location import open_storage
from tailorset.storage.paths import project_root

STAGE_MEMORY_REMEDY = "name smaller or more quantised models in params.yaml"
NOISY = ("bitsandbytes.backends.cpu.ops", "great_expectations.data_context.types.base")  # nothing to act on
log = logging.getLogger(__name__)


class Stage:
    """One running stage: its settings, its folders, its metrics."""

    def __init__(self, name: str, root: Path, params: Params, work_dir: Path, tracker: Tracker) -> None:
        self.name, self.root, self.params, self.work_dir, self.tracker = name, root, params, work_dir, tracker

    @cached_property
    def label_space(self) -> LabelSpace:
        """The labels, validated.

        Raises:
            ValueError: the file is not usable, or names too few unseen labels to tell whether an image shows its own.
        """
        label_space = LabelSpace.load(self.params.label_space)
        if problem := next(contradictions(self.params, label_space), None):
            raise ValueError(problem)
        return label_space

    @cached_property
    def device(self) -> torch.device:
        """The device of params.yaml, limited to the memory budget; `auto` is a GPU if there is one."""
        device = resolve_device(self.params.device)
        enforce_budget(self.params.memory_budget_gb, device)
        return device

    @cached_property
    def shard_folder(self) -> Path:
        """Folder in which the stage finishes its shards: its resume folder, or one of the same name in storage.

        Raises:
            ValueError: the storage cannot be used.
        """
        if self.params.storage is None:
            return self.work_dir
        return open_storage(self.params.storage) / self.name / self.work_dir.name

    @property
    def is_main(self) -> bool:
        """True in the one process that writes the stage's outputs, of several that `accelerate launch` started."""
        return processes.rank() == 0

    @property
    def report_dir(self) -> Path:
        """reports/<stage>, made on first use."""
        folder = REPORTS / self.name
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    @property
    def plots_dir(self) -> Path:
        """reports/<stage>/plots, made on first use."""
        folder = self.report_dir / "plots"
        folder.mkdir(exist_ok=True)
        return folder

    def log_metrics(self, metrics: Mapping[str, float], step: int = 0) -> None:
        """Send intermediate metrics to MLflow only."""
        self.tracker.log_metrics(metrics, step)

    def save_metrics(self, metrics: Mapping[str, float]) -> None:
        """Write reports/<stage>/metrics.json, sorted and flat, and send the same names to MLflow."""
        write_json(self.report_dir / "metrics.json", {key: _plain(value) for key, value in metrics.items()})
        self.tracker.log_metrics(metrics)

    def log_figures(self, *paths: Path) -> None:
        """Log plots of the stage's outputs to its MLflow run as well."""
        for path in sorted(paths):
            self.tracker.log_file(path)


@contextlib.contextmanager
def run_stage(name: str, parallel: bool = False, definition: Mapping[str, Any] | None = None) -> Iterator[Stage]:
    """Open a stage: read params.yaml, seed, open its MLflow run and its resume folder; tidy up when it succeeds.

    parallel: several processes share the stage's work; they see the same resume folder, and only process 0 writes
    outputs (`Stage.is_main`) and speaks to MLflow. Any other stage is left to process 0 alone.
    definition: "deps" and "params", as `stage_definition` returns them, of work that is not a stage of dvc.yaml.

    Raises:
        ValueError: params.yaml or dvc.yaml is not valid, or dvc.yaml has no such stage.
        MemoryError: memory ran out where no smaller batch helps.
        OSError: there is no room left to write.
        OutOfTime: max_hours are over.
    """
    _log_plainly()
    params = load_params()
    use_tf32()
    if Path(sys.argv[0]).stem == name and processes.launched() == 1 and resolve_device(params.device).type == "cpu":
        yield_to_others()
    if parallel:
        meet_processes(params)
    elif processes.rank():
        raise SystemExit
    definition = definition or stage_definition(name)
    torch.manual_seed(sample_seed(params.seed, name))
    root = project_root()
    resume_key, is_main = fingerprint(definition), processes.rank() == 0
    work_dir, lock = root / ".work" / name / resume_key, root / ".work" / "locks" / f"{name}-{resume_key}.lock"
    tracker = Tracker(name, root, definition["params"])
    with exclusive_run(name, lock) if is_main else contextlib.nullcontext():
        if is_main:
            open_work_dir(root, work_dir)
        processes.barrier()
        with (
            tracker if is_main else contextlib.nullcontext(),
            explained(name, STAGE_MEMORY_REMEDY),
            clear_when_full(name),
            time_limit(name, params.max_hours),
            progress_shown(name, root, work_dir, is_main) as position,
        ):
            log.info("%s", position)
            yield Stage(name, root, params, work_dir, tracker)
            if peak := torch.cuda.max_memory_reserved():
                tracker.log_metrics({"memory/peak_gb": peak / GB})
        processes.barrier()
        if is_main:
            close_work_dir(name, work_dir)
    processes.destroy_process_group()


def meet_processes(params: Params) -> None:
    """Start the processes that params.yaml asks for, or join those that a launcher has started.

    Raises:
        ValueError: there are fewer GPUs than processes.
    """
    device = resolve_device(params.device)
    if params.num_processes > processes.launched() == 1:
        num_gpus = torch.cuda.device_count() if device.type == "cuda" else params.num_processes
        if params.num_processes > num_gpus:
            raise ValueError(f"num_processes is {params.num_processes}: choose 1 to {num_gpus}, the GPUs there are")
        processes.relaunch(params.num_processes)
    processes.init_process_group(device)
    if processes.rank():  # process 0 logs for all
        _log_plainly(logging.ERROR)
    if processes.world_size() > 1:
        log.info("%d processes share this stage", processes.world_size())


def all_metrics(reports: Path = REPORTS) -> dict[str, float]:
    """The metrics of every stage and of the final reports/metrics.json, under the names they have there."""
    metrics: dict[str, float] = {}
    for path in (*sorted(reports.glob("*/metrics.json")), reports / "metrics.json"):
        metrics |= read_metrics(path)
    return metrics


def _plain(value: Any) -> float | int:
    return value if isinstance(value, int) else float(value)


def _log_plainly(level: int = logging.INFO) -> None:
    """Show our own messages, and only warnings of others: open_clip and others log every step to the root logger."""
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for ours in ("__main__", "tailorset"):
        logging.getLogger(ours).setLevel(level)
    for others in NOISY:
        logging.getLogger(others).setLevel(logging.ERROR)
