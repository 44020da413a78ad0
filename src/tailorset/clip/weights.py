"""The weights of an open_clip model: found by name, fetched, and refused if they do not fit the model of that name."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import safe_open
from torch import Tensor, nn

from tailorset.messages import first_line
from tailorset.storage import checksums
from tailorset.storage.hub import HUB, LOCAL

WEIGHTS, CONFIG = "open_clip_model.safetensors", "open_clip_config.json"
TOKENIZER_FILES = ("*token*", "vocab*", "merges.txt", "*.model")
POSITIONS = ("positional_embedding", "pos_embed")
COMMON = ("RN50", "ViT-B-16", "ViT-L-14")  # of open_clip's names
QUICK = "-quickgelu"  # ends the names under which open_clip builds the activation of OpenAI's CLIP
SAFETENSORS_REMEDY = "name a model that has safetensors, e.g. ViT-B-16 with pretrained: datacomp_xl_s13b_b90k"
CLIP_WEIGHTS_REMEDY = f"{checksums.RESTORE} or name another model in params.yaml"


def check_positions(model: nn.Module, path: Path) -> None:
    """Refuse weights made for another image size or context length, whose positions open_clip silently interpolates."""
    built = model.state_dict()
    with safe_open(path, framework="np") as file:
        for name in file.keys():  # noqa: SIM118 - it cannot be iterated
            shape = tuple(file.get_slice(name).get_shape())
            if name.endswith(POSITIONS) and name in built and shape != tuple(built[name].shape):
                remedy = "" if name.startswith("visual") else f": write context_length {shape[0]} into its {CONFIG}"
                other = tuple(built[name].shape)
                raise ValueError(f"{name} is {shape} in {path.name}, and {other} in the model{remedy}")


def check_sha256(found: str, expected: str, title: str) -> None:
    """Refuse weights other than those for which thresholds were chosen.

    Raises:
        ValueError: names both, what depends on them, and the remedy.
    """
    if found != expected:
        raise ValueError(
            f"CLIP {title!r}: its weights have sha256 {found}, and params.yaml expects {expected}. Thresholds there"
            " (filter_images, generate_images.quota_threshold) were chosen for those weights: restore them, or choose"
            f" the thresholds again and write sha256: {found}"
        )


def check_tokenizer(model: nn.Module, tokenizer: Callable[[list[str]], Tensor]) -> None:
    """Refuse a tokenizer that cannot pad, or whose texts do not fit the model's text tower.

    Raises:
        ValueError: names the fault and the remedy.
    """
    part: Any = getattr(model, "text", model)
    if not hasattr(part, "token_embedding"):
        return  # a text tower of transformers, which brings its own tokenizer
    try:
        tokens = tokenizer(["a photo of a cat"])
    except ValueError as error:
        raise ValueError(
            f"its tokenizer does not pad texts: name its pad_token in tokenizer_config.json ({first_line(error)})"
        ) from error
    vocabulary, length = part.token_embedding.num_embeddings, int(part.context_length)
    if tokens.shape[1] != length:
        raise ValueError(
            f"its tokenizer makes {tokens.shape[1]} tokens of a text, and its text tower reads {length}: correct"
            f" context_length in {CONFIG}"
        )
    if int(tokens.max()) >= vocabulary:
        raise ValueError(
            f"its tokenizer writes token {int(tokens.max())}, and its text tower has only {vocabulary}: put the model's"
            " own tokenizer next to its weights"
        )


def source(model: str, pretrained: str | None, revision: str | None) -> tuple[Path, str, dict[str, Any]]:
    """Return the file of weights, and the name and options with which open_clip reads it.

    Weights that are missing, where open_clip only warns, or that would be unpickled are refused.
    """
    path, name, options = _located(model, pretrained, revision)
    if model.startswith(LOCAL):
        checksums.check(path.parent, CLIP_WEIGHTS_REMEDY)
    if not path.is_file():
        raise ValueError(f"CLIP weights: {path} is missing; {CLIP_WEIGHTS_REMEDY}")
    if path.suffix != ".safetensors":
        raise ValueError(f"CLIP weights: {path} is a pickle, which is never read; {SAFETENSORS_REMEDY}")
    return path, name, options


def _located(model: str, pretrained: str | None, revision: str | None) -> tuple[Path, str, dict[str, Any]]:
    """Return the file, name and options of `source`, unchecked; from a hub the file is fetched first.

    open_clip has no revisions: a pinned repository is read as the folder of that commit, pinned weights of a tag as
    a file with the tag's preprocessing.
    """
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model
    from open_clip.pretrained import download_pretrained, download_pretrained_from_hf

    if model.startswith(LOCAL):
        return Path(model.removeprefix(LOCAL), WEIGHTS), model, {"pretrained": pretrained}
    if model.startswith(HUB):
        repository = model.removeprefix(HUB)
        if revision:
            path = _fetched(model, lambda: _fetch_commit(repository, revision))
            return path, f"{LOCAL}{path.parent}", {}
        path = _fetched(model, lambda: download_pretrained_from_hf(repository))
        return path, model, {"pretrained": pretrained}
    if problem := name_problem(model, pretrained):
        raise ValueError(problem)
    if pretrained not in list_pretrained_tags_by_model(model):
        preprocessing = next(iter(_preprocessings(model)), None)
        return Path(pretrained or ""), model, {"pretrained": pretrained, "force_preprocess_cfg": preprocessing}
    config = get_pretrained_cfg(model, pretrained)
    if revision:
        repository, file = hub_file(model, pretrained)
        path = _fetched(model, lambda: download_pretrained_from_hf(repository, file or None, revision))
        return path, model, {"pretrained": str(path), "force_preprocess_cfg": config}
    return _fetched(model, lambda: download_pretrained(config)), model, {"pretrained": pretrained}


def name_problem(model: str, pretrained: str | None) -> str:
    """Return the fault of a name of open_clip's and the tag of its weights, "" if there is none.

    A tag whose weights were trained with another activation than the name builds is refused: open_clip only warns, and
    the features are silently wrong.
    """
    from open_clip import list_models, list_pretrained_tags_by_model

    names = list_models()
    if model not in names:
        nearest = ", ".join(difflib.get_close_matches(model, names, n=5, cutoff=0.3) or COMMON)
        return f"CLIP {model!r} is unknown: give {LOCAL}FOLDER, {HUB}OWNER/NAME or one of open_clip's, e.g. {nearest}"
    if pretrained and Path(pretrained).suffix:
        return _file_problem(model, pretrained)
    tags = list_pretrained_tags_by_model(model)
    if pretrained and pretrained in tags:
        if _has_activation_of(model, pretrained):
            return ""
        other = model.removesuffix(QUICK) if model.endswith(QUICK) else model + QUICK
        remedy = f"write {other}" if other in names else "choose another tag"
        return (
            f"CLIP {model}: pretrained={pretrained!r} was trained with another activation (QuickGELU or GELU); {remedy}"
        )
    fitting = [tag for tag in tags if _has_activation_of(model, tag)]
    return f"CLIP {model}: pretrained={pretrained!r}; choose one of {fitting} or a .safetensors file"


def _file_problem(model: str, file: str) -> str:
    """Return the problem of a file of weights, which does not record its preprocessing; "" if there is none."""
    folder = Path(file).parent
    if folder.joinpath(CONFIG).is_file():
        return f"CLIP {model}: {folder / CONFIG} describes {Path(file).name}, so name the folder: {LOCAL}{folder}"
    if len(_preprocessings(model)) < 2:
        return ""
    return (
        f"CLIP {model}: weights of this name come with different mean and std, and {file} does not record its"
        f" own: put them into {folder / CONFIG} and name {LOCAL}{folder}"
    )


def _preprocessings(model: str) -> list[dict[str, Any]]:
    """Return the different preprocessings that open_clip lists for weights of this name."""
    from open_clip import get_pretrained_cfg, list_pretrained_tags_by_model

    tags = [tag for tag in list_pretrained_tags_by_model(model) if _has_activation_of(model, tag)]
    found = []
    for tag in tags:
        needed = {key: get_pretrained_cfg(model, tag)[key] for key in ("mean", "std", "interpolation")}
        found += [needed] if needed not in found else []
    return found


def _has_activation_of(model: str, tag: str) -> bool:
    """Check that a tag's weights were trained with the activation that open_clip builds under this name."""
    from open_clip import get_model_config, get_pretrained_cfg

    built, trained = get_model_config(model), get_pretrained_cfg(model, tag)
    return bool(built.get("quick_gelu")) == bool(trained.get("quick_gelu"))


def hub_file(model: str, pretrained: str | None) -> tuple[str, str]:
    """Return repository and file of a tag's weights, each "" if open_clip does not name it."""
    from open_clip import get_pretrained_cfg

    repository, _, file = get_pretrained_cfg(model, pretrained or "").get("hf_hub", "").rpartition("/")
    return repository, file


def _fetch_commit(repository: str, revision: str) -> str:
    """Fetch weights, config and tokenizer of one commit into one folder; return the weights' path."""
    from huggingface_hub import snapshot_download

    files = [WEIGHTS, CONFIG, *TOKENIZER_FILES]
    return str(Path(snapshot_download(repository, revision=revision, allow_patterns=files), WEIGHTS))


def _fetched(model: str, download: Callable[[], str]) -> Path:
    try:
        return Path(download())
    except (OSError, ValueError, RuntimeError) as error:
        reason = first_line(error)
        raise ValueError(f"CLIP {model!r} cannot be fetched ({reason}); a download needs HF_HUB_OFFLINE=0") from error
