"""Run every point of one world of the ladder: `python pipeline/ladder/measure.py WORLD`."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import sys
import traceback
from collections.abc import Iterator
from functools import partial
from multiprocessing import get_context
from pathlib import Path

import pandas as pd
from points import RESULTS, Point, load_ladder
from tqdm import tqdm
from workspace import STAGES, Workspace, working_in

from tailorset.image_set import load_image_set, synthetic_rows
from tailorset.params import flatten, load_params
from tailorset.records import LabelSpace
from tailorset.stage import FILTERED, SYNTHETIC, all_metrics, project_root, write_json
from tailorset.toybox.oracle import IMAGE_PX, Oracle, load_oracle
from tailorset.tracking import Tracker

WORK = Path(".work/ladder")
METRICS = "metrics.json"
SHOWN_ABOVE = 0.5  # the oracle's probability


def main(world: str) -> None:
    ladder = load_ladder()
    if world not in ladder.worlds:
        raise ValueError(f"world {world!r} is not in the ladder: choose from {list(ladder.worlds)}")
    root = project_root()
    first, *others = ladder.points(world)
    run_one = partial(run_point, root, ladder.oracle)
    failed = [run_one(first)]  # sets up the photographs and the tracking database that all others share
    keep_targets(root, first)
    with get_context("spawn").Pool(ladder.num_workers, initializer=one_thread) as pool:
        outcomes = pool.imap_unordered(run_one, others)
        failed += list(tqdm(outcomes, total=len(others), desc=f"ladder {world}", unit="point"))
    if messages := [message for message in failed if message]:
        sys.exit("\n".join([f"{len(messages)} points failed; the next run goes on from what is finished.", *messages]))


def one_thread() -> None:
    """Small models gain little from a second thread: a process a core is faster."""
    import torch

    if not torch.cuda.is_available():
        torch.set_num_threads(1)


def run_point(root: Path, oracle: Path | None, point: Point) -> str:
    """All stages of a point up to evaluation, then what the report needs; returns what went wrong, if anything did."""
    os.environ |= {"DVC_ROOT": str(root), "DVC_EXP_NAME": point.run_name}
    with log_to(root / WORK / "logs" / f"{point.run_name}.log"):
        try:
            workspace = Workspace(root, root / WORK / "workspaces" / point.run_name)
            for stage in STAGES:
                seed = {} if stage == "prepare_dataset" else {"seed": point.seed}
                workspace.run(stage, point.settings | seed)
            truth = kept_truth(workspace, load_oracle(root / oracle)) if oracle else {}
            keep_results(workspace, root / point.folder, truth)
            summarise(workspace, root)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - one point's fault must not lose the others' hours
            traceback.print_exc()
            return f"{point.run_name}: {error} (log: {WORK / 'logs' / point.run_name}.log)"
    return ""


def kept_truth(workspace: Workspace, oracle: Oracle) -> dict[str, float]:
    """Share of the kept images that, to the oracle, show every label they are kept for."""
    with working_in(workspace.folder):
        label_space = LabelSpace.load(load_params().label_space)
        images = load_image_set(*synthetic_rows(FILTERED / "manifest.parquet", label_space), SYNTHETIC, IMAGE_PX)
    if not len(images):
        return {}
    shown = oracle.shown(images.images.float() / 255)[:, [oracle.labels.index(name) for name in label_space.names]]
    present = (shown > SHOWN_ABOVE) | (images.targets != 1)
    return {"filter/oracle_precision": float(present.all(1).float().mean())}


def keep_results(workspace: Workspace, folder: Path, truth: dict[str, float]) -> None:
    """Test scores of the point and the metrics of all its stages."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(workspace.folder / "reports/evaluate/scores.parquet", folder)
    write_json(folder / METRICS, all_metrics(workspace.folder / "reports") | truth)


def keep_targets(root: Path, point: Point) -> None:
    """The test photographs' truth, the same for all points of a world."""
    real = root / WORK / "workspaces" / point.run_name / "data/real"
    manifest = pd.read_parquet(real / "manifest.parquet", columns=["image_id", "split"])
    targets = pd.read_parquet(real / "targets.parquet")
    test = manifest.loc[manifest["split"] == "test", "image_id"]
    targets[targets["image_id"].isin(test)].to_parquet(root / RESULTS / point.world / "targets.parquet", index=False)


def summarise(workspace: Workspace, root: Path) -> None:
    """All params and metrics to the point's parent run, as the pipeline's last stage does."""
    params = load_params(workspace.folder / "params.yaml")
    with Tracker("ladder", root, {}) as tracker:
        tracker.summarise(flatten(params.model_dump(mode="json")), all_metrics(workspace.folder / "reports"))


@contextlib.contextmanager
def log_to(path: Path) -> Iterator[None]:
    """What the stages print goes to a file of the point's own: several write at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8") as log, contextlib.redirect_stdout(log), contextlib.redirect_stderr(log):
        yield


def read_metrics(point: Point) -> dict[str, float]:
    return json.loads((point.folder / METRICS).read_text(encoding="utf-8"))


if __name__ == "__main__":
    main(sys.argv[1])
