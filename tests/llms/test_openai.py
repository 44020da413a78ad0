"""The plug-in for OpenAI-compatible servers, against a server on this machine: replies, cache, faults."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from tailorset.llms.openai import Config, ServerLLM, build
from tailorset.llms.parts.server import NoModelList
from tailorset.llms.parts.thinking import NO_THINKING
from tailorset.plugins import plugin_config
from tailorset.prompts.report import metrics, warning
from tailorset.prompts.settings import WritePrompts
from tailorset.prompts.wording import dialogue
from tailorset.prompts.writer import Ledger, write_prompts
from tailorset.records import LabelSpace
from tests.chat_server import MODEL, ChatServer, Response, phrase

DIALOGUES = [dialogue(keywords, 10) for keywords in [("cup",), ("keyboard", "clock"), ("key", "fish"), ("hat",)]]
SEEDS = [1, 2, 3, 2**63 - 1]
KEY = "sk-not-to-be-seen-4711"
HTML = Response(200, "<!DOCTYPE html><html><title>Sign in</title></html>", {"Content-Type": "text/html"})
BUSY = Response(429, {"error": {"message": "slow down"}})
BROKEN = Response(500, "Internal Server Error", {"Content-Type": "text/plain"})
LABELS = ("cup", "key", "fish", "hat")
SPACE = LabelSpace.model_validate({"name": "four", "labels": [{"name": n, "seen": False} for n in LABELS]})


@pytest.fixture(autouse=True)
def chat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ChatServer]:
    """A server, and a folder of its own for stored replies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    with ChatServer().serving() as server:
        yield server


class Pauses(list[float]):
    def __call__(self, seconds: float) -> None:
        self.append(seconds)


def llm_of(chat: ChatServer, **options: object) -> ServerLLM:
    """Return the plug-in; its pauses are noted and not waited for."""
    llm = build(Config(**chat.settings(**options)), torch.device("cpu"))
    llm.server.wait = Pauses()
    return llm


def pauses_of(llm: ServerLLM) -> list[float]:
    assert isinstance(llm.server.wait, Pauses)
    return llm.server.wait


def written(llm: ServerLLM, **changes: object) -> Ledger:
    block = {"prompts_per_pair": 2, "max_prompts": None, "min_words": 10, "max_attempts": 2, "kinds": []} | changes
    config = WritePrompts.model_validate(block | {"llm": {"name": "template"}})
    *_, ledger = write_prompts(llm.reply, SPACE, config, seed=0, batch_size=4)
    return ledger


def test_replies_depend_on_dialogue_and_seed_and_come_in_order(chat: ChatServer) -> None:
    chat.pause = 0.01
    replies = llm_of(chat).reply(DIALOGUES, SEEDS)
    assert replies == [phrase({"messages": d, "seed": s % 2**31}) for d, s in zip(DIALOGUES, SEEDS, strict=True)]
    sent = chat.requests[0]
    assert (sent["model"], sent["temperature"], sent["top_p"], sent["max_tokens"]) == (MODEL, 0.6, 0.9, 64)
    assert all(request["seed"] < 2**31 for request in chat.requests)


def test_a_model_that_wants_another_limit_gets_it_and_no_temperature(chat: ChatServer) -> None:
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    refusal = Response(400, {"error": {"message": message, "param": "max_tokens", "code": "unsupported_parameter"}})
    refused = {"temperature", "top_p", "max_tokens"}
    chat.always = lambda request: refusal if refused & set(request) else None
    with pytest.raises(ValueError, match=r"max_tokens \(here max_new_tokens\), set that to null, and put a limit"):
        llm_of(chat).reply(DIALOGUES[:1], SEEDS[:1])
    unset = dict.fromkeys(("temperature", "top_p", "max_new_tokens"))
    llm_of(chat, **unset, extra_body={"max_completion_tokens": 1000}).reply(DIALOGUES[:1], SEEDS[:1])
    assert chat.requests[-1]["max_completion_tokens"] == 1000
    assert not refused & set(chat.requests[-1])


