"""The table known_models.yaml: published models that left the hub, are gated or come as pickles, and their licences."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from tailorset.messages import Strict
from tailorset.storage.hub import LOCAL, NamedModel

TABLE = Path(__file__).with_name("known_models.yaml")
OWN_MODELS = Path("models/foundation/toybox")
NOT_STATED = "not stated"
PICKLES_REMEDY = (
    "pickles (.bin, .pt) are never read: name a model or a revision with safetensors (the hub's converter offers some"
    " as revision refs/pr/1), or convert a copy that you trust: load it with use_safetensors=False and call"
    " save_pretrained, then name that folder"
)
VARIANTS_REMEDY = (
    "variants such as *.fp16.safetensors are not read: load a copy with variant='fp16' (or what its files say) and call"
    " save_pretrained, then name that folder"
)
HUB_PAGE = "https://huggingface.co"


class Departure(Strict):
    """A repository that left the hub; successor: a repository of the same weights, if one is known."""

    since: str
    successor: str | None


class Licence(Strict):
    """title: usual name. commercial: use that it allows; None if that depends or is not known. terms: what to mind."""

    title: str
    commercial: bool | None
    terms: str = ""


class KnownModels(Strict):
    """The table; `families` has the licence's short name first, then patterns of names."""

    left: dict[str, Departure]
    gated: tuple[str, ...]
    pickles: tuple[str, ...]
    families: dict[str, tuple[str, ...]]
    licences: dict[str, Licence]
    data_sets: dict[str, Licence]


class Obstacle(NamedTuple):
    """Reason why a repository cannot be downloaded and read, and the remedy."""

    problem: str
    remedy: str


UNKNOWN = Licence(title="not known to tailorset: look it up where it came from", commercial=None)
OWN = Licence(title="Apache-2.0, part of tailorset", commercial=True)


@cache
def known_models() -> KnownModels:
    """Return the table."""
    return KnownModels.model_validate(yaml.safe_load(TABLE.read_text(encoding="utf-8")))


def departure(repository: str) -> str:
    """Return a note on a repository that left the hub, with its successor; "" if it is not known to have left."""
    gone = {name.casefold(): one for name, one in known_models().left.items()}.get(repository.casefold())
    if gone is None:
        return ""
    instead = f"name {gone.successor}, the same weights" if gone.successor else "no mirror is known, name another model"
    return f"it left the hub in {gone.since}: {instead}"


def obstacle(repository: str) -> Obstacle | None:
    """Return the obstacle that the table has for a repository; None if there is none."""
    if gone := departure(repository):
        return Obstacle("the hub has no such model", gone)
    if _matches(repository, known_models().gated):
        return gate(f"{HUB_PAGE}/{repository}")
    if _matches(repository, known_models().pickles):
        return no_safetensors("*.safetensors")
    return None


def gate(page: str) -> Obstacle:
    """Return the obstacle of a repository that asks for consent on its page."""
    return Obstacle(
        "the hub gives it only to those who accepted its licence",
        f"accept it at {page} and set HF_TOKEN (and HF_HUB_OFFLINE=0 to download it)",
    )


def no_safetensors(missing: str, remedy: str = PICKLES_REMEDY) -> Obstacle:
    """Return the obstacle of a repository without the files that are read."""
    return Obstacle(f"its repository holds no {missing}", remedy)


def licence(model: NamedModel, ask_hub: bool = False) -> Licence:
    """Return the licence that the model's own README.md states, else its family's; UNKNOWN without either.

    ask_hub: a README.md that is not on this machine is fetched, if downloads are allowed.
    """
    if model.folder and model.folder.is_relative_to(OWN_MODELS):
        return OWN
    stated, family = stated_licence(model, ask_hub), family_licence(*_names(model))
    return licence_named(family if stated == NOT_STATED or family.startswith(f"{stated}+") else stated)


def stated_licence(model: NamedModel, ask_hub: bool = False) -> str:
    """Return the short name of a licence in the metadata of the model's own README.md, or "not stated"."""
    from huggingface_hub import ModelCard, hf_hub_download

    try:
        if model.folder:
            readme = model.folder / "README.md"
        else:
            repository, revision = model.repository or "", model.revision
            readme = Path(hf_hub_download(repository, "README.md", revision=revision, local_files_only=not ask_hub))
        data = ModelCard.load(readme).data
    except (OSError, ValueError, yaml.YAMLError):
        return NOT_STATED
    stated = data.license_name or data.license
    return NOT_STATED if stated in (None, "other", "unknown") else str(stated)


def family_licence(*names: str) -> str:
    """Return the short name of the licence of all models of one of these names, whoever owns them."""
    families = known_models().families.items()
    return next((known for name in names for known, family in families if _matches(name, family)), NOT_STATED)


def licence_named(name: str) -> Licence:
    """Return the licence of a short name; one that the table lacks keeps its name, and its use is not certain."""
    if name == NOT_STATED:
        return UNKNOWN
    known = known_models().licences.items()
    return next((one for pattern, one in known if _matches(name, [pattern])), Licence(title=name, commercial=None))


def data_set_licence(name: str) -> Licence:
    """Return the licence of a data set's photos by its name in params.yaml."""
    return known_models().data_sets.get(name, UNKNOWN)


def _names(model: NamedModel) -> Iterator[str]:
    """Yield the names by which a family may be known: repository, folder, or the one in the path of the hub's cache."""
    if model.repository:
        yield model.repository.rpartition("/")[2]
    else:
        yield Path(model.model.removeprefix(LOCAL)).name
    for part in reversed(model.folder.parts if model.folder else ()):
        if part.startswith("models--"):
            yield part.rpartition("--")[2]


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)
