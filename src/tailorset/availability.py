"""Ask the Hugging Face hub, where downloads are allowed, whether it can deliver a model."""

from __future__ import annotations

from tailorset.hub import NamedModel, departure, lacking

ANSWER_SECONDS = 10


def downloads_allowed() -> bool:
    """Whether HF_HUB_OFFLINE is off, as the hub's own library read it when it was started."""
    from huggingface_hub import constants

    return not constants.HF_HUB_OFFLINE


def delivery_problem(model: NamedModel) -> tuple[str, str]:
    """What keeps the hub from delivering a model, and the remedy; ("", "") if nothing does. Nothing is downloaded."""
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
        reason = f"{type(error).__name__}: {error}".splitlines()[0][:200]
        return f"the hub cannot be asked ({reason})", "look at the network and HF_ENDPOINT, or name a local folder"
    if missing := lacking(model.needed_files, [file.rfilename for file in info.siblings or ()]):
        remedy = "name a model that has them; pickles (.bin, .pt) are never read"
        return f"its repository holds no {', '.join(missing)}", remedy
    return "", ""
