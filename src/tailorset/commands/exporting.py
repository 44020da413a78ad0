"""Export of the data set of this project: its products, and the description of their origin."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import pandas as pd
from torch import Tensor

from tailorset.commands.formats import format_named
from tailorset.evaluation.results import OURS
from tailorset.exports.parts.croissant import Activity, Agent, Description
from tailorset.exports.parts.run import WrittenSummary, check_target, partial_folder, run_export
from tailorset.exports.parts.source import ExportSource, PhotoScores
from tailorset.messages import count
from tailorset.project.layout import FILTERED, LORA, REAL, REVIEW, SCORES, SYNTHETIC, THRESHOLDS, UNET_LORA
from tailorset.project.licences import LEARNED, NO_ADVICE, PHOTOS, LicensedPart, allowances, of_generated_set, parts_of
from tailorset.project.limits import clear_when_full, exclusive_run
from tailorset.project.params import Params
from tailorset.records import LabelSpace
from tailorset.records.verdicts import COPY, RELABELLED, STRUCK, ImageVerdict, current_verdicts, read_verdicts
from tailorset.storage.checksums import digest, file_digest
from tailorset.thresholds.rules import Thresholds

LOCKS = Path(".work/exports")
METHOD = "Diverse and Tailored Image Generation for Zero-shot Multi-label Classification (arXiv 2404.03144)"


class Export(NamedTuple):
    """An export that is asked for.

    photos, scores: whether photos, and scores of the test photos, are exported. val_share, test_share: of the prompts.
    url, published: where and when it will be published, if that is known.
    """

    format: str
    output: Path
    photos: bool = False
    scores: bool = False
    val_share: float = 0.0
    test_share: float = 0.0
    url: str = ""
    published: str = ""


def export_data(export: Export, params: Params, space: LabelSpace) -> WrittenSummary:
    """Export the filtered set of this project.

    Raises:
        ValueError: the format is unknown, the target exists, or products are missing.
        OSError: it cannot be written.
    """
    form = format_named(export.format)
    check_target(export.output)
    _check_day(export.published)
    if export.scores and not export.photos:
        raise ValueError("--scores are those of the test photos: add --photos")
    source = ExportSource(
        labels=space.names,
        unseen=space.unseen,
        may_show=space.may_show,
        label_digest=file_digest(Path(params.label_space)),
        synthetic=SYNTHETIC,
        filtered=FILTERED,
        real=REAL if export.photos else None,
        scores=_photo_scores(space) if export.scores else None,
        val_share=export.val_share,
        test_share=export.test_share,
    )
    _check_review(space)
    lock = LOCKS / hashlib.sha256(str(export.output.resolve()).encode()).hexdigest()[:16]
    title = f"export to {export.output}"
    with clear_when_full(f"{title}, so far in {partial_folder(export.output)}"), exclusive_run(title, lock):
        return run_export(export.format, form, source, export.output, describe(export, params, space, source))


def _check_review(space: LabelSpace) -> None:
    """Check that the filter has applied the verdicts of `tailorset review`, and no others."""
    stored = read_verdicts(REVIEW) if REVIEW.exists() else {}
    columns = ["image_id", "sha256", "kept", "labels", "reason", "reviewed"]
    rows = pd.read_parquet(FILTERED / "manifest.parquet", columns=columns).set_index("image_id")
    verdicts, _ = current_verdicts(stored, rows["sha256"].to_dict(), space.unseen, REVIEW)
    withdrawn = set(rows.index[rows["reviewed"].map(len) > 0]) - verdicts.keys()
    waiting = sum(not _is_applied(verdict, rows.loc[image_id]) for image_id, verdict in verdicts.items())
    if waiting := waiting + len(withdrawn):
        verb = "waits" if waiting == 1 else "wait"
        raise ValueError(f"{count(waiting, 'verdict')} of {REVIEW} {verb} to be applied: `make run`, then export")


def _is_applied(verdict: ImageVerdict, row: pd.Series) -> bool:
    decided = set(row["labels"] if row["kept"] else ()) == set(verdict.labels)
    return len(row["reviewed"]) > 0 and (decided or row["reason"] == COPY)


def _check_day(text: str) -> None:
    try:
        if text and date.fromisoformat(text).isoformat() != text:
            raise ValueError
    except ValueError:
        raise ValueError(f"--published {text} is not a day: write it as 2026-12-31") from None


def _photo_scores(space: LabelSpace) -> PhotoScores:
    """Return the classifier's scores, as probabilities and decisions of the fitted thresholds."""
    fitted = Thresholds.load(THRESHOLDS)
    fitted.check_labels(space.names)

    def decide(scores: Tensor) -> tuple[Tensor, Tensor]:
        decisions = fitted.apply(scores)
        return decisions.probabilities, decisions.present

    return PhotoScores(SCORES, OURS.method, decide, THRESHOLDS)


def describe(export: Export, params: Params, space: LabelSpace, source: ExportSource) -> Description:
    """Return the origin, licences and limits of the set, without time or place."""
    parts = parts_of(params)
    by_key = {part.key: part for part in parts}
    shown = of_generated_set(parts) + ([by_key[PHOTOS]] if export.photos else [])
    usage = [str(allowances(parts)[0]), *(f"{part.role} {part.title}: {_licence(part)}" for part in shown), NO_ADVICE]
    photos = ", and annotated photos" if export.photos else ""
    return Description(
        name=f"tailorset-{space.name}",
        text=(
            f"Images generated for {len(space.unseen)} labels that nobody annotated{photos}: {len(space.names)} labels"
            f" of {space.name}. Made by tailorset, in the format {export.format}."
        ),
        version="1.0.0",
        licences=list(dict.fromkeys(part.licence.title for part in shown)),
        usage=usage,
        activities=list(_activities(export, params, by_key, source)),
        rai=_rai(export, params, space),
        cite_as=f"Method: {METHOD}",
        url=export.url,
        published=export.published,
    )


