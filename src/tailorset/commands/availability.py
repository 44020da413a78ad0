"""Availability of models: in a folder, in the hub's cache, on the hub, or behind a server."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tailorset.clip.model import OpenClip
from tailorset.commands.findings import Finding
from tailorset.llms.parts import gguf_files
from tailorset.llms.parts.served import ServedModel
from tailorset.llms.parts.server import ModelServer, NoModelList
from tailorset.messages import GIB, MIB, first_line, some
from tailorset.project.known_models import (
    PICKLES_REMEDY,
    VARIANTS_REMEDY,
    Obstacle,
    departure,
    gate,
    no_safetensors,
    obstacle,
)
from tailorset.storage import checksums
from tailorset.storage.hub import (
    SAFETENSORS,
    SINGLE_FILES,
    NamedModel,
    cache_of,
    cached_commit,
    is_read,
    lacking,
    pickles,
    variants,
)

ANSWER_SECONDS = 5
ALLOW = (
    "`HF_HUB_OFFLINE=0 make run` downloads it, `HF_HUB_OFFLINE=0 tailorset doctor` reports its size; if a folder"
    " is meant, there is none of this name"
)


def model_finding(key: str, model: NamedModel, whole: bool = True) -> Finding:
    """Check that the model of a key in params.yaml exists and fits its settings; `whole` also reads all of it."""
    found = weights_finding(key, model, whole)
    folder = model.folder or snapshot_of(model)
    if found.status == "error" or folder is None or model.lacking_in(folder):
        return found
    if problem := model.misfit(folder):
        return Finding("error", "weights", f"{key}: {problem}", "correct it in params.yaml")
    return found


def weights_finding(key: str, model: NamedModel, whole: bool) -> Finding:
    """Check that the files of a model exist, in its folder, in the cache or on the hub."""
    if problem := isinstance(model, OpenClip) and model.name_problem():
        return Finding("error", "weights", f"{key}: {problem}", "correct it in params.yaml")
    gguf = next((file for file in model.needed_files if file.endswith(gguf_files.SUFFIX)), "")
    if gguf and not gguf_files.is_readable():
        return Finding("error", "weights", f"{key}: {gguf_files.NO_READER}", gguf_files.REMEDY)
    if model.folder is None:
        return hub_weights(key, model, whole)
    if missing := not_in_folder(model):
        text = f"{key}: {model.folder} is another kind of model, or not all of one: it lacks {some(missing)}"
        return lacks(text, model.folder, missing, f"name a model for this use in params.yaml, or {checksums.RESTORE}")
    pattern = model.needed_files[0] if isinstance(model, OpenClip) else gguf or SAFETENSORS
    return local_weights(key, model.folder, whole, pattern)


def not_in_folder(model: NamedModel) -> list[str]:
    """Return the files that a model needs and its folder lacks, of a folder that has weights at all."""
    folder = model.folder
    if folder is None or not any(folder.rglob(SAFETENSORS)):
        return []
    return model.lacking_in(folder)


def server_finding(key: str, model: ServedModel, is_needed: bool) -> Finding:
    """Check that a server answers, accepts the key and lists the model; is_needed: a run cannot do without it."""
    try:
        server = ModelServer(model.model_copy(update={"timeout_s": min(ANSWER_SECONDS, model.timeout_s)}))
        names = server.models()
    except NoModelList as error:
        remedy = f"none needed if {model.model!r} is right; the server is asked for it when prompts are written"
        return Finding("warning", "server", f"{key}: {error}, so model {model.model!r} cannot be checked", remedy)
    except (ValueError, ConnectionError) as error:
        remedy = "docs/guides/language-models.md has settings for Ollama, vLLM and llama.cpp"
        later = "" if is_needed else "; the prompts are there, so it is only needed to write others"
        return Finding("error" if is_needed else "warning", "server", f"{key}: {error}{later}", remedy)
    if model.model not in names:
        text = f"{key}: {model.base_url} does not list model {model.model!r}"
        return Finding("warning", "server", text, f"it lists {some(names) or 'none'}; correct {key}.model")
    return Finding("ok", "server", f"{key}: {model.model} at {model.base_url}")


def local_weights(key: str, folder: Path, whole: bool = True, pattern: str = SAFETENSORS) -> Finding:
    """Open every file of weights in a folder, as a truncated one does not open; `whole` also compares checksums."""
    if not folder.exists():
        remedy = f"correct it in params.yaml; a model of the hub is named OWNER/NAME, and ours: {checksums.RESTORE}"
        return Finding("error", "weights", f"{key}: there is no folder {folder}", remedy)
    files = sorted(folder.rglob(pattern))
    remedy = f"{checksums.RESTORE} or name another model"
    if not files:
        kind = "safetensors file" if pattern == SAFETENSORS else f"file {pattern}"
        return lacks(f"{key}: {folder} holds no {kind}", folder, [pattern], remedy)
    try:
        for file in files:
            open_weights(file)
        if not whole:
            return Finding("ok", "weights", f"{key}: {folder}")
        checksums.check(folder)
    except (OSError, SafetensorError, ValueError) as error:
        return Finding("error", "weights", f"{key}: {folder} is damaged ({error})", remedy)
    digests = [checksums.file_digest(file) for file in files]
    total = digests[0] if len(files) == 1 else hashlib.sha256("".join(digests).encode()).hexdigest()[:12]
    size = sum(file.stat().st_size for file in files) / MIB
    return Finding("ok", "weights", f"{key}: {folder}, {size:,.0f} MiB, sha256 {total}")


def lacks(text: str, folder: Path, missing: Iterable[str], remedy: str) -> Finding:
    """Return the error on missing files; if weights are missing, it names those that are there and never read."""
    others, instead = unread(missing, (path.relative_to(folder).as_posix() for path in folder.rglob("*.*")))
    if others:
        return Finding("error", "weights", f"{text}, and has {some(others)}", instead)
    return Finding("error", "weights", text, remedy)


def unread(missing: Iterable[str], names: Iterable[str]) -> tuple[list[str], str]:
    """Return the variants or else the pickles among the files of a model that lacks weights, and the remedy."""
    if not any(file.endswith(SAFETENSORS[1:]) for file in missing):
        return [], ""
    names = list(names)
    return (found, VARIANTS_REMEDY) if (found := variants(names)) else (pickles(names), PICKLES_REMEDY)


def open_weights(file: Path) -> None:
    """Open a file of weights.

    Raises:
        OSError, SafetensorError, ValueError: it is damaged.
    """
    if file.suffix == gguf_files.SUFFIX:
        gguf_files.check_magic(file)
    else:
        with safe_open(file, framework="np") as opened:
            opened.keys()


def hub_weights(key: str, model: NamedModel, whole: bool = True) -> Finding:
    """Check a hub model's revision in the cache; `whole` also compares the sha256 of large files with their names."""
    repository, snapshot = str(model.repository), snapshot_of(model)
    wanted = f"{model.title} at revision {model.revision}" if model.revision else f"{model.title}, the latest"
    if snapshot is None:
        return not_downloaded(f"{key}: {wanted}", model)
    if missing := model.lacking_in(snapshot):
        return not_downloaded(f"{key}: all of {wanted} (the cache lacks {some(missing)})", model)
    blobs = {path.resolve() for path in read_in(snapshot, model)}  # other revisions have others, beside them
    files = sorted(file for file in blobs if checksums.SHA256.fullmatch(file.name))
    for file in files if whole else ():
        if checksums.file_digest(file) != file.name:
            return Finding("error", "weights", f"{key}: {file} is damaged", "delete it and download the model again")
    size = sum(file.stat().st_size for file in files) / GIB
    text = f"{key}: {wanted} (commit {snapshot.name[:12]}), {size:.1f} GiB{', whole' * whole}"
    if whole and isinstance(model, OpenClip):
        text += f", sha256 {checksums.stored_digest(snapshot / model.needed_files[0])}"
    if gone := departure(repository):
        return Finding("warning", "weights", f"{text}; {gone}", "keep a copy of it: nobody else can download it")
    return Finding("ok", "weights", text)