@pytest.mark.parametrize("name", ["random_seed", None])
def test_a_server_that_refuses_seed_gets_it_by_another_name_or_none(chat: ChatServer, name: str | None) -> None:
    message = {"detail": [{"type": "extra_forbidden", "loc": ["body", "seed"]}]}
    chat.always = lambda request: Response(422, message) if "seed" in request else None
    chat.message = lambda request: {"content": f"a red cup, number {len(chat.requests)}"}
    with pytest.raises(ValueError, match=r"HTTP 422.*set seed_field to random_seed or null"):
        llm_of(chat).reply(DIALOGUES[:1], [1])
    chat.requests.clear()
    same, seeds = [DIALOGUES[0]] * 2, [3, 4]
    replies = llm_of(chat, seed_field=name, concurrency=1).reply(same, seeds)
    assert [request.get("random_seed") for request in chat.requests] == ([3, 4] if name else [None, None])
    assert replies == ["a red cup, number 1", "a red cup, number 2"]
    assert llm_of(chat, seed_field=name).reply(same, seeds) == replies
    assert len(chat.requests) == 2


def test_a_rerun_asks_for_nothing_even_without_the_server(chat: ChatServer) -> None:
    first = llm_of(chat).reply(DIALOGUES, SEEDS)
    chat.always = lambda request: Response(400, "not again")
    assert llm_of(chat).reply(DIALOGUES, SEEDS) == first
    assert len(chat.requests) == 4


def test_another_setting_seed_or_model_is_asked_anew(chat: ChatServer) -> None:
    chat.models = (MODEL, "other")
    for changes in ({}, {"temperature": 0.7}, {"model": "other"}, {"extra_body": None}, {"max_new_tokens": 9}):
        llm_of(chat, **changes).reply(DIALOGUES[:1], SEEDS[:1])
    llm_of(chat).reply(DIALOGUES[:1], [9])
    llm_of(chat, concurrency=1, timeout_s=5, batch_size=3).reply(DIALOGUES[:1], [9])  # they shape no reply
    assert len(chat.requests) == 6


def test_a_run_that_ends_in_the_middle_asks_only_for_the_rest(chat: ChatServer) -> None:
    chat.always = lambda request: BROKEN if len(chat.requests) > 2 else None
    with pytest.raises(ConnectionError, match="HTTP 500"):
        llm_of(chat, max_retries=0, concurrency=1).reply(DIALOGUES, SEEDS)
    chat.always = None
    chat.requests.clear()
    assert len(set(llm_of(chat).reply(DIALOGUES, SEEDS))) == 4
    assert len(chat.requests) == 2


def test_a_killed_run_goes_on_where_it_was(chat: ChatServer, tmp_path: Path) -> None:
    code = (
        "import sys, torch\nfrom tailorset.llms.openai import Config, build\n"
        "from tailorset.prompts.wording import dialogue\n"
        "llm = build(Config(base_url=sys.argv[1], model=sys.argv[2], concurrency=2), torch.device('cpu'))\n"
        "llm.reply([dialogue(['cup'], 10)] * 40, list(range(40)))"
    )
    chat.pause = 0.1
    with subprocess.Popen([sys.executable, "-c", code, chat.url, MODEL], cwd=tmp_path) as process:
        while len(chat.requests) < 10 and process.poll() is None:
            time.sleep(0.01)
        process.kill()
    stored = len(list(Path(".work/replies").rglob("*.json")))
    assert 5 < stored < 20
    chat.pause = 0
    chat.requests.clear()
    replies = llm_of(chat).reply([dialogue(["cup"], 10)] * 40, list(range(40)))
    assert len(chat.requests) == 40 - stored
    assert replies == [phrase({"messages": dialogue(["cup"], 10), "seed": seed}) for seed in range(40)]


def test_a_damaged_file_of_a_reply_is_asked_for_again(chat: ChatServer, caplog: pytest.LogCaptureFixture) -> None:
    first = llm_of(chat).reply(DIALOGUES, SEEDS)
    path = next(Path(".work/replies").rglob("*.json"))
    path.write_text(path.read_text()[:-10])
    assert llm_of(chat).reply(DIALOGUES, SEEDS) == first
    assert len(chat.requests) == 5
    assert "is damaged" in caplog.text


def test_no_more_requests_at_once_than_set(chat: ChatServer) -> None:
    chat.pause = 0.02
    llm_of(chat, concurrency=3).reply(DIALOGUES * 4, list(range(16)))
    assert chat.most_at_once in (2, 3)


