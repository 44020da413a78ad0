"""Use that the licences of models and photos allow: of the generated set, of the classifier, and in a run at all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from tailorset.llms.parts.served import ServedModel
from tailorset.project.known_models import (
    NOT_STATED,
    Licence,
    data_set_licence,
    family_licence,
    licence,
    licence_named,
)
from tailorset.project.params import Params, named_models
from tailorset.storage.hub import LOCAL, NamedModel, cached_commit

BACKBONE = "train_classifier."  # models below it are within the classifier's weights
PHOTOS, COMPARED = "prepare_dataset", "score_baselines.clip"
LENT, LEARNED, POOL = "generate_images.from_photos", "tune_unet", "generator.images"
OWN = "folder"  # the data set of the user's own photos
NAMES = {  # for people, by the key in params.yaml
    "clip.discriminator": "discriminator",
    "clip.judge": "judge",
    "generator": "image generator",
    "generator.few_step": "few-step LoRA of the generator",
    "write_prompts.llm": "language model",
    "write_prompts.captions.captioner": "captioner",
    "write_prompts.captions.captioner.clip": "CLIP of the captioner",
    LENT: "photos that images start from",
    LEARNED: "photos that the image generator learns from",
    POOL: "images to choose from",
    COMPARED: "CLIP to compare with",
    PHOTOS: "photos",
}
ONLY_MEASURE = ("clip.judge", COMPARED)
NO_ADVICE = "As far as tailorset knows these licences; it is not legal advice."
ANSWERS = {True: "yes", False: "no", None: "depends"}


class LicensedPart(NamedTuple):
    """A model or the data set that a run uses; `key` is its place in params.yaml."""

    key: str
    title: str
    revision: str
    licence: Licence

    @property
    def role(self) -> str:
        """Return its use in words."""
        within = f"{self.key.removeprefix(BACKBONE)}, within the classifier's weights"
        return NAMES.get(self.key, within if self.key.startswith(BACKBONE) else self.key)

    @property
    def stated(self) -> tuple[str, str]:
        """Return licence and commercial use in words, as cards show them."""
        return "; ".join(filter(None, [self.licence.title, self.licence.terms])), ANSWERS[self.licence.commercial]


class Allowance(NamedTuple):
    """Use of a product that the licences of its parts allow.

    commercial: None if it depends. because: the parts for which it is not simply allowed. terms: what to mind.
    """

    product: str
    commercial: bool | None
    because: tuple[str, ...]
    terms: tuple[str, ...]

    @property
    def answer(self) -> str:
        """Return the use in words."""
        words = {True: "is allowed", False: "is not allowed, because of ", None: "depends on "}[self.commercial]
        return "; ".join([f"commercial use {words}{', '.join(self.because)}", *self.terms])

    def __str__(self) -> str:
        return f"{self.product}: {self.answer}"


def parts_of(params: Params, ask_hub: bool = False) -> list[LicensedPart]:
    """Return all models and the data set that a run uses.

    ask_hub: read the licence of models that are not on this machine from the hub, if downloads are allowed.
    """
    parts = [_part(key, model, ask_hub) for key, model in named_models(params)]
    llm = params.write_prompts.llm.config
    if isinstance(llm, ServedModel):
        known = licence_named(family_licence(llm.model.rpartition("/")[2]))
        parts.append(LicensedPart("write_prompts.llm", llm.model, NOT_STATED, known))
    return [*parts, *_photos(params)]


def _photos(params: Params) -> Iterator[LicensedPart]:
    """Yield the real images of a run: annotated ones, and those that images start from, learn from or are."""
    photos, lent = params.prepare_dataset.name, params.prepare_dataset.lend_photos
    yield LicensedPart(PHOTOS, photos, "", data_set_licence(photos))
    if params.generate_images.from_photos:
        title, source = (lent.name, OWN) if isinstance(lent, Path) else (photos, photos)
        yield LicensedPart(LENT, title, "", data_set_licence(source))
    if params.tune_unet.num_updates:
        yield LicensedPart(LEARNED, photos, "", data_set_licence(photos))
    if images := getattr(params.generator.config, "images", None):
        yield LicensedPart(POOL, images.name, "", data_set_licence(OWN))


def on_cards(parts: Iterable[LicensedPart]) -> list[LicensedPart]:
    """Return the parts without a model that the classifier is only compared with."""
    return [part for part in parts if part.key != COMPARED]


def of_classifier(parts: Iterable[LicensedPart]) -> list[LicensedPart]:
    """Return the parts that the classifier is made with: all but those that only measure."""
    return [part for part in parts if part.key not in ONLY_MEASURE]


def of_generated_set(parts: Iterable[LicensedPart]) -> list[LicensedPart]:
    """Return the parts that generated images are made with: those of the classifier but its backbone and photos."""
    return [part for part in of_classifier(parts) if part.key != PHOTOS and not part.key.startswith(BACKBONE)]


def allowances(parts: Sequence[LicensedPart]) -> list[Allowance]:
    """Return the use that is allowed of the generated set, and of the classifier."""
    made = {"generated set": of_generated_set(parts), "classifier": of_classifier(parts)}
    return [_allowance(product, used) for product, used in made.items()]


def uses(parts: Sequence[LicensedPart]) -> dict[str, str]:
    """Return each product with the use of it that is allowed, in words."""
    return {f"use of the {allowance.product}": allowance.answer for allowance in allowances(parts)}


def forbidden(parts: Iterable[LicensedPart]) -> Iterator[str]:
    """Yield the parts that may not be used commercially, those that only measure included."""
    for part in parts:
        if part.licence.commercial is False:
            yield f"{part.key}: {part.title} may not be used commercially ({part.licence.title})"


def _allowance(product: str, parts: Iterable[LicensedPart]) -> Allowance:
    answers = {part: part.licence.commercial for part in parts}
    worst = False if False in answers.values() else None if None in answers.values() else True
    because = [f"{part.role} {part.title} ({part.licence.title})" for part, one in answers.items() if one is worst]
    terms = [f"{part.licence.title}: {part.licence.terms}" for part in answers if part.licence.terms]
    return Allowance(product, worst, () if worst else tuple(because), tuple(dict.fromkeys(terms)))


def _part(key: str, model: NamedModel, ask_hub: bool) -> LicensedPart:
    return LicensedPart(key, model.title.removeprefix(LOCAL), _revision(model), licence(model, ask_hub))


def _revision(model: NamedModel) -> str:
    """Return the version of a model as it is on this machine; nothing is guessed."""
    if model.folder:
        return "local folder"
    if model.revision:
        return f"{model.revision} (pinned)"
    commit = model.repository and cached_commit(model.repository, None)
    return f"{commit} (the latest)" if commit else NOT_STATED
