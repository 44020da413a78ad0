"""The contract of LLM plug-ins, checked for every file in llms/; OPTIONS has settings that differ from the defaults."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tailorset.llms import LLM
from tailorset.llms.parts.served import ServedModel
from tailorset.plugins import load_plugin, plugin_names
from tailorset.prompts.wording import dialogue
from tests.chat_server import ChatServer

OPTIONS: dict[str, dict[str, object]] = {"transformers": {"max_new_tokens": 8, "batch_size": 2}}
DIALOGUES = [dialogue(keywords, 10) for keywords in [("cup",), ("computer keyboard", "clock"), ("key", "fish")]]


@pytest.fixture(params=plugin_names("llms"))
def llm(
    request: pytest.FixtureRequest, tiny_llm: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[LLM]:
    monkeypatch.setenv("DVC_ROOT", str(tmp_path))
    plugin = load_plugin("llms", request.param)
    options = OPTIONS.get(request.param, {})
    with ChatServer().serving() as chat:
        if issubclass(plugin.Config, ServedModel):
            options = options | chat.settings()
        elif "model" in plugin.Config.model_fields:
            options = options | {"model": str(tiny_llm)}
        yield plugin.build(plugin.Config(**options), torch.device("cpu"))


def test_one_reply_each_in_order(llm: LLM) -> None:
    replies = llm.reply(DIALOGUES, [1, 2, 3])
    assert [type(reply) for reply in replies] == [str] * 3
    assert replies == [llm.reply([d], [s])[0] for d, s in zip(DIALOGUES, [1, 2, 3], strict=True)]


def test_seeds_decide(llm: LLM) -> None:
    large = 2**63 - 1
    replies = llm.reply([DIALOGUES[0]] * 6, [1, 1, 2, 3, 4, large])
    assert replies[0] == replies[1]
    assert len(set(replies)) > 2


def test_nothing_asked_nothing_answered(llm: LLM) -> None:
    assert llm.reply([], []) == []
    assert llm.batch_size > 0


@pytest.mark.parametrize("name", plugin_names("llms"))
def test_config_refuses_unknown_keys_and_is_frozen(name: str) -> None:
    config = load_plugin("llms", name).Config
    assert config.model_config["extra"] == "forbid"
    assert config.model_config["frozen"]
