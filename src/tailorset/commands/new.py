"""Files for the user's own labels and photos: a label file, a preset, and a table for annotations."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path

import yaml
from pydantic import ValidationError

from tailorset.datasets.folder import Config, build
from tailorset.datasets.reading.annotations import FOLDERS, annotation_table, check_column_names
from tailorset.datasets.reading.photo_set import drawn
from tailorset.messages import count, problems, some
from tailorset.project.presets import FOLDER, load_preset
from tailorset.records import MIN_UNSEEN, LabelSpace
from tailorset.records.names import safe_file_name
from tailorset.storage.photo_files import Found, find_photos

BASE = "folder"  # the preset that a new one differs from
REHEARSAL = "toybox"  # the preset that a rehearsal differs from
MARK = "# Your own labels and photos, written by `tailorset new`"
LABELS = Path("data/labels")
NUM_TO_ANNOTATE = 200  # fewer make intervals too wide to choose anything by
REHEARSED_IMAGES = 20  # per label

Settings = dict[str, dict[str, object]]  # by block of params.yaml


def split_names(text: str) -> list[str]:
    """`a, b , c` -> [a, b, c]."""
    return [name for part in text.split(",") if (name := part.strip())]


def label_space(name: str, unseen: Sequence[str], seen: Sequence[str]) -> LabelSpace:
    """Return the labels, checked as a label file is.

    Raises:
        ValueError: a name is not a label name, is there twice, or there are too few unseen labels.
    """
    labels = [{"name": label, "seen": label in seen} for label in (*unseen, *seen)]
    try:
        space = LabelSpace.model_validate({"name": name, "labels": labels})
    except ValidationError as error:
        raise ValueError("\n".join(problems(error))) from error
    check_column_names(space)
    if len(space.unseen) < MIN_UNSEEN:
        raise ValueError(
            f"--labels names {len(space.unseen)}: name at least {MIN_UNSEEN}, as each is compared with the rest"
        )
    return space


def label_file(space: LabelSpace) -> str:
    """The text of a label file."""
    lines = [
        "# seen: photos are annotated for it; otherwise its training images are generated. aliases: wordings for",
        "# prompts, e.g. {name: mug, seen: false, aliases: [coffee mug]}. confusable: pairs never drawn together.",
        f"name: {_flow(space.name)}",
        "labels:",
        *(f"  - {_flow({'name': label.name, 'seen': label.seen})}" for label in space.labels),
        "confusable: []",
    ]
    return "\n".join(lines) + "\n"


def preset_file(base: str, about: str, labels: Path, settings: Settings) -> str:
    """The text of a preset that differs from another one in its label file and a few keys of its blocks."""
    lines = [f"{MARK}: what differs from presets/{base}.yaml.", f"# {about}", f"base: {base}"]
    lines.append(f"label_space: {_flow(str(labels))}")
    for block, values in settings.items():
        lines += ["", f"{block}:", *(f"  {key}: {_flow(value)}" for key, value in values.items())]
    return "\n".join(lines) + "\n"


def empty_table(photos: Iterable[str], space: LabelSpace) -> str:
    """Return CSV text with a row for each of up to 200 photos and an empty column for each label."""
    chosen = drawn({name: name for name in photos}, NUM_TO_ANNOTATE, "annotate")
    return annotation_table({name: {} for name in chosen}, space.names)


def held_out_prompts(space: LabelSpace) -> int:
    """Return as many as the base has, but at most a fifth of all prompts, as few labels have few."""
    preset = load_preset(BASE)
    written = preset.write_prompts.num_prompts(space)
    return min(preset.tune_text_encoder.held_out_prompts, max(1, written // 5))


def rehearsal(space: LabelSpace, settings: Settings) -> Settings:
    """Return settings to run every stage, small, with the toybox's models, which know none of the labels.

    Prompts come from a template, and every image is kept, whatever it shows.
    """
    smaller: Settings = {
        "prepare_dataset": {"name": BASE, "val_share": 0.2, "test_share": 0.3, "image_px": 64, "shard_size": 1000},
        "write_prompts": {"prompts_per_pair": 4, "llm": {"name": "template"}},
        "tune_unet": {"num_updates": 2 if space.seen else 0},
        "tune_text_encoder": {"num_updates": 4, "held_out_prompts": 4, "evaluate_every": 2},
        "generate_images": {
            "images_per_label": REHEARSED_IMAGES,
            "max_images": REHEARSED_IMAGES * len(space.unseen),
            "negative_images": 0,
            "quota_threshold": 0,
            "num_inference_steps": 5,
        },
        "filter_images": {"threshold": 0},
        "validate_data": {"min_images_per_label": 1},
        "train_classifier": {"num_epochs": 2, "held_out_share": 0.3},
        "data_card": {"num_resamples": 100},
    }
    return {block: settings.get(block, {}) | smaller.get(block, {}) for block in smaller | settings}


def start(
    name: str,
    unseen: Sequence[str],
    seen: Sequence[str],
    images: Path,
    annotations: str,
    force: bool,
    rehearse: bool = False,
) -> list[str]:
    """Write label file, preset and, without annotations, a table to fill in; return lines for the user.

    rehearse: also write a preset that runs every stage on a CPU, with the toybox's models.

    Raises:
        ValueError: labels, photos or annotations are not usable, or a file is there already.
    """
    space = label_space(name, unseen, seen)
    stem = safe_file_name(name)
    table, preset, labels = LABELS / f"{stem}.csv", FOLDER / f"{stem}.yaml", LABELS / f"{stem}.yaml"
    trial = FOLDER / f"{stem}_rehearsal.yaml"
    _refuse_others_files([preset, trial] if rehearse else [preset], labels)
    if images.resolve() == Path.cwd():
        raise ValueError("--images is this project's own folder: name the folder of your photos")
    found = find_photos(images, "--images")
    settings: Settings = {
        "prepare_dataset": {"images": str(images), "annotations": annotations or str(table)},
        "tune_text_encoder": {"held_out_prompts": held_out_prompts(space)},
    }
    if not seen:
        settings |= {"train_classifier": {"train_on": ["synthetic"]}, "fit_thresholds": {"source": "synthetic"}}
    about = f"Command: tailorset use {stem}, then HF_HUB_OFFLINE=0 make run."
    files = {labels: label_file(space), preset: preset_file(BASE, about, labels, settings)}
    if rehearse:
        about = f"A rehearsal: images and scores mean nothing. Command: tailorset use {trial.stem}, then make run."
        files[trial] = preset_file(REHEARSAL, about, labels, rehearsal(space, settings))
    if there := [str(path) for path in files if path.exists() and not force]:
        raise ValueError(f"{', '.join(there)} would be overwritten: choose another name, or add --force")
    if not annotations and not table.exists():  # never over somebody's work
        files[table] = empty_table(found.photos, space)
    told = _found(images, annotations, space) if annotations else _to_annotate(found, table)
    if table not in files and not annotations and (columns := _columns(table)) != list(space.names):
        told.append(f"Kept:    {table}, which has the columns {some(columns)}: rename it to have a new one written")
    for path, text in files.items():
        path.write_text(text, encoding="utf-8")
    told.append(f"Written: {', '.join(map(str, files))}")
    if stem != name:
        told.append(f"Name:    files and the registered model are called {stem}, as {name!r} is no safe file name")
    if not rehearse:
        return [*told, f"Next:    tailorset use {stem}"]
    return [
        *told,
        f"Next:    tailorset use {trial.stem}, then make run: every stage in minutes on a CPU, its scores mean nothing",
        f"Then:    tailorset use {stem}: real models",
    ]


def _refuse_others_files(presets: Sequence[Path], labels: Path) -> None:
    """Check that only files that `tailorset new` wrote would be overwritten.

    Raises:
        ValueError: there is a preset, or a label file without a preset, that something else wrote.
    """
    there = [preset for preset in presets if preset.exists()]
    others = [preset for preset in there if not preset.read_text(encoding="utf-8").startswith(MARK)]
    if not there and labels.exists():
        others = [labels]
    if others:
        raise ValueError(f"{others[0]} was not written by `tailorset new`: choose another name, or remove the file")


def _found(images: Path, annotations: str, space: LabelSpace) -> list[str]:
    config = Config(images=images, annotations=FOLDERS if annotations == FOLDERS else Path(annotations))
    return [f"Found:   {note}" for note in build(config, space, seed=0).notes]


def _columns(table: Path) -> list[str]:
    """Columns of an annotation table without the first, which names the images."""
    with table.open(encoding="utf-8-sig", newline="") as file:
        return next(csv.reader(file), [])[1:]


def _to_annotate(found: Found, table: Path) -> list[str]:
    others = f", {count(len(found.others), 'other file')}: {some(found.others)}" if found.others else ""
    return [
        f"Found:   {count(len(found.photos), 'photo')}{others}",
        *([f"         {found.unread_note()}"] if found.unread else []),
        f"Missing: what they show. Fill in {table}: 1 where a photo shows the label, 0 where it does not",
        "         (`tailorset annotate` is a page for it);",
        "         at least fifty rows are needed to tell a good classifier from a bad one. Without any, set",
        "         prepare_dataset.annotations to null: nothing is measured then, but labels are learned.",
    ]


def _flow(value: object) -> str:
    """Write a value as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, allow_unicode=True, sort_keys=False, width=math.inf)
    return text.removesuffix("\n...\n").strip()
