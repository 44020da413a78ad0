"""Labels to add to a trained classifier: what is asked for, and checks before anything that takes long."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tailorset.commands.doctor import quick
from tailorset.messages import problems, some
from tailorset.project.checks import contradictions
from tailorset.project.layout import ADDED_DATA, FILTERED, LORA, NOVELTY, REAL, SYNTHETIC, THRESHOLDS, UNET_LORA
from tailorset.project.params import Params
from tailorset.records import FILTERED_COLUMNS, Label, LabelSpace, Record
from tailorset.records.names import safe_file_name
from tailorset.storage.products import missing, table_fault

NEEDED = (
    UNET_LORA,
    LORA,
    SYNTHETIC / "manifest.parquet",
    FILTERED / "manifest.parquet",
    REAL / "manifest.parquet",
    REAL / "targets.parquet",
)
NOTES = "added.json"  # in the folder of an addition: its labels, those drawn next to them, label file and model


class Addition(Record):
    """Labels to add, and the model that learns them.

    aliases: wordings for prompts, apart_from: labels that are never drawn together with it; both for a single label.
    """

    names: tuple[str, ...]
    model: str
    aliases: tuple[str, ...] = ()
    apart_from: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """Name of the addition's folders."""
        return safe_file_name("-and-".join(self.names))

    def label_space(self, base: LabelSpace) -> LabelSpace:
        """Return the labels of the model and the added ones.

        Raises:
            ValueError: a name or alias cannot be used, or is that of another label.
        """
        if repeated := [name for name, count in Counter(self.names).items() if count > 1]:
            raise ValueError(f"{', '.join(repeated)} is named more than once: name each label once")
        for label in base.labels:
            if label.name in self.names:
                learned = "annotated photos" if label.seen else "generated images"
                raise ValueError(
                    f"{self.model} has the label {label.name!r} already, learned from {learned}: add one that it lacks"
                    f" (it has {some(base.names, len(base.names))}), or `make run` to learn all labels again"
                )
        if len(self.names) > 1 and (self.aliases or self.apart_from):
            raise ValueError(f"--alias and --apart-from are for one label, not {len(self.names)}: add one at a time")
        try:
            labels = [Label(name=name, seen=False, aliases=self.aliases) for name in self.names]
        except ValidationError as error:
            raise ValueError("\n".join(problems(error))) from None
        return base.grown(labels, [(name, other) for name in self.names for other in self.apart_from])


def checked_space(addition: Addition, params: Params, classifier: Path, variant: str, base: LabelSpace) -> LabelSpace:
    """Return the label space with the added labels, if they can be added here and now.

    classifier: folder of the model's classifier, with its other files next to it. variant, base: plug-in and labels.

    Raises:
        ValueError: names the first thing that is wrong, with its remedy.
    """
    space, known = addition.label_space(base), LabelSpace.load(params.label_space)
    if problem := next(_problems(addition, params, classifier, variant, base, known), None):
        raise ValueError(problem)
    if problem := next(contradictions(params, space), None):
        raise ValueError(problem)
    if errors := [one.sentence for one in quick(params, known) if one.status == "error"]:
        raise ValueError("\n".join(errors))
    return space


def _problems(
    addition: Addition, params: Params, classifier: Path, variant: str, base: LabelSpace, known: LabelSpace
) -> Iterator[str]:
    if lacking := [name for name in known.names if name not in {*base.names, *addition.names}]:
        yield (
            f"{addition.model} is not of the labels of {known.name} in params.yaml: it lacks {some(lacking)}. Name its"
            " label file there (`tailorset use`), or another --model"
        )
    if variant != params.train_classifier.name:
        yield (
            f"{addition.model} is a {variant}, and train_classifier.name is {params.train_classifier.name}: name"
            f" {variant} there, with the settings that it was trained with"
        )
    elif not hasattr(params.train_classifier.plugin, "extend"):
        yield f"a {variant} learns all labels together: put the labels into the label file, and `make run`"
    if lacking := [str(path) for path in NEEDED if not path.exists()]:
        yield missing(lacking)
    yield from _outdated(base)
    others = [classifier.parent / path.name for path in (THRESHOLDS, NOVELTY)]
    if lacking := [path.name for path in others if not path.exists()]:
        yield f"{addition.model} has no {', '.join(lacking)}: `make run` makes a version that has"


def _outdated(base: LabelSpace) -> Iterator[str]:
    """Yield the faults of the images that are examples for an added label."""
    if fault := table_fault(FILTERED / "manifest.parquet", FILTERED_COLUMNS):
        yield f"{fault}: `make run` makes it again"
    for folder in earlier_folders(base):
        if fault := table_fault(folder / "filtered" / "manifest.parquet", FILTERED_COLUMNS):
            yield (
                f"{fault}: restore it (`dvc checkout`), or put its labels into the label file, `make run`, `tailorset"
                f" promote`, and remove {folder} and {folder}.dvc"
            )


def earlier_folders(base: LabelSpace) -> list[Path]:
    """Return the folders data/added/* of labels that a model has: their images are negatives of an added label."""
    notes = {path.parent: _notes(path) for path in ADDED_DATA.glob(f"*/{NOTES}")}
    drawn = {folder: {*note["labels"], *note.get("next_to", ())} for folder, note in notes.items()}
    return sorted(folder for folder, names in drawn.items() if names <= set(base.names))


def folder_name(addition: Addition, label_file: Path) -> str:
    """Return the name of an addition's folders, which differs if those of another label file have the usual one."""
    path = ADDED_DATA / addition.title / NOTES
    owner = _notes(path).get("label_file") if path.exists() else None
    is_free = owner in (None, str(label_file))
    return addition.title if is_free else f"{addition.title}-of-{safe_file_name(label_file.stem)}"


def _notes(path: Path) -> dict[str, Any]:
    notes: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return notes