def read_in(snapshot: Path, model: NamedModel) -> Iterator[Path]:
    """Yield the files of a snapshot without weights that are never read, as pickles and variants are."""
    for path in filter(Path.is_file, snapshot.rglob("*")):
        name = path.relative_to(snapshot).as_posix()
        if is_read(name, model.needed_files) or not name.endswith(SINGLE_FILES):
            yield path


def snapshot_of(model: NamedModel) -> Path | None:
    """Return the folder of a hub model's revision in the cache, whole or not; None if there is none."""
    repository = model.repository
    commit = cached_commit(repository, model.revision) if repository else None
    return cache_of(repository) / "snapshots" / commit if repository and commit else None


def not_downloaded(title: str, model: NamedModel) -> Finding:
    """Check that a missing hub model can be downloaded; the hub is asked if downloads are allowed."""
    if not downloads_allowed():
        known = obstacle(str(model.repository))
        why = f", and {known.problem}" if known else ""
        return Finding("error", "weights", f"{title}, is not downloaded{why}", known.remedy if known else ALLOW)
    answer = ask_hub(model)
    if isinstance(answer, Obstacle):
        return Finding("error", "weights", f"{title}, is not downloaded, and {answer.problem}", answer.remedy)
    if not answer:
        return Finding("ok", "weights", f"{title}; the hub has it, and it is downloaded on first use")
    text = f"{title}; {answer / GIB:.1f} GiB are downloaded on first use"
    if answer > (free := free_for_downloads()):
        remedy = "make room, or set HF_HOME to a folder on a larger disk"
        return Finding("error", "weights", f"{text}, and {free / GIB:.1f} GiB are free", remedy)
    return Finding("ok", "weights", text)