def test_the_same_request_is_sent_once(chat: ChatServer) -> None:
    assert len(set(llm_of(chat).reply(DIALOGUES[:1] * 5, [7] * 5))) == 1
    assert len(chat.requests) == 1


def test_thinking_is_switched_off_unless_settings_say_otherwise(chat: ChatServer) -> None:
    llm_of(chat).reply(DIALOGUES[:1], [1])
    llm_of(chat, extra_body=None).reply(DIALOGUES[:1], [1])
    llm_of(chat, extra_body={"reasoning_effort": "none"}).reply(DIALOGUES[:1], [1])
    assert chat.requests[0]["chat_template_kwargs"] == NO_THINKING
    assert "chat_template_kwargs" not in chat.requests[1]
    assert chat.requests[2]["reasoning_effort"] == "none"


def test_no_header_without_a_key(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    llm_of(chat).reply(DIALOGUES[:1], [1])
    assert "Authorization" not in chat.headers[0]


def test_the_key_is_sent_and_written_nowhere(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.key = KEY
    monkeypatch.setenv("MY_KEY", KEY)
    llm = llm_of(chat, api_key_env="MY_KEY")
    llm.reply(DIALOGUES, SEEDS)
    assert chat.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert KEY not in llm.config.model_dump_json()
    assert not [path for path in Path().rglob("*") if path.is_file() and KEY in path.read_text()]


def test_a_wrong_key_is_named_by_its_variable_only(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    chat.key = "the right one"
    monkeypatch.setenv("MY_KEY", KEY)
    with pytest.raises(ValueError, match=r"refuses the key in \$MY_KEY: export a valid one.*\*\*\*") as refused:
        llm_of(chat, api_key_env="MY_KEY").reply(DIALOGUES, SEEDS)
    assert KEY not in str(refused.value)
    with pytest.raises(ValueError, match=r"without a key: set write_prompts.llm.api_key_env"):
        llm_of(chat).reply(DIALOGUES, SEEDS)


@pytest.mark.parametrize(
    "body",
    [
        [{"error": {"code": 400, "message": "API key not valid. Please pass a valid API key."}}],
        {"code": "Client specified an invalid argument", "error": "Incorrect API key provided: sk***"},
    ],
)
def test_a_wrong_key_is_named_where_the_server_calls_it_a_bad_request(
    chat: ChatServer, monkeypatch: pytest.MonkeyPatch, body: object
) -> None:
    monkeypatch.setenv("SOME_KEY", KEY)
    response = Response(400, json.dumps(body))
    chat.always, chat.listing = lambda request: response, response
    llm = llm_of(chat, api_key_env="SOME_KEY")
    for ask in (llm.server.models, lambda: llm.reply(DIALOGUES[:1], [1])):
        with pytest.raises(ValueError, match=r"refuses the key in \$SOME_KEY: export a valid one"):
            ask()


@pytest.mark.parametrize(("value", "problem"), [(None, "not set"), ("  ", "not set"), ("two words", "a space")])
def test_a_variable_without_a_key_is_refused_at_load_time(
    chat: ChatServer, monkeypatch: pytest.MonkeyPatch, value: str | None, problem: str
) -> None:
    monkeypatch.delenv("MY_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("MY_KEY", value)
    with pytest.raises(ValueError, match=rf"MY_KEY.*{problem}"):
        llm_of(chat, api_key_env="MY_KEY")


@pytest.mark.parametrize("pasted", [KEY, "0a1b2c3d", f"https://user:{KEY}@host/v1", f"http://host/v1?key={KEY}"])
def test_a_key_in_the_settings_is_refused_and_not_repeated(chat: ChatServer, pasted: str) -> None:
    settings = chat.settings() | ({"base_url": pasted} if "://" in pasted else {"api_key_env": pasted})
    with pytest.raises(ValueError, match="environment variable") as refused:
        plugin_config("llms", {"name": "openai", **settings})
    assert pasted not in str(refused.value)


@pytest.mark.parametrize(
    "url", ["localhost:11434", "ftp://x/v1", "http://", "http://x:99999/v1", "http://a b/v1", "http://a..b/v1", ""]
)
def test_what_is_no_address_is_refused_with_an_example(url: str) -> None:
    with pytest.raises(ValidationError, match=r"not an address.*http://localhost:11434/v1"):
        Config(base_url=url, model="m")


def test_addresses_are_roots(chat: ChatServer) -> None:
    assert Config(base_url="http://x:1/v1//", model="m").base_url == "http://x:1/v1"
    with pytest.raises(ValidationError, match="give its root"):
        Config(base_url="http://x:1/v1/chat/completions", model="m")


def test_extra_fields_cannot_replace_settings(chat: ChatServer) -> None:
    with pytest.raises(ValidationError, match=r"seed, temperature cannot be set here: use temperature"):
        Config(**chat.settings(extra_body={"temperature": 1, "seed": 2}))
    with pytest.raises(ValidationError, match="at least 1 item"):
        Config(**chat.settings(extra_body={}))
    for value in (datetime.now(UTC).date(), float("inf"), {1: 0, "two": 0}):
        with pytest.raises(ValidationError, match=r"cannot be sent as JSON .*: quote dates, and give text as keys"):
            Config(**chat.settings(extra_body={"field": value}))


def test_no_proxy_is_asked_for_this_machine(chat: ChatServer, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{_closed_port()}")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    assert len(llm_of(chat).reply(DIALOGUES, SEEDS)) == 4


def test_a_server_that_is_down_is_told_at_once(chat: ChatServer) -> None:
    url = f"http://127.0.0.1:{_closed_port()}/v1"
    llm = llm_of(chat, base_url=url)
    with pytest.raises(ConnectionError, match=rf"no server answers at {url} .*ollama serve.*correct write_prompts"):
        llm.reply(DIALOGUES, SEEDS)
    assert pauses_of(llm) == []


def test_an_unknown_model_lists_the_choices(chat: ChatServer) -> None:
    with pytest.raises(ValueError, match=r"'qwen3:5b'. Did you mean 'qwen3:4b'\? Choices: qwen3:4b"):
        llm_of(chat, model="qwen3:5b").reply(DIALOGUES, SEEDS)


def test_an_address_without_the_api_says_so(chat: ChatServer) -> None:
    with pytest.raises(ValueError, match=r"has no /chat/completions.*usually ends in /v1"):
        llm_of(chat, base_url=chat.url.removesuffix("/v1")).reply(DIALOGUES, SEEDS)


def test_a_server_that_streams_unasked_is_named(chat: ChatServer) -> None:
    piece = 'data: {"choices": [{"delta": {"content": "a cup"}}]}\n\ndata: [DONE]\n\n'
    chat.always = lambda request: Response(200, piece, {"Content-Type": "text/event-stream; charset=utf-8"})
    with pytest.raises(ValueError, match=r"text/event-stream.*It streams, although `stream` is false: switch that off"):
        llm_of(chat).reply(DIALOGUES[:1], [1])
    assert len(chat.requests) == 1


@pytest.mark.parametrize(
    "response",
    [
        HTML,
        Response(200, {"choices": []}),
        Response(200, {"choices": [{"message": {"content": ["part"]}}]}),
        Response(200, "[" * 100_000),
        Response(200, "null"),
    ],
)
def test_what_is_no_completion_is_quoted_with_a_remedy(chat: ChatServer, response: Response) -> None:
    chat.always = lambda request: response
    llm = llm_of(chat)
    with pytest.raises(
        ValueError, match=r"without a chat model's JSON \(HTTP 200, .*Correct write_prompts.*not a web"
    ) as error:
        llm.reply(DIALOGUES, SEEDS)
    assert len(str(error.value)) < 700
    assert pauses_of(llm) == []


def test_an_address_of_lm_studio_without_v1_is_told(chat: ChatServer) -> None:
    response = Response(200, {"error": "Unexpected endpoint or method. (POST /models). Returning 200 anyway"})
    chat.always, chat.listing = lambda request: response, response
    llm = llm_of(chat)
    for ask in (llm.server.models, lambda: llm.reply(DIALOGUES[:1], [1])):
        with pytest.raises(ValueError, match=r"has no /chat/completions.*correct .*usually ends in /v1"):
            ask()


def test_a_field_that_the_server_refuses_names_the_setting(chat: ChatServer) -> None:
    message = {"error": {"message": "Unrecognized request argument: chat_template_kwargs"}}
    chat.always = lambda request: Response(400, message) if "chat_template_kwargs" in request else None
    with pytest.raises(ValueError, match=r"HTTP 400.*chat_template_kwargs.*set extra_body to null"):
        llm_of(chat).reply(DIALOGUES, SEEDS)
    assert len(llm_of(chat, extra_body=None).reply(DIALOGUES, SEEDS)) == 4


@pytest.mark.parametrize(
    ("error", "said", "remedy"),
    [
        (
            {"message": "The model 'qwen3:4b' does not exist"},
            "The model 'qwen3:4b' does not exist",
            r"correct write_prompts.*base_url.*or write_prompts.llm.model",
        ),
        ({"message": "no", "code": 404}, "no", r"correct write_prompts.llm.base_url.*or write_prompts.llm.model"),
        ({"message": "no", "code": "model_not_found"}, "no", "or write_prompts.llm.model"),
        (
            {"message": "Context too long", "type": "BadRequest", "code": 400},
            "Context too long",
            "lower write_prompts.llm.max_new_tokens",
        ),
        ({"message": "Invalid API key"}, "Invalid API key", "set write_prompts.llm.api_key_env"),
        ("unknown field x", "unknown field x", "set extra_body to null"),
        ([["odd"]], "odd", "set extra_body to null"),
    ],
)
@pytest.mark.parametrize("place", ["answer", "choice", "vllm"])
def test_an_error_inside_an_answer_of_200_is_quoted_with_the_remedy_of_its_kind(
    chat: ChatServer, error: object, said: str, remedy: str, place: str
) -> None:
    body: dict[str, object] = {"choices": [{"error": error, "message": {"content": ""}}]}
    if place == "answer":
        body = {"error": error}
    elif place == "vllm" and isinstance(error, dict):
        body = {"object": "error", **error}
    chat.always = lambda request: Response(200, body)
    llm = llm_of(chat)
    with pytest.raises(ValueError, match=remedy) as refused:
        llm.reply(DIALOGUES, SEEDS)
    assert "HTTP 200: {" in str(refused.value)
    assert said in str(refused.value)
    assert "not a web page" not in str(refused.value)
    assert pauses_of(llm) == []


@pytest.mark.parametrize("error", [{"message": "Rate limit exceeded"}, {"code": 503}, {"code": "429"}, "overloaded"])
def test_a_passing_error_inside_an_answer_of_200_is_retried(chat: ChatServer, error: object) -> None:
    chat.faults = [Response(200, {"error": error})] * 2
    llm = llm_of(chat)
    assert llm.reply(DIALOGUES[:1], [1]) == [phrase({"messages": DIALOGUES[0], "seed": 1})]
    assert len(pauses_of(llm)) == 2


@pytest.mark.parametrize(
    "response",
    [
        Response(429, {"error": {"message": "check your plan", "type": "insufficient_quota", "code": None}}),
        Response(402, {"error": {"message": "Insufficient credits", "code": 402}}),
        Response(200, {"error": {"message": "no", "code": "insufficient_quota"}}),
    ],
)
def test_an_account_without_credit_is_told_at_once(chat: ChatServer, response: Response) -> None:
    chat.always = lambda request: response
    llm = llm_of(chat)
    with pytest.raises(ValueError, match=r"no more requests for this account \(HTTP .*: add credit there"):
        llm.reply(DIALOGUES[:1], [1])
    assert pauses_of(llm) == []


@pytest.mark.parametrize(
    "response",
    [
        Response(400, {"error": {"message": "filtered", "param": "prompt", "code": "content_filter", "status": 400}}),
        Response(403, {"error": {"message": "moderation", "code": 403, "metadata": {"flagged_input": "a knife"}}}),
    ],
)
def test_a_request_that_a_content_filter_refuses_costs_no_other(
    chat: ChatServer, response: Response, caplog: pytest.LogCaptureFixture
) -> None:
    first = DIALOGUES[0][0]["content"]
    chat.always = lambda request: response if request["messages"][0]["content"] == first else None
    assert [bool(reply) for reply in llm_of(chat).reply(DIALOGUES, SEEDS)] == [False, True, True, True]
    assert [chat.url in said and "filters out a request: HTTP 40" in said for said in caplog.messages] == [True]


def test_a_reply_beside_an_empty_error_is_read(chat: ChatServer) -> None:
    body = {"error": None, "choices": [{"error": None, "message": {"content": "a red cup"}}]}
    chat.always = lambda request: Response(200, body)
    assert llm_of(chat).reply(DIALOGUES[:1], [1]) == ["a red cup"]


def test_a_function_that_is_not_there_is_not_waited_for(chat: ChatServer) -> None:
    for status in (405, 501):
        chat.always = lambda request, status=status: Response(status, "no such method")  # type: ignore[misc]
        llm = llm_of(chat)
        with pytest.raises(ValueError, match=rf"has no /chat/completions.*HTTP {status}: no such method"):
            llm.reply(DIALOGUES[:1], [1])
        assert pauses_of(llm) == []


def test_a_redirection_is_not_followed(chat: ChatServer) -> None:
    chat.always = lambda request: Response(307, "", {"Location": "https://elsewhere/v1"})
    with pytest.raises(ValueError, match=r"redirects to https://elsewhere/v1: write the final address"):
        llm_of(chat).reply(DIALOGUES, SEEDS)


def test_an_endless_answer_is_cut(chat: ChatServer) -> None:
    chat.always = lambda request: Response(200, b"x" * 5_000_000)
    with pytest.raises(ValueError, match="more than 4194304 bytes"):
        llm_of(chat).reply(DIALOGUES[:1], [1])


def test_a_slow_server_is_given_timeout_s(chat: ChatServer) -> None:
    chat.pause = 1.0
    with pytest.raises(ConnectionError, match=r"no reply in 2 attempts.*Timeout.*timeout_s"):
        llm_of(chat, timeout_s=0.1, max_retries=1).reply(DIALOGUES[:1], [1])


@pytest.mark.parametrize(
    "fault",
    [
        BROKEN,
        BUSY,
        Response(502, HTML.body, HTML.headers),
        Response(200, b'{"choices": [{"mess', promised=400),  # the connection is cut
        Response(200, b'{"choices": [{"mess', promised=-1),  # and nothing told the length
        Response(200, b"", promised=99),
        Response(200, b'\n   \n   {"choices": [{"mess', promised=-1),  # after OpenRouter's signs of life
        Response(200, b"\n   \n   ", promised=-1),
    ],
)
def test_passing_faults_are_retried_after_growing_pauses(chat: ChatServer, fault: Response) -> None:
    chat.faults = [fault, fault, fault]
    llm = llm_of(chat)
    assert llm.reply(DIALOGUES[:1], [1]) == [phrase({"messages": DIALOGUES[0], "seed": 1})]
    assert len(chat.requests) == 4
    assert all(half <= pause <= 2 * half for half, pause in zip((0.5, 1, 2), pauses_of(llm), strict=True))


def test_a_server_that_restarts_is_waited_for(chat: ChatServer) -> None:
    llm = llm_of(chat)
    first = llm.reply(DIALOGUES[:1], [1])
    port = chat.port
    llm.server.config = llm.config.model_copy(update={"base_url": f"http://127.0.0.1:{_closed_port()}/v1"})

    def restart(seconds: float) -> None:
        llm.server.config = llm.config.model_copy(update={"base_url": f"http://127.0.0.1:{port}/v1"})

    llm.server.wait = restart
    assert llm.reply(DIALOGUES[1:2], [1]) != first


def _closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def test_retry_after_is_honoured_in_seconds_and_as_a_date(chat: ChatServer) -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=40), usegmt=True)
    chat.faults = [
        Response(429, "", {"Retry-After": value})
        for value in ("17", date, "soon", "-3", "nan", "1 Jan 9999999999 00:00")
    ]
    llm = llm_of(chat)
    llm.reply(DIALOGUES[:1], [1])
    pauses = pauses_of(llm)
    assert pauses[0] == 17
    assert 30 < pauses[1] <= 40
    assert 2 <= pauses[2] <= 4


def test_busy_for_ever_ends_with_what_to_do(chat: ChatServer) -> None:
    chat.always = lambda request: BUSY
    llm = llm_of(chat, max_retries=3)
    with pytest.raises(
        ConnectionError, match=r"no reply in 4 attempts.*slow down.*lower write_prompts.llm.concurrency"
    ):
        llm.reply(DIALOGUES[:1], [1])
    assert len(pauses_of(llm)) == 3


def test_a_long_pause_is_refused(chat: ChatServer) -> None:
    chat.always = lambda request: Response(429, "quota of the day", {"Retry-After": "3600"})
    llm = llm_of(chat)
    with pytest.raises(ConnectionError, match=r"pause of 3600 s.*quota of the day.*Run again later"):
        llm.reply(DIALOGUES[:1], [1])
    assert pauses_of(llm) == []


def test_one_failure_ends_the_pauses_of_the_others(chat: ChatServer) -> None:
    first = DIALOGUES[0][0]["content"]
    chat.always = lambda request: HTML if request["messages"][0]["content"] == first else BUSY
    llm = build(Config(**chat.settings()), torch.device("cpu"))  # real pauses, minutes in all
    with pytest.raises(ValueError, match="without a chat model's JSON"):
        llm.reply(DIALOGUES, SEEDS)


@pytest.mark.parametrize(
    "thoughts", ["<think>\nThe user wants...\n</think>\n\n", "Let me see.</think>", "<think></think>"]
)
def test_finished_thoughts_are_removed(chat: ChatServer, thoughts: str) -> None:
    chat.message = lambda request: {"content": thoughts + phrase(request)}
    ledger = written(llm_of(chat))
    assert metrics(ledger)["prompts/raw_acceptance"] == 1
    assert "think" not in llm_of(chat).reply(DIALOGUES[:1], [1])[0]


def test_a_content_of_parts_is_read_without_its_thoughts(chat: ChatServer) -> None:
    thinking = {"type": "thinking", "thinking": [{"type": "text", "text": "The user wants a phrase"}]}
    texts = [{"type": "text", "text": part} for part in ("a red cup", " on a table")]
    chat.message = lambda request: {"content": [thinking, *texts]}
    assert llm_of(chat).reply(DIALOGUES[:1], [1]) == ["a red cup on a table"]


@pytest.mark.parametrize(
    "message",
    [
        {"content": "<think>\nThe user wants a phrase with a cup, so let me think of"},
        {"content": "", "reasoning_content": "The user wants a phrase"},
        {"content": None, "reasoning": "The user wants a phrase"},
        {"content": [{"type": "thinking", "thinking": [{"type": "text", "text": "The user wants a phrase"}]}]},
        {"content": "", "finish_reason": "length"},
        {"content": None, "finish_reason": "length"},
    ],
)
def test_a_model_that_thinks_for_ever_is_counted_and_named(chat: ChatServer, message: dict[str, Any]) -> None:
    chat.message = lambda request: message
    figures = metrics(written(llm_of(chat)))
    assert figures["prompts/rejected/thinking"] == sum(figures[name] for name in figures if "/rejected/" in name) > 0
    assert figures["prompts/origin/template"] == figures["prompts/count"]
    assert "thinking mode, or a larger one, or raise write_prompts.llm.max_new_tokens" in warning(figures)


@pytest.mark.parametrize(
    "message",
    [
        {"content": ""},
        {"content": "Sure, here is a phrase:"},
        {"content": "<think>\nThe user wants a phrase with a cup"},
        {"content": None, "reasoning_content": "The user wants a phrase"},
    ],
)
def test_a_server_that_was_repaired_is_asked_again_for_replies_without_a_phrase(
    chat: ChatServer, message: dict[str, Any]
) -> None:
    chat.message = lambda request: message
    assert not metrics(written(llm_of(chat)))["prompts/origin/llm"]
    assert not list(Path(".work/replies").rglob("*.json"))
    chat.message = None
    figures = metrics(written(llm_of(chat)))
    assert figures["prompts/origin/llm"] == figures["prompts/count"]


def test_refused_replies_are_repeated_and_the_log_says_how_to_ask_again(
    chat: ChatServer, caplog: pytest.LogCaptureFixture
) -> None:
    chat.message = lambda request: {"content": "no"}
    first = metrics(written(llm_of(chat)))
    assert not caplog.messages
    chat.message = None
    assert metrics(written(llm_of(chat))) == first
    assert len([said for said in caplog.messages if "replies: delete that folder to ask the server" in said]) == 1
    shutil.rmtree(".work/replies")
    assert metrics(written(llm_of(chat)))["prompts/origin/template"] == 0


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "empty"),
        (None, "empty"),
        ("  \n", "empty"),
        ("ein Gemälde von einer blauen Tasse auf dem Tisch neben einem großen Fenster", "not_english"),
        ("一只蓝色的杯子放在木桌上旁边有一扇大窗户", "not_english"),
        ('{"prompt": "a small red cup next to a hat, a key and a fish on a table"}', "markup"),
    ],
)
def test_replies_that_are_no_prompt_are_counted_by_reason(chat: ChatServer, content: str | None, reason: str) -> None:
    chat.message = lambda request: {"content": content}
    figures = metrics(written(llm_of(chat), max_attempts=1))
    refused = {name: figures[name] for name in figures if "/rejected/" in name and figures[name]}
    assert set(refused) == {f"prompts/rejected/{reason}"}
    assert warning(figures)


