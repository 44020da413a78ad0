"""Points of a sweep: checks before they are queued, since DVC has no hook for it, and causes of failure."""

from __future__ import annotations

import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from tailorset.commands.doctor import quick
from tailorset.messages import first_line, unknown
from tailorset.project.checks import contradictions
from tailorset.project.layout import PARAMS
from tailorset.project.params import flatten, load_params, read_yaml
from tailorset.records import LabelSpace

FAILED = re.compile(r"^FAILED: (?P<stage>\S+)\n(?P<why>.*?)\n  where: ", re.MULTILINE | re.DOTALL)
ENDED = re.compile(r"^ERROR: (?P<why>.+)$", re.MULTILINE)  # by DVC, before a stage could say why


def point_problems(settings: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each point of `dvc exp run -S KEY=VALUE,VALUE ...` and the fault of its settings, "" if none.

    Raises:
        ValueError: DVC does not understand the settings themselves.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import apply_overrides, get_hydra_sweeps
    from hydra.errors import HydraException

    try:
        points = [point[PARAMS.name] for point in get_hydra_sweeps({PARAMS.name: list(settings)})]
    except (DvcException, HydraException) as error:
        raise ValueError(f"{', '.join(settings)}: write KEY=VALUE or KEY=VALUE,VALUE ({first_line(error)})") from None
    for point in points:
        with tempfile.TemporaryDirectory() as folder:
            changed = shutil.copy(PARAMS, folder)
            try:
                apply_overrides(changed, point)
            except (DvcException, ValueError) as error:
                cause = f": {error.__cause__}" if error.__cause__ else ""
                yield ", ".join(point), _unknown_key(point) or f"{error}{cause}"
            else:
                yield ", ".join(point), _problem(Path(changed))


def _unknown_key(point: Sequence[str]) -> str:
    """Return the fault of the first setting whose key params.yaml lacks; "" if it has all."""
    known = flatten(read_yaml(PARAMS))
    blocks = list(dict.fromkeys(one.partition(".")[0] for one in known))
    for key in (setting.partition("=")[0] for setting in point):
        if key[0] in "+~" or any(one == key or one.startswith(f"{key}.") for one in known):
            continue
        block = key.partition(".")[0]
        choices = [one for one in known if one.startswith(f"{block}.")] or blocks
        fault = unknown("key of params.yaml", key, choices)
        return f"{fault} A key that is off where it is missing takes a +: +{key}=VALUE"
    return ""


def _problem(params_file: Path) -> str:
    try:
        params = load_params(params_file)
        space = LabelSpace.load(params.label_space)
        if problem := next(contradictions(params, space), ""):
            return problem
        return next((one.sentence for one in quick(params, space) if one.status == "error"), "")
    except ValueError as error:
        return str(error).replace(str(params_file), PARAMS.name)


def failed_points() -> Iterator[tuple[str, str]]:
    """Yield each failed experiment in DVC's queue and its cause; `dvc queue remove --failed` removes them."""
    if not Path(".dvc/tmp/exps").is_dir():
        return
    from dvc.repo import Repo

    with Repo() as repo:
        queue = repo.experiments.celery_queue
        for entry, _ in queue.iter_failed():
            name = entry.name or entry.stash_rev[:7]
            yield name, _cause(queue.proc[entry.stash_rev].stdout if entry.stash_rev in queue.proc else "", name)


def _cause(log: str, name: str) -> str:
    text = Path(log).read_text(encoding="utf-8", errors="replace") if log else ""
    if match := FAILED.search(text):
        return f"{match['stage']}: {' '.join(match['why'].split())}"
    ended = ENDED.findall(text)
    return ended[-1] if ended else f"see `dvc queue logs {name}`"
