"""Model card of a classifier: labels, data, measured figures, limits, licences, how to load it.

Shapes: N images, L labels.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor

from tailorset.evaluation.bootstrap import (
    Interval,
    Resamples,
    average_precision_replicates,
    draw_resamples,
    estimate,
    f1_at_k,
    figure_in_percent,
    interval_or_value,
    whole_set,
)
from tailorset.evaluation.results import CLIP, OURS, MethodRow, percent
from tailorset.evaluation.selection import is_untrained, training_notes
from tailorset.messages import count
from tailorset.project.licences import NO_ADVICE, LicensedPart, allowances, on_cards, parts_of
from tailorset.project.params import Params
from tailorset.records import SPLITS, LabelSpace
from tailorset.storage.image_set import is_annotated
from tailorset.thresholds.rules import Thresholds

TITLES = {CLIP: CLIP.title, OURS: "this classifier"}


@dataclass(frozen=True)
class Figures:
    """maps, f1: by "ZSL" and "GZSL", with 95 % intervals over the test photos; of one training.

    precisions: each label's average precision, None if no photo shows it. A figure has no bounds if a resample held no
    photo that shows its labels.
    """

    maps: dict[str, Interval | float]
    f1: dict[str, Interval]
    precisions: dict[str, Interval | float | None]


@dataclass(frozen=True)
class CardFacts:
    """metrics: of all stages. figures: of raw CLIP and of the classifier; None if nothing was measured."""

    params: Params
    label_space: LabelSpace
    thresholds: Thresholds
    metrics: Mapping[str, float]
    figures: Mapping[MethodRow, Figures | None]
    num_test: int


def gather(
    params: Params,
    label_space: LabelSpace,
    thresholds: Thresholds,
    metrics: Mapping[str, float],
    scores: Mapping[MethodRow, Tensor],
    targets: Tensor,
) -> CardFacts:
    """Measure the scores of each row, (N, L), and put all facts of the card together. targets: (N, L)."""
    k = params.evaluate.top_k[0]
    resamples = draw_resamples(1, len(targets), params.data_card.num_resamples, params.seed)
    figures = {row: measure_figures(matrix, targets, label_space, resamples, k) for row, matrix in scores.items()}
    return CardFacts(params, label_space, thresholds, metrics, figures, len(targets))


def measure_figures(
    scores: Tensor, targets: Tensor, label_space: LabelSpace, resamples: Resamples, k: int
) -> Figures | None:
    """Measure scores (N, L) by targets (N, L) in {1, 0, -1}, with F1 at k; None if no photo is annotated."""
    if not is_annotated(targets):
        return None
    everything = whole_set(1, len(targets))
    values = average_precision_replicates(scores[None], targets, everything)[0]
    replicates = average_precision_replicates(scores[None], targets, resamples)
    maps, f1 = {}, {}
    for setting, names in (("ZSL", label_space.unseen), ("GZSL", label_space.names)):
        columns = label_space.columns(names)
        maps[setting] = interval_or_value(float(values[columns].nanmean()), replicates[:, columns].nanmean(1))
        chosen = (scores[None, :, columns], targets[:, columns])
        f1[setting] = estimate(partial(f1_at_k, k=k), *chosen, resamples).interval()
    labels = zip(label_space.names, values.tolist(), replicates.T, strict=True)
    return Figures(maps, f1, {name: _precision(value, row) for name, value, row in labels})


def model_card(facts: CardFacts) -> str:
    """Return the card in Markdown; the same facts give the same card."""
    space, name = facts.label_space, facts.params.model_name
    parts = parts_of(facts.params, ask_hub=True)
    sections = [
        f"# {name}: labels of {space.name} in photos",
        f"A multi-label image classifier for {len(space.names)} labels. Nobody annotated {len(space.unseen)} of"
        f" them: {_origin(facts.metrics)}.",
        *(f"**{note}**" for note in training_notes(facts.metrics)),
        *section("Labels", _labels(facts)),
        *section("Measured", _measured(facts)),
        *section("Data", _data(facts, parts)),
        *section("Limits", _limits(facts)),
        *section("Licences", _licences(parts)),
        *section("How to load it", _loading(name)),
    ]
    return "\n\n".join(sections) + "\n"


def _origin(metrics: Mapping[str, float]) -> str:
    """Tell what the labels that nobody annotated were learned from."""
    if is_untrained(metrics):
        return "they are CLIP's zero-shot, as all others, because training on generated images did not help"
    return "it learned these from generated images, by the method of arXiv 2404.03144 as tailorset implements it"


def section(title: str, text: str) -> tuple[str, str]:
    return f"## {title}", text


def _labels(facts: CardFacts) -> str:
    figures = facts.figures[OURS]
    rows = []
    for name in facts.label_space.names:
        rule = facts.thresholds.rules[name]
        learned = "annotated photos" if name in facts.label_space.seen else "generated images"
        learned = "nothing: zero-shot" if is_untrained(facts.metrics) else learned
        precision = figures.precisions[name] if figures else None
        band = f"{rule.abstain_low:.2f} to {rule.abstain_high:.2f}"
        rows.append((name, learned, figure_in_percent(precision), f"{rule.threshold:.2f}", band))
    columns = ("label", "learned from", "average precision, %", "threshold", "left open between")
    return (
        markdown_table(columns, rows)
        + "\n\nThe last two columns are calibrated probabilities, which thresholds.json makes of scores."
    )


def _measured(facts: CardFacts) -> str:
    measured = {TITLES[row]: one for row, one in facts.figures.items() if one}
    if not measured:
        return "Nothing: no test photo is annotated."
    k = facts.params.evaluate.top_k[0]
    rows = [
        (title, *map(figure_in_percent, (one.maps["ZSL"], one.f1["ZSL"], one.maps["GZSL"], one.f1["GZSL"])))
        for title, one in measured.items()
    ]
    table = markdown_table(("test split, %", "ZSL mAP", f"ZSL F1@{k}", "GZSL mAP", f"GZSL F1@{k}"), rows)
    values = {key: facts.metrics[f"trust/fitted/zsl/{key}"] for key in ("ece", "f1_macro", "coverage")}
    risk = facts.metrics.get("trust/fitted/zsl/answered/risk")  # absent if nothing is answered
    wrong = "" if risk is None else f", and {percent(risk)} % of these are wrong"
    return (
        f"On {facts.num_test:,} test photos. ZSL: the labels nobody annotated; GZSL: all labels together."
        " In brackets 95 % bootstrap intervals over the photos; they do not"
        " tell how much another training would differ.\n\n"
        f"{table}\n\n"
        f"Decisions on labels nobody annotated: macro F1 {percent(values['f1_macro'])} % where everything is answered;"
        f" {percent(values['coverage'])} % are answered where doubtful ones are left open{wrong}."
        f" Expected calibration error {values['ece']:.3f}."
    )


def _data(facts: CardFacts, parts: Sequence[LicensedPart]) -> str:
    metrics, params = facts.metrics, facts.params
    generator = _title(parts, "generator", params.generator.name)
    llm = _title(parts, "write_prompts.llm", params.write_prompts.llm.name)
    splits = {split: metrics.get(f"real/{split}/num_images", 0) for split in SPLITS}
    real = ", ".join(f"{split} {number:,.0f}" for split, number in splits.items())
    lines = [
        f"- Photos: data set `{params.prepare_dataset.name}`, {real}. Labels learned from photos are"
        " annotated in train, all labels in val and test if at all. Val chooses the epoch, test chooses nothing.",
        f"- Generated images: {metrics['generate/images']:,.0f} drawn by `{generator}`,"
        f" {metrics['filter/kept']:,.0f} kept by the filter `{params.filter_images.name}`.",
        *_negatives(params),
        f"- Prompts: {metrics['prompts/count']:,.0f}, by `{llm}`.",
    ]
    return "\n".join(lines)


def _negatives(params: Params) -> list[str]:
    """Return the line about images of seen labels, if it was trained on any."""
    number = params.generate_images.negative_images
    if not number or "synthetic" not in params.train_classifier.config.train_on:
        return []
    return [f"- Negatives: {number:,} more images of labels learned from photos, to tell the other labels from these."]


def _limits(facts: CardFacts) -> str:
    lines = [
        "- It knows the labels above and no others; of a photo that shows none it still gives scores.",
        "- `novelty` above 1: a photo is unlike those of training. Below 1 says little.",
        "- Figures hold for photos like those of the test split. On others measure again before you rely on it.",
        "- What the generator draws wrongly or always alike, labels nobody annotated learn wrongly or narrowly:"
        " see reports/card/index.html.",
        "- Their calibration assumes that photos are like those of val, and how frequent the labels are:"
        f" `fit_thresholds.source: {facts.params.fit_thresholds.source}`, see docs/decisions/thresholds.md.",
        "- Not for decisions about people, and not where a missed object is dangerous.",
    ]
    missed = facts.metrics.get("generate/under_quota", 0)
    if missed:
        short = count(int(missed), "label")
        lines.insert(2, f"- {short} nobody annotated did not reach their quota of generated images.")
    return "\n".join(lines)


def _licences(parts: Sequence[LicensedPart]) -> str:
    shown = on_cards(parts)
    rows = [("this classifier's code", "tailorset", "Apache-2.0", "yes")]
    rows += [(part.role, part.title, *part.stated) for part in shown]
    allowed = "\n".join(f"- {allowance}." for allowance in allowances(shown))
    return f"{markdown_table(('part', 'name', 'licence', 'commercial use'), rows)}\n\n{allowed}\n\n{NO_ADVICE}"


def _title(parts: Sequence[LicensedPart], key: str, plugin: str) -> str:
    """Return the model that params.yaml names under a key, else the plug-in's name."""
    return next((part.title for part in parts if part.key == key), plugin)


def _loading(name: str) -> str:
    return f"""```python
import mlflow, pandas as pd

model = mlflow.pyfunc.load_model("models:/{name}@champion")
# per image novelty; per label probability, decision, threshold and raw score
model.predict(pd.DataFrame({{"image": [open("photo.jpg", "rb").read()]}}))
```

`tailorset predict PATH` scores files, folders and shards; `tailorset export` writes ONNX. The weights are safetensors;
nothing is unpickled."""


def markdown_table(columns: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    columns = list(columns)
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, ["---"] * len(columns), *rows))


def _precision(value: float, replicates: Tensor) -> Interval | float | None:
    if math.isnan(value):  # no photo shows it
        return None
    return interval_or_value(value, replicates)