def test_half_a_character_is_replaced_and_stored(chat: ChatServer) -> None:
    chat.message = lambda request: {"content": "a \ud800 cup"}
    assert [llm_of(chat).reply(DIALOGUES[:1], [1]) for _ in range(2)] == [["a ? cup"]] * 2


def test_prompts_are_the_same_when_written_again_and_after_a_stop(chat: ChatServer) -> None:
    expected = written(llm_of(chat))
    first, chat.requests[:] = len(chat.requests), []
    assert written(llm_of(chat)) == expected
    assert chat.requests == []
    assert first >= len(expected.prompts)


def test_stored_replies_tell_request_and_server(chat: ChatServer) -> None:
    llm_of(chat).reply(DIALOGUES[:1], [5])
    stored = json.loads(next(Path(".work/replies").rglob("*.json")).read_text())
    assert stored["base_url"] == chat.url
    assert stored["request"]["seed"] == 5
    assert stored["content"] == phrase(stored["request"])


def test_the_models_of_a_server_are_listed(chat: ChatServer) -> None:
    chat.models = (MODEL, "b")
    assert llm_of(chat).server.models() == [MODEL, "b"]
    with pytest.raises(ValueError, match="has no /chat/completions"):
        llm_of(chat, base_url=chat.url + "/x").server.models()
    chat.listing = Response(200, {"error": {"message": "Invalid API key"}})
    with pytest.raises(ValueError, match="refuses requests without a key"):
        llm_of(chat).server.models()
    chat.listing = Response(503, {"error": {"message": "Loading model"}})
    with pytest.raises(ConnectionError, match=r"is not ready \(HTTP 503: .*Loading model.*try again"):
        llm_of(chat).server.models()