def downloads_allowed() -> bool:
    """Check that HF_HUB_OFFLINE is off, as the hub's own library read it at import."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def free_for_downloads() -> int:
    """Return the free bytes of the disk that holds the hub's cache."""
    from huggingface_hub.constants import HF_HUB_CACHE

    cache = Path(HF_HUB_CACHE).absolute()  # its folder may be on another disk than the one above it
    return shutil.disk_usage(next(path for path in (cache, *cache.parents) if path.is_dir())).free


def ask_hub(model: NamedModel) -> int | Obstacle:
    """Return the bytes of weights that the hub would deliver, or the reason why it cannot; nothing is downloaded."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    repository, api = str(model.repository), HfApi()
    try:
        info = api.model_info(repository, revision=model.revision, timeout=ANSWER_SECONDS, files_metadata=True)
        if info.gated:
            api.auth_check(repository)
    except GatedRepoError:
        return gate(f"{api.endpoint}/{repository}")
    except RevisionNotFoundError:
        problem = f"the hub has no revision {model.revision!r} of it"
        return Obstacle(problem, "correct the revision in params.yaml or remove it")
    except RepositoryNotFoundError:
        remedy = departure(repository) or "correct the name in params.yaml; if it is private, set HF_TOKEN"
        return Obstacle("the hub has no such model", remedy)
    except (OSError, HTTPError, ValueError, TypeError) as error:  # the latter two: an answer that is not the hub's
        problem = f"the hub cannot be asked ({first_line(error)})"
        return Obstacle(problem, "look at the network and HF_ENDPOINT, or name a local folder")
    if other := other_digest(model, {file.rfilename: file.lfs.sha256 for file in info.siblings or () if file.lfs}):
        return other
    sizes = {file.rfilename: file.size or 0 for file in info.siblings or ()}
    if missing := lacking(model.needed_files, sizes):
        others, instead = unread(missing, sizes)
        return no_safetensors(", ".join(missing), instead if others else "name a model for this use in params.yaml")
    return sum(size for file, size in sizes.items() if is_read(file, model.needed_files))


def other_digest(model: NamedModel, digests: Mapping[str, str]) -> Obstacle | None:
    """Compare the sha256 of a CLIP's settings with that of its file on the hub; None if there is nothing against it."""
    if not isinstance(model, OpenClip) or not model.sha256:
        return None
    file = model.needed_files[0]
    if (found := digests.get(file, model.sha256)) == model.sha256:
        return None
    return Obstacle(f"its {file} has sha256 {found} there, not {model.sha256}", "correct one of model and sha256")