def _licence(part: LicensedPart) -> str:
    licence, commercial = part.stated
    return f"{licence}; commercial use: {commercial}"


def _agent(parts: dict[str, LicensedPart], key: str, fallback: str, **details: object) -> Agent:
    """Return the model of a key of params.yaml, or a program in its place."""
    part = parts.get(key)
    if part is None:
        return Agent(key, fallback, details)
    stated = {"version": part.revision, "licence": part.licence.title}
    return Agent(part.role, part.title, {key: value for key, value in stated.items() if value} | details)


def _activities(
    export: Export, params: Params, parts: dict[str, LicensedPart], source: ExportSource
) -> Iterator[Activity]:
    """Yield the steps that made the set, first one first."""
    llm, generator, clip = params.write_prompts.llm, params.generator, params.clip
    writer = _agent(parts, "write_prompts.llm", llm.name)
    asked = {"prompts per pair of labels": params.write_prompts.prompts_per_pair, "seed": params.seed}
    yield Activity("write prompts", asked, [writer])
    if params.tune_unet.num_updates:
        learned = _agent(parts, LEARNED, params.prepare_dataset.name)
        yield Activity("tune the UNet", params.tune_unet.model_dump(mode="json"), [learned])
    if params.tune_text_encoder.num_updates:
        teacher = _agent(parts, "clip.discriminator", clip.discriminator.title)
        yield Activity("tune the text encoder", params.tune_text_encoder.model_dump(mode="json"), [teacher])
    adapters = {folder.as_posix(): digest(folder) for folder in (UNET_LORA, LORA) if folder.is_dir()}
    drawing = generator.config.model_dump(mode="json", exclude={"model"})
    drawing = {key: value for key, value in drawing.items() if not isinstance(value, dict)}
    steps = {"num_inference_steps": params.generate_images.num_inference_steps, "base seed": params.seed}
    candidates = SYNTHETIC / "manifest.parquet"
    made = {candidates.as_posix(): file_digest(candidates)}
    yield Activity("generate images", drawing | steps, [_agent(parts, "generator", generator.name)], adapters | made)
    rule = params.filter_images.config.model_dump(mode="json")
    judges = [
        _agent(parts, "clip.discriminator", clip.discriminator.title),
        _agent(parts, "clip.judge", clip.judge.title, part="measures only"),
    ]
    yield Activity("filter images", {"rule": params.filter_images.name, **rule}, judges)
    shares = {"format": export.format, "val_share": export.val_share, "test_share": export.test_share}
    used = {path.as_posix(): file_digest(path) for path in source.tables}
    yield Activity("export", shares, [Agent("program", "tailorset", {"version": version("tailorset")})], used)


def _review() -> str:
    """Return what people changed in `tailorset review`, as the filter applied it."""
    rows = pd.read_parquet(FILTERED / "manifest.parquet", columns=["reason", "reviewed"])
    struck, relabelled = (int((rows["reason"] == reason).sum()) for reason in (STRUCK, RELABELLED))
    if not (reviewed := int((rows["reviewed"].map(len) > 0).sum())):
        return "no person has corrected them"
    return (
        f"a person reviewed {reviewed:,} of the candidates, struck out {struck:,} and relabelled {relabelled:,} of them"
    )


def _rai(export: Export, params: Params, space: LabelSpace) -> dict[str, str | list[str]]:
    """Return what the vocabulary for responsible use asks for."""
    clip, retrieved = params.clip, params.generator.config.retrieves_photos
    learned = bool(params.tune_unet.num_updates)
    shows_photos = export.photos or retrieved or learned or params.generate_images.from_photos is not None
    model = "a diffusion model that learned from annotated photos" if learned else "a diffusion model"
    made = "real ones that a CLIP found by" if retrieved else f"drawn by {model} from"
    annotation = [
        f"Generated images carry the unseen labels ({len(space.unseen)}) that the filter {params.filter_images.name}"
        f" kept, by the scores of {clip.discriminator.title}; {_review()}."
    ]
    if export.photos:
        annotation.append(
            "Photos: train is annotated for seen labels, val and test for all, as their data set"
            f" ({params.prepare_dataset.name}) has it."
        )
    return {
        "dataCollection": f"Images are {made} prompts that a language model wrote.",
        "dataCollectionType": ["Synthetic"] * (not retrieved) + ["Photos"] * (retrieved or export.photos),
        "dataAnnotationProtocol": annotation,
        "machineAnnotationTools": [clip.discriminator.title, clip.judge.title],
        "dataBiases": [
            "What the generator draws wrongly or always alike is wrong or alike in the images.",
            "Images that the discriminator cannot recognise are missing.",
        ],
        "dataLimitations": [
            "Labels that are not listed as present or absent are not annotated: they may be shown.",
            "Figures measured on generated images do not hold for photos.",
        ],
        "dataUseCases": ["Training multi-label image classifiers.", "Not for decisions about people."],
        "personalSensitiveInformation": ["Photos may show people."] if shows_photos else ["None is asked for."],
    }
