"""Versions of a model to which labels were added: their measurement, and the files that they share with that model.

Shapes: N images, L labels.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from tailorset.evaluation.metrics import average_precisions
from tailorset.evaluation.results import percent
from tailorset.project.layout import CLASSIFIER, EXAMPLES, FITTED_TO, MEASURED, MODEL_CARD, NOVELTY, THRESHOLDS
from tailorset.records import LabelSpace
from tailorset.registry.examples import write_examples
from tailorset.registry.measurement import Measurement, mean_precisions, measure, or_none, with_val
from tailorset.registry.model_card import markdown_table, section
from tailorset.storage.annotated import Annotated
from tailorset.storage.checksums import bind
from tailorset.storage.files import atomic_output
from tailorset.thresholds.rules import Thresholds


@dataclass(frozen=True)
class Measured:
    """Annotated photos of a split, and scores (N, L) of the version and of raw CLIP."""

    photos: Annotated
    ours: Tensor
    clip: Tensor

    def columns(self, indices: list[int]) -> Measured:
        """Return the same for these labels only."""
        photos = replace(self.photos, targets=self.photos.targets[:, indices])
        return Measured(photos, self.ours[:, indices], self.clip[:, indices])


def measure_grown(val: Measured, test: Measured, label_space: LabelSpace, before: LabelSpace) -> Measurement:
    """Measure a version to which labels were added; before: the label space without them."""
    whole, own = _measure_both(val, test, label_space), before.columns(before.names)
    names = label_space.names[len(own) :]
    precisions = [average_precisions(scores, val.photos.targets)[len(own) :] for scores in (val.ours, val.clip)]
    pairs = zip(*(map(or_none, values.tolist()) for values in precisions), strict=True)
    part = _measure_both(val.columns(own), test.columns(own), before)
    return replace(whole, added=dict(zip(names, map(list, pairs), strict=True)), before=part)


def _measure_both(val: Measured, test: Measured, label_space: LabelSpace) -> Measurement:
    figures = {
        f"{prefix}{key}": value
        for prefix, scores in (("val/", val.ours), ("val/raw_clip/", val.clip))
        for key, value in mean_precisions(average_precisions(scores, val.photos.targets), label_space).items()
    }
    return with_val(measure(test.ours, test.clip, test.photos, label_space), val.photos, label_space, figures)


@dataclass(frozen=True)
class Grown:
    """A version with added labels. base: title of the model that they were added to; figures: of the addition."""

    base: str
    measured: Measurement
    rules: Thresholds
    figures: Mapping[str, float]

    def complete(self, folder: Path, of_base: Path, test: Annotated) -> None:
        """Write what a version has next to its classifier: the files in `of_base`, with what is new."""
        self.rules.save(folder / THRESHOLDS.name)
        self.measured.save(folder / MEASURED.name)
        shutil.copyfile(of_base / NOVELTY.name, folder / NOVELTY.name)
        bind(folder / CLASSIFIER.name, folder / FITTED_TO.name)
        with atomic_output(folder / EXAMPLES.name) as examples:
            if (of_base / EXAMPLES.name).exists():
                shutil.copytree(of_base / EXAMPLES.name, examples, copy_function=shutil.copyfile)
            else:
                write_examples(test, examples)
        card = of_base / MODEL_CARD.name
        text = card.read_text(encoding="utf-8") if card.exists() else f"# {self.base}, with added labels\n"
        (folder / MODEL_CARD.name).write_text(f"{text}\n{self.card_section()}", encoding="utf-8")

    def card_section(self) -> str:
        """Return the model card's section on the added labels."""
        rows = [
            (
                name,
                f"{self.figures[f'added/kept_per_label/{name}']:,.0f}",
                percent(ours),
                percent(clip),
                f"{self.rules.rules[name].threshold:.2f}",
            )
            for name, (ours, clip) in self.measured.added.items()
        ]
        columns = ("label", "generated images", "average precision on val, %", "raw CLIP", "threshold")
        text = (
            f"To {self.base}, with {self.figures['prompts/count']:,.0f} prompts and {self.figures['added/drawn']:,.0f}"
            " images drawn. Only parameters of these labels were learned: the scores of all others, and so the figures"
            " above, are still those of that version. `-`: no val photo shows the label."
        )
        return "\n\n".join(section("Added labels", f"{markdown_table(columns, rows)}\n\n{text}")) + "\n"

    def lines(self) -> list[str]:
        """Return what was made and what was rejected, for the user."""
        figures = self.figures
        refused = sum(value for key, value in figures.items() if key.startswith("prompts/rejected/"))
        causes = [
            f", {key.rpartition('/')[2]}: {value:.0f}"
            for key, value in figures.items()
            if key.startswith("added/rejected/")
        ]
        precisions = [
            f"{label}: average precision on val {percent(ours)} %, raw CLIP {percent(clip)} %."
            for label, (ours, clip) in self.measured.added.items()
        ]
        return [
            f"Prompts: {figures['prompts/count']:.0f}, after {refused:.0f} refused replies.",
            f"Images: {figures['added/drawn']:.0f} drawn, {figures['added/kept']:.0f} kept{''.join(causes)}.",
            *precisions,
            f"Other labels: no score changed by more than {figures['added/largest_change']:.1e}, on val and test.",
        ]
