"""Availability of models: in a folder, in the hub's cache, on the hub, or behind a server."""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

from safetensors import SafetensorError, safe_open

from tailorset.clip.model import OpenClip
from tailorset.commands.findings import Finding
from tailorset.llms.parts.served import ServedModel
from tailorset.llms.parts.server import ModelServer
from tailorset.messages import GIB, MIB, first_line, some
from tailorset.storage import checksums
from tailorset.storage.hub import NamedModel, cache_of, cached_commit, departure, lacking

ANSWER_SECONDS = 10


def model_finding(key: str, model: NamedModel, whole: bool = True) -> Finding:
    """Check that the model of a key in params.yaml exists; `whole` also reads all of it."""
    if problem := isinstance(model, OpenClip) and model.name_problem():
        return Finding("error", "weights", f"{key}: {problem}", "correct it in params.yaml")
    return local_weights(key, model.folder, whole) if model.folder else hub_weights(key, model, whole)


def server_finding(key: str, model: ServedModel, is_needed: bool) -> Finding:
    """Check that a server answers, accepts the key and lists the model; is_needed: a run cannot do without it."""
    try:
        server = ModelServer(model.model_copy(update={"timeout_s": min(ANSWER_SECONDS, model.timeout_s)}))
        names = server.models()
    except (ValueError, ConnectionError) as error:
        remedy = "docs/guides/language-models.md has settings for Ollama, vLLM and llama.cpp"
        later = "" if is_needed else "; the prompts are there, so it is only needed to write others"
        return Finding("error" if is_needed else "warning", "server", f"{key}: {error}{later}", remedy)
    if model.model not in names:
        text = f"{key}: {model.base_url} does not list model {model.model!r}"
        return Finding("warning", "server", text, f"it lists {some(names) or 'none'}; correct {key}.model")
    return Finding("ok", "server", f"{key}: {model.model} at {model.base_url}")


def local_weights(key: str, folder: Path, whole: bool = True) -> Finding:
    """A folder's safetensors files opened, for one that was cut off does not open; `whole`: against its checksums."""
    files = sorted(folder.rglob("*.safetensors"))
    remedy = f"{checksums.RESTORE} or name another model"
    if not files:
        return Finding("error", "weights", f"{key}: {folder} holds no safetensors file", remedy)
    try:
        for file in files:
            with safe_open(file, framework="np") as opened:
                opened.keys()
        if not whole:
            return Finding("ok", "weights", f"{key}: {folder}")
        checksums.check(folder)
    except (OSError, SafetensorError, ValueError) as error:
        return Finding("error", "weights", f"{key}: {folder} is damaged ({error})", remedy)
    total = hashlib.sha256("".join(map(checksums.file_digest, files)).encode())
    size = sum(file.stat().st_size for file in files) / MIB
    return Finding("ok", "weights", f"{key}: {folder}, {size:,.0f} MiB, sha256 {total.hexdigest()[:12]}")


def hub_weights(key: str, model: NamedModel, whole: bool = True) -> Finding:
    """Files of a hub model in the cache; `whole`: each large one has the sha256 that is its name."""
    repository = str(model.repository)
    commit = cached_commit(repository, model.revision)
    wanted = f"{model.title} at revision {model.revision}" if model.revision else f"{model.title}, the latest"
    snapshot = cache_of(repository) / "snapshots" / str(commit)
    names = [file.relative_to(snapshot).as_posix() for file in snapshot.rglob("*")] if commit else []
    if lacking(model.needed_files, names):
        return not_downloaded(f"{key}: {wanted}", model)
    blobs = cache_of(repository).joinpath("blobs").glob("*")
    files = [file for file in blobs if re.fullmatch(r"[0-9a-f]{64}", file.name)]
    for file in files if whole else ():
        if checksums.file_digest(file) != file.name:
            return Finding("error", "weights", f"{key}: {file} is damaged", "delete it and download the model again")
    size = sum(file.stat().st_size for file in files) / GIB
    text = f"{key}: {wanted} (commit {str(commit)[:12]}), {size:.1f} GiB{', whole' * whole}"
    if gone := departure(repository):
        return Finding("warning", "weights", f"{text}; {gone}", "keep a copy of it: nobody else can download it")
    return Finding("ok", "weights", text)


def not_downloaded(title: str, model: NamedModel) -> Finding:
    """Check that a missing hub model can be downloaded; the hub is asked if downloads are allowed."""
    gone = departure(str(model.repository))
    if not downloads_allowed():
        remedy = gone or "`HF_HUB_OFFLINE=0 make run` downloads it; if a folder is meant, there is none of this name"
        return Finding("error", "weights", f"{title}, is not downloaded", remedy)
    problem, remedy = delivery_problem(model)
    if problem:
        return Finding("error", "weights", f"{title}, is not downloaded, and {problem}", remedy)
    return Finding("ok", "weights", f"{title}; the hub has it, and it is downloaded on first use")


def downloads_allowed() -> bool:
    """Check that HF_HUB_OFFLINE is off, as the hub's own library read it at import."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def delivery_problem(model: NamedModel) -> tuple[str, str]:
    """Reason why the hub cannot deliver a model, and the remedy; ("", "") if it can. Nothing is downloaded."""
    from httpx2 import HTTPError
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    repository, api = str(model.repository), HfApi()
    try:
        info = api.model_info(repository, revision=model.revision, timeout=ANSWER_SECONDS)
        if info.gated:
            api.auth_check(repository)
    except GatedRepoError:
        page = f"{api.endpoint}/{repository}"
        return "the hub gives it only to those who accepted its licence", f"accept it at {page} and set HF_TOKEN"
    except RevisionNotFoundError:
        return f"the hub has no revision {model.revision!r} of it", "correct the revision in params.yaml or remove it"
    except RepositoryNotFoundError:
        remedy = departure(repository) or "correct the name in params.yaml; if it is private, set HF_TOKEN"
        return "the hub has no such model", remedy
    except (OSError, HTTPError) as error:
        return (
            f"the hub cannot be asked ({first_line(error)})",
            "look at the network and HF_ENDPOINT, or name a local folder",
        )
    if missing := lacking(model.needed_files, [file.rfilename for file in info.siblings or ()]):
        remedy = "name a model that has them; pickles (.bin, .pt) are never read"
        return f"its repository holds no {', '.join(missing)}", remedy
    return "", ""