@pytest.mark.parametrize(
    ("listing", "why"),
    [
        (Response(404, "404 page not found"), "HTTP 404: 404 page not found"),
        (Response(404, HTML.body, HTML.headers), "HTTP 404: <!DOCTYPE"),
        (Response(405, ""), "HTTP 405"),
        (Response(501, ""), "HTTP 501"),
        (Response(308, "", {"Location": "/v2/models"}), "/models redirects to /v2/models"),
        (Response(200, {"error": {"message": "no such route"}}), "no such route"),
        (Response(200, b"[]"), r"HTTP 200: \[\]"),
    ],
)
def test_a_server_without_a_list_of_models_still_serves(chat: ChatServer, listing: Response, why: str) -> None:
    chat.listing = listing
    with pytest.raises(NoModelList, match=rf"answers, but its list of models cannot be read \(.*{why}"):
        llm_of(chat).server.models()
    assert chat.requests == [{"model": MODEL}]  # nothing to compute
    assert len(llm_of(chat).reply(DIALOGUES, SEEDS)) == 4


@pytest.mark.parametrize(
    ("answer", "problem"),
    [
        (Response(307, "", {"Location": "https://elsewhere/v1"}), "redirects to https://elsewhere/v1: write the final"),
        (Response(401, ""), "refuses requests without a key"),
        (HTML, "without a chat model's JSON.*not a web page"),
        (Response(404, ""), "has no /chat/completions"),
    ],
)
def test_an_address_with_neither_list_nor_chat_is_told_by_what_chat_answers(
    chat: ChatServer, answer: Response, problem: str
) -> None:
    chat.listing, chat.always = Response(404, ""), lambda request: answer
    with pytest.raises(ValueError, match=problem) as refused:
        llm_of(chat).server.models()
    assert not isinstance(refused.value, NoModelList)


def test_a_server_that_fails_without_messages_is_there(chat: ChatServer) -> None:
    chat.listing, chat.always = Response(404, ""), lambda request: BROKEN
    with pytest.raises(NoModelList):
        llm_of(chat).server.models()
