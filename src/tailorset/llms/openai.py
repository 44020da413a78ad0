"""Any chat model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, LM Studio and others."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field

from tailorset.llms.parts.replies import REPLIES, StoredReplies
from tailorset.llms.parts.served import ServedModel
from tailorset.llms.parts.server import ModelServer
from tailorset.llms.parts.thinking import NO_THINKING, has_phrase, spoken
from tailorset.prompts.wording import Dialogue
from tailorset.storage.paths import project_root

SEEDS = 2**31  # llama.cpp reads 32 bits, and some servers read numbers as doubles
OWN_FIELDS = ("model", "messages", "seed", "random_seed", "temperature", "top_p", "max_tokens", "stream", "n")


def _free(extra: dict[str, Any]) -> dict[str, Any]:
    """Check that extra fields can be sent, and that none of them is one that this plug-in sends itself."""
    if taken := sorted(set(extra) & set(OWN_FIELDS)):
        names = "temperature, top_p, max_new_tokens, seed_field and model"
        raise ValueError(f"{', '.join(taken)} cannot be set here: use {names}")
    try:
        json.dumps(extra, allow_nan=False, sort_keys=True)
    except (TypeError, ValueError) as error:
        raise ValueError(f"cannot be sent as JSON ({error}): quote dates, and give text as keys") from None
    return extra


class Config(ServedModel):
    """concurrency: requests at once. batch_size: dialogues between two updates of the progress.

    extra_body: further fields of a request; the default switches thinking off, null sends none to a server that
    refuses it. temperature and top_p: 0.6 and 0.9 are the published values. A value of null is not sent: some models
    of OpenAI allow no temperature, and want `max_completion_tokens`, in extra_body, instead of max_new_tokens.
    seed_field: name under which a request's seed is sent; Mistral's is random_seed, and null sends none.
    """

    temperature: float | None = Field(default=0.6, ge=0)
    top_p: float | None = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int | None = Field(default=64, gt=0)  # sent as `max_tokens`
    seed_field: Literal["seed", "random_seed"] | None = "seed"
    concurrency: int = Field(default=8, gt=0, le=256)
    batch_size: int = Field(default=64, gt=0)
    extra_body: Annotated[dict[str, Any], Field(min_length=1), AfterValidator(_free)] | None = Field(
        default_factory=lambda: {"chat_template_kwargs": dict(NO_THINKING)}
    )


class ServerLLM:
    """Asks the server once per dialogue, seed and settings; later the stored reply is returned.

    Replies to the same request may differ from server to server, and on one that batches requests; the stored ones
    make a rerun repeat its prompts. A reply without a phrase is not stored, as there is nothing to repeat.
    """

    def __init__(self, config: Config, server: ModelServer, stored: StoredReplies) -> None:
        self.config, self.server, self.stored = config, server, stored
        self.batch_size = config.batch_size

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        """Return one reply per dialogue without thoughts; a fault of the server ends all requests."""
        requests = [self._request(*pair) for pair in zip(dialogues, seeds, strict=True)]
        unique = {repr(request): request for request in requests}
        with ThreadPoolExecutor(self.config.concurrency) as pool:
            try:
                replies = dict(zip(unique, pool.map(self._answer, unique.values()), strict=True))
            except BaseException:
                self.server.stop()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [replies[repr(request)] for request in requests]

    def _answer(self, request: dict[str, Any]) -> str:
        if (found := self.stored.find(request)) is not None:
            return spoken(*found)
        answer = self.server.chat(self._sent(request))
        reply = spoken(*answer)
        if has_phrase(reply):
            self.stored.keep(request, answer)
        return reply

    def _sent(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return a request as this server reads it: with the seed under its name, or without."""
        own, name = {**request}, self.config.seed_field
        seed = own.pop("seed")
        return own if name is None else own | {name: seed}

    def _request(self, messages: Dialogue, seed: int) -> dict[str, Any]:
        """Return the request by which a reply is stored; its seed keeps it apart from others with the same dialogue."""
        config = self.config
        limits = {"temperature": config.temperature, "top_p": config.top_p, "max_tokens": config.max_new_tokens}
        return {
            "model": config.model,
            "messages": messages,
            "seed": seed % SEEDS,
            **{name: value for name, value in limits.items() if value is not None},
            "stream": False,
            **(config.extra_body or {}),
        }


def build(config: Config, device: torch.device) -> ServerLLM:
    """Return the model; `device` is not used, and the server is asked only for replies that are not stored.

    Raises:
        ValueError: the variable that should hold the key is not set.
    """
    return ServerLLM(config, ModelServer(config), StoredReplies(project_root() / REPLIES, config.base_url))
