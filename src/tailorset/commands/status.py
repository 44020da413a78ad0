"""State of a project: what was measured, what is out of date, what is registered."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rich.table import Table

from tailorset.evaluation.results import ACCEPTANCE, columns, percent, shown_rows
from tailorset.evaluation.selection import training_notes
from tailorset.messages import count
from tailorset.project.layout import REPORTS
from tailorset.project.params import Params, named_models, read_yaml
from tailorset.project.running import running_stages
from tailorset.storage.files import read_metrics

LOCKED = ("Unable to acquire lock", "it is being blocked by")  # by DVC, between stages and while one starts


def stored_metrics(stage: str = "") -> dict[str, float]:
    """Return the figures that a stage left in reports/, or those of the whole run; {} if there are none.

    Raises:
        ValueError: the file is damaged.
    """
    return read_metrics(REPORTS / stage / "metrics.json")


def notes_on_training(metrics: dict[str, float]) -> list[str]:
    """Return sentences on where training did not help. metrics: of evaluate.

    Raises:
        ValueError: the file that train_classifier left is damaged.
    """
    return training_notes(stored_metrics("train_classifier") | metrics)


def results_table(metrics: dict[str, float]) -> Table:
    """Return one row per method and one column per measure, in percent."""
    table = Table("test split, %", title="Labels nobody annotated (ZSL), and together with the annotated ones (GZSL)")
    for column in columns(metrics):
        table.add_column(column, justify="right")
    for row in shown_rows(metrics):
        table.add_row(*row)
    return table


def acceptance_table(metrics: dict[str, float]) -> Table | None:
    """Share of generated images accepted before and after the text encoder was tuned; None if it was not."""
    if not any(key.startswith(ACCEPTANCE) for key in metrics):
        return None
    table = Table("images accepted, %", title="Tuning the text encoder (the judge never steers it)")
    for column in ("before", "after"):
        table.add_column(column, justify="right")
    for clip in ("discriminator", "judge"):
        table.add_row(clip, *(percent(metrics.get(f"{ACCEPTANCE}{when}/{clip}")) for when in ("before", "after")))
    return table


def quota_line() -> str:
    metrics = stored_metrics("generate_images")
    if "generate/under_quota" not in metrics:
        return "Quota: nothing was generated yet."
    short = int(metrics["generate/under_quota"])
    missed = f"NOT reached by {count(short, 'unseen label')} (see {REPORTS}/generate_images/plots/)"
    reached = missed if short else "reached by every unseen label"
    return f"Quota of kept images: {reached}, {count(int(metrics['generate/images']), 'image')} drawn."


def results_line(label_file: Path) -> str:
    if other := other_label_file(label_file):
        return f"none yet of {label_file} (those in {REPORTS}/ are of {other}): make run"
    metrics = stored_metrics()
    if not metrics:
        return "none yet: make run"
    if "zsl/map" not in metrics:
        return "none, as no test photo is annotated"
    return ", ".join(f"{column} {percent(metrics.get(key))} %" for column, key in columns(metrics).items())


def other_label_file(label_file: Path) -> str:
    """Label file of the figures in reports/, where dvc.lock records another one than that of params.yaml."""
    known = Path(_evaluated().get("params", {}).get("params.yaml", {}).get("label_space", label_file))
    return "" if known == label_file else str(known)


def was_edited(label_file: Path) -> bool:
    """Check if the label file has changed since the figures in reports/ were measured."""
    sums = {Path(dep["path"]): dep.get("md5") for dep in _evaluated().get("deps", ())}
    now = hashlib.md5(label_file.read_bytes(), usedforsecurity=False).hexdigest()
    return bool(sums.get(label_file, now) != now)


def _evaluated() -> dict[str, Any]:
    """Record of the last evaluation in dvc.lock."""
    lock = Path("dvc.lock")
    return read_yaml(lock).get("stages", {}).get("evaluate", {}) if lock.exists() else {}


def weights_line(params: Params) -> str:
    """Return whether the local models exist; `tailorset doctor` examines all models."""
    folders = [model.folder for _, model in named_models(params) if model.folder]
    missing = [str(folder) for folder in folders if not any(folder.glob("*"))]
    if missing:
        return f"MISSING: {', '.join(missing)}: `tailorset doctor` has the remedy"
    others = len(list(named_models(params))) - len(folders)
    return f"{len(folders)} local models present" + (f", {others} others: tailorset doctor" if others else "")


def stages_line() -> str:
    """Return a line on the stages that are running, or else on those that are out of date."""
    if running := running_stages(Path.cwd()):
        return "running: " + "; ".join(running)
    command = [sys.executable, "-m", "dvc", "status", "--json", "dvc.yaml"]
    answer = subprocess.run(command, capture_output=True, text=True, check=False)
    if answer.returncode and any(words in answer.stderr for words in LOCKED):
        return "running: the next stage is about to start; ask again in some seconds"
    if answer.returncode:
        return f"unknown: {(answer.stderr.strip().splitlines() or ['dvc status failed'])[0]}"
    stale: dict[str, list[Any]] = json.loads(answer.stdout)
    measured = {"score_baselines", "evaluate"} & set(stale) and (REPORTS / "metrics.json").exists()
    results = "; results are of earlier settings" if measured and _is_edited(stale) else ""
    return f"to run (make run): {', '.join(stale)}{results}" if stale else "all up to date"


def _is_edited(stale: dict[str, list[Any]]) -> bool:
    """Tell whether something changed that a stage depends on; a product that is not here yet is no change."""
    changes = [change for changes in stale.values() for change in changes if isinstance(change, dict)]
    states = [state for change in changes for state in change.get("changed deps", {}).values()]
    return any(state not in ("deleted", "not in cache") for state in states)


def registry_line(model: str, label_file: Path | None = None) -> str:
    """Versions of champion and challenger, and a note if the challenger is not the one in models/."""
    from mlflow.exceptions import MlflowException

    from tailorset.project.tracking import registry
    from tailorset.project.tracking_store import UnreachableError
    from tailorset.project.versions import ADDED, REGISTER, content_here, difference_from_here, earlier_champion

    is_trained = content_here() and not (label_file and other_label_file(label_file))
    remedy = f"no models:/{model}@challenger; register one: {REGISTER if is_trained else 'make run'}"
    try:
        client = registry(Path.cwd())
        aliases = client.get_registered_model(model).aliases
    except UnreachableError as error:
        return str(error)
    except ValueError:
        return remedy
    except MlflowException as error:
        reason = "" if error.error_code == "RESOURCE_DOES_NOT_EXIST" else f"the registry answers {error.error_code}"
        return "; ".join(filter(None, [reason, remedy, earlier_champion(client, model)]))
    lines = []
    for alias, number in sorted(aliases.items()):
        version = client.get_model_version(model, number)
        made = f"made from commit {version.tags.get('git.commit', 'unknown')[:8]}"
        if experiment := version.tags.get("dvc.experiment"):
            made += f" by the experiment {experiment}"
        if added := version.tags.get(ADDED):
            made += f", with {added} added"
        lines.append(f"models:/{model}@{alias} is version {number}, {made}")
        if alias == "challenger" and (difference := difference_from_here(client, version)):
            lines.append(f"NOT the challenger: {difference}")
    return "; ".join(lines) or remedy
