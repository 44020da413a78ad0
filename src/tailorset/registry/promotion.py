"""Moves of the alias `champion`: forward to a version that passes the gate, and back to the one before it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mlflow.entities.model_registry import ModelVersion
from rich.table import Table

from tailorset.evaluation.metrics import average_precisions
from tailorset.evaluation.results import percent
from tailorset.inference.predictor import load_predictor
from tailorset.inference.versions import (
    CHALLENGER,
    CHAMPION,
    TRAINING,
    download,
    find_version,
    request_problem,
    uri_of,
)
from tailorset.messages import count, some
from tailorset.project.layout import FILTERED, MEASURED, REAL, SYNTHETIC
from tailorset.project.tracking import registry
from tailorset.project.versions import ADDED, difference_from_here
from tailorset.records import LabelSpace
from tailorset.registry.gate import ModelComparison, compare
from tailorset.registry.measurement import Measurement, mean_precisions, measure, photos_hash
from tailorset.storage.annotated import Collection

REPLACED, FORCED, ROLLED_BACK = "champion.replaced", "champion.forced", "champion.rolled_back"  # tags of a version
NUM_SHOWN = 20  # labels on a line


@dataclass(frozen=True)
class Assessment:
    """A challenger, the champion that it would replace, and all objections."""

    challenger: ModelVersion
    champion: ModelVersion | None
    comparison: ModelComparison
    objections: tuple[str, ...]

    def table(self) -> Table:
        """Return the mAPs of the challenger and of what it must match, in percent."""
        other = self.comparison.other
        if self.champion and other == "champion":
            other += f", version {self.champion.version}"
        table = Table("%", title=f"models:/{self.challenger.name}: judged on val, test is reported")
        for column in (f"version {self.challenger.version}", other, "points"):
            table.add_column(column, justify="right")
        for split, changes in (("val", self.comparison.changes), ("test", self.comparison.reported)):
            for change in changes:
                figures = (percent(change.challenger, 2), percent(change.other, 2), f"{change.points:+.2f}")
                table.add_row(f"{split}, {change.name}", *figures)
        return table

    def lines(self) -> Iterator[str]:
        """Yield notes and objections."""
        lost = self.comparison.regressions
        if lost:
            worst = some([f"{change.name} {change.points:+.1f}" for change in lost], NUM_SHOWN)
            yield f"{count(len(lost), 'label')} lost precision on test, in points: {worst}"
        for key in ("dvc.experiment", "git.dirty", TRAINING):
            if (value := self.challenger.tags.get(key, "false")) != "false":
                yield f"Note: {key} = {value}"
        yield from self.comparison.notes
        yield from (f"Against it: {objection}" for objection in self.objections)


def assess(
    name: str, label_space: LabelSpace, margin: float, version: str = "", measure_again: bool = False
) -> Assessment:
    """Compare a version (usually the challenger) with the champion, and let it answer a request.

    margin: points of mAP that it may lose. measure_again: measure the champion on the photos in data/real.

    Raises:
        ValueError: no registry or version, the version is the champion or has other labels than the label space, or
            one was not measured.
    """
    challenger = find_version(f"models:/{name}/{version}" if version else f"models:/{name}@{CHALLENGER}")
    champion = _champion(name)
    if champion and champion.version == challenger.version:
        raise ValueError(f"{uri_of(champion)} is the champion already: `make run` registers another challenger")
    ours = _measured(challenger)
    if other := label_difference(ours.average_precision, {*label_space.names, *ours.added}):
        raise ValueError(f"{uri_of(challenger)} is not of the labels of {label_space.name}: {other}")
    theirs, others = None, []
    if not version and (difference := difference_from_here(registry(Path.cwd()), challenger)):
        others.append(difference)
    try:
        theirs = champion and (_measure(champion) if measure_again else _measured(champion))
    except ValueError as error:
        others.append(str(error))
    comparison = compare(ours, theirs, margin)
    rolled_back, problem = challenger.tags.get(ROLLED_BACK), request_problem(challenger)
    others += [f"it was the champion and was rolled back: {rolled_back}"] if rolled_back else []
    others += [problem] if problem else []
    return Assessment(challenger, champion, comparison, (*comparison.objections, *others))


def promote(assessment: Assessment, reason: str = "") -> None:
    """Make the challenger the champion; its tags name the version it replaces and why it was forced, if it was.

    Raises:
        ValueError: there are objections, and no reason is given to promote it nevertheless.
    """
    if assessment.objections and not reason:
        raise ValueError("; ".join(assessment.objections))
    challenger, champion, client = assessment.challenger, assessment.champion, registry(Path.cwd())
    tags = {
        REPLACED: champion.version if champion else "",
        FORCED: reason if assessment.objections else "",
        ROLLED_BACK: "",
    }
    for key, value in tags.items():
        client.set_model_version_tag(challenger.name, challenger.version, key, str(value))
    client.set_registered_model_alias(challenger.name, CHAMPION, challenger.version)  # last: what servers look at


def rollback(name: str, reason: str) -> tuple[ModelVersion, ModelVersion]:
    """Make the version that the champion replaced the champion again, back to the first if repeated; return (from, to).

    A version that was itself rolled back is skipped for the one that it had replaced.

    Raises:
        ValueError: there is no champion, it replaced none, that one was deleted or is known to have other labels, or
            the reason is blank.
    """
    champion = find_version(f"models:/{name}@{CHAMPION}")
    if not reason.strip():
        raise ValueError("say why: the reason is kept with the version that is given up")
    previous, client = _before(champion), registry(Path.cwd())
    if other := _other_labels(previous, champion):
        raise ValueError(f"{uri_of(previous)}, the champion before, has other labels than {uri_of(champion)}: {other}")
    client.set_model_version_tag(name, champion.version, ROLLED_BACK, reason)
    client.set_registered_model_alias(name, CHAMPION, previous.version)
    return champion, previous


def check_labels(uri: str, label_space: LabelSpace) -> None:
    """Compare a registered version's labels with those of params.yaml; older ones have no measurement to check.

    Raises:
        ValueError: no such version, or it has other labels.
    """
    version = find_version(uri)
    try:
        measured = _measured(version)
    except ValueError:
        return
    if other := label_difference(measured.average_precision, {*label_space.names, *measured.added}):
        raise ValueError(
            f"{uri}, version {version.version}, is not of the labels of {label_space.name} in params.yaml: {other}."
            f" `--model {uri}` takes it all the same"
        )


def label_difference(labels: Iterable[str], others: Iterable[str]) -> str:
    """Return the labels of one side only, as text; "" if there are none."""
    mine, theirs = sorted(set(labels) - set(others)), sorted(set(others) - set(labels))
    sides = [f"it alone has {some(mine)}" if mine else "", f"it lacks {some(theirs)}" if theirs else ""]
    return " and ".join(filter(None, sides))


def _other_labels(previous: ModelVersion, champion: ModelVersion) -> str:
    """Return how the labels of two versions differ, but for added ones; "" too if one was never measured or is damaged.

    A champion whose files are damaged is what a rollback is for; servers compare the labels themselves.
    """
    try:
        labels, theirs = set(_measured(previous).average_precision), _measured(champion)
    except ValueError:
        return ""
    return "" if labels == theirs.labels_before else label_difference(labels, theirs.average_precision)


def _before(champion: ModelVersion) -> ModelVersion:
    version, met = champion, {champion.version}
    while before := version.tags.get(REPLACED):
        version = find_version(f"models:/{champion.name}/{before}")
        if version.version in met:
            break
        if not version.tags.get(ROLLED_BACK):
            return version
        met.add(version.version)
    raise ValueError(f"{uri_of(champion)} replaced no version that is still good: there is nothing to roll back to")


def _champion(name: str) -> ModelVersion | None:
    aliases = registry(Path.cwd()).get_registered_model(name).aliases
    return find_version(f"models:/{name}@{CHAMPION}") if CHAMPION in aliases else None


def _measured(version: ModelVersion) -> Measurement:
    """Read what its registration stored."""
    with tempfile.TemporaryDirectory() as folder:
        try:
            return Measurement.load(download(version, Path(folder), f"artifacts/{MEASURED.name}"))
        except ValueError:
            remedy = "register it again; a champion is measured by `tailorset promote --measure`"
            raise ValueError(f"{uri_of(version)} does not say what was measured of it: {remedy}") from None


def _measure(version: ModelVersion) -> Measurement:
    """Measure it on the val and test photos that are here now.

    Raises:
        ValueError: these have no targets of labels that were added to it.
    """
    if added := version.tags.get(ADDED):
        raise ValueError(
            f"{uri_of(version)} has {added} added, of which data/real has no targets: put the labels into the label"
            " file and `make run`"
        )
    predictor = load_predictor(uri_of(version))
    space, image_px = predictor.label_space, predictor.classifier.image_px
    collection = Collection(space, REAL, SYNTHETIC, FILTERED)
    val, test = collection.photos("val"), collection.photos("test")
    on_val, on_test = (predictor.scores(photos.load(image_px).images) for photos in (val, test))
    val_maps = mean_precisions(average_precisions(on_val, val.targets), space)
    val_set = photos_hash(val, space.names)
    return replace(measure(on_test, None, test, space), val_set=val_set, val_maps=val_maps)
