"""Run every point of one part of the ladder: `python pipeline/ladder/measure.py WORLD`, or `curves`, or `factors`.

`python pipeline/ladder/measure.py factors ROW ...` runs some rows only, and the full rung that they are compared with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from filelock import FileLock
from points import FACTORS, FULL, RESULTS, Point, load_ladder
from web_photos import draw_pool
from workspace import STAGES, Workspace, working_in

from tailorset.messages import check_keys, count
from tailorset.progress import Bar
from tailorset.project.layout import FILTERED, SYNTHETIC
from tailorset.project.limits import OutOfTime
from tailorset.project.params import flatten, load_params, read_yaml
from tailorset.project.stage import all_metrics
from tailorset.project.tracking import Tracker
from tailorset.records import LabelSpace
from tailorset.storage.files import write_json
from tailorset.storage.image_set import load_image_set, synthetic_rows
from tailorset.storage.paths import project_root
from tailorset.toybox.oracle import IMAGE_PX, Oracle, load_oracle

WORK = Path(".work/ladder")
METRICS, SETTINGS = "metrics.json", "point.json"


def main(part: str, *rows: str) -> None:
    ladder, root = load_ladder(), project_root()
    points = ladder.points(part)
    check_keys(rows, {point.name: None for point in points}, f"the ladder's part {part}")
    if rows:
        points = [point for point in points if point.name in (FULL, *rows)]
    for name in {point.name for point in points} if rows else [""]:
        shutil.rmtree(root / RESULTS / part / name, ignore_errors=True)  # perhaps of other settings; the store has all
    for retrieving in (point for point in points if "generator" in point.settings):
        draw_pool(
            root / retrieving.settings["generator"]["images"], LabelSpace.load(retrieving.settings["label_space"])
        )
    with ProcessPoolExecutor(ladder.num_workers, get_context("spawn"), one_thread) as pool:
        futures = [pool.submit(run_point, root, ladder.oracle, point) for point in points]
        finished = Bar(as_completed(futures), total=len(futures), desc=f"ladder {part}", unit="point")
        messages = [message for future in finished if (message := future.result())]
    if messages:
        sys.exit(
            "\n".join(
                [f"{count(len(messages), 'point')} failed; the next run continues from finished points.", *messages]
            )
        )


def one_thread() -> None:
    """Small models gain little from a second thread: one process per core is faster."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def run_point(root: Path, oracle: Path | None, point: Point) -> str:
    """Run all stages of a point up to evaluation, then store what the report needs; return the error, if any.

    A point of the factors ends with training: choices are made on val, so nothing looks at the test photos.
    """
    (root / WORK / "locks").mkdir(parents=True, exist_ok=True)
    lock = FileLock(root / WORK / "locks" / f"{point.run_name}.lock")  # a worker that survived a killed ladder
    settings = [read_yaml(root / "params.yaml"), point.settings]  # MLflow takes different settings for a different run
    version = hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:12]
    os.environ |= {"DVC_ROOT": str(root), "DVC_EXP_BASELINE_REV": version}
    with lock, log_to(root / WORK / "logs" / f"{point.run_name}.log"):
        try:
            workspace = Workspace(root, root / WORK / "workspaces" / point.run_name)
            stages = STAGES[: STAGES.index("train_classifier") + 1] if point.part == FACTORS else STAGES
            for stage in stages:
                of_all = stage == "prepare_dataset"  # points share the photos: in MLflow, too, they are a run apart
                os.environ["DVC_EXP_NAME"] = f"ladder-{point.part}-photos" if of_all else point.run_name
                workspace.run(stage, point.settings | ({} if of_all else {"seed": point.seed}))
            truth = kept_truth(workspace, load_oracle(root / oracle)) if oracle else {}
            keep_results(workspace, root, point, truth)
            summarise(workspace, root)
        except (Exception, SystemExit, OutOfTime) as error:  # noqa: BLE001 - one point's fault must not lose the others' hours
            traceback.print_exc()
            return f"{point.run_name}: {error} (log: {WORK / 'logs' / point.run_name}.log)"
    return ""


def kept_truth(workspace: Workspace, oracle: Oracle) -> dict[str, float]:
    """Return the share of kept images that show every label they are kept for, according to the oracle."""
    with working_in(workspace.folder):
        label_space = LabelSpace.load(load_params().label_space)
        images = load_image_set(*synthetic_rows(FILTERED / "manifest.parquet", label_space), SYNTHETIC, IMAGE_PX)
    if not len(images):
        return {}
    present = oracle.sees(images.images.float() / 255, label_space.names) | (images.targets != 1)
    return {"filter/oracle_precision": float(present.all(1).float().mean())}


def keep_results(workspace: Workspace, root: Path, point: Point, truth: dict[str, float]) -> None:
    """Store a point's test scores, their targets, its settings and, last, the metrics of its stages."""
    folder = root / point.folder
    folder.mkdir(parents=True, exist_ok=True)
    if point.part != FACTORS:
        shutil.copy(workspace.folder / "reports/evaluate/scores.parquet", folder)
        test_targets(workspace.folder / "data/real").to_parquet(folder / "targets.parquet", index=False)
    write_json(folder / SETTINGS, point.settings)
    write_json(folder / METRICS, all_metrics(workspace.folder / "reports") | truth)


def test_targets(real: Path) -> pd.DataFrame:
    """Rows of the test photos in a data set's label matrix."""
    manifest = pd.read_parquet(real / "manifest.parquet", columns=["image_id", "split"])
    targets = pd.read_parquet(real / "targets.parquet")
    return targets[targets["image_id"].isin(manifest.loc[manifest["split"] == "test", "image_id"])]


def summarise(workspace: Workspace, root: Path) -> None:
    """Log all params and metrics to the point's parent run, as the pipeline's last stage does."""
    with working_in(workspace.folder), Tracker("ladder", root, {}) as tracker:  # its settings name the parent run
        tracker.summarise(flatten(read_yaml("params.yaml")), all_metrics(workspace.folder / "reports"))
    if not tracker.is_up:
        print(f"{workspace.folder.name} is NOT in MLflow: see its log in {WORK / 'logs'}", file=sys.__stderr__)


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """Redirect the stages' output to the point's own file: several points run at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    logging.getLogger().handlers.clear()  # they write to the log of the previous point
    with path.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def is_measured(point: Point) -> bool:
    """Check that there are results of this point with its present settings.

    Raises:
        ValueError: there are some of other settings.
    """
    if not (point.folder / METRICS).exists():
        return False
    if json.loads((point.folder / SETTINGS).read_text(encoding="utf-8")) != point.settings:
        raise ValueError(f"{point.folder} was measured with other settings than the ladder has now: `make ladder`")
    return True


if __name__ == "__main__":
    main(*sys.argv[1:])
