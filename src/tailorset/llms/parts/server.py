"""An OpenAI-compatible server: requests, retries, and its faults in words.

The key comes from the environment, is sent as a header, and is neither stored nor shown.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tailorset.llms.parts import retries
from tailorset.llms.parts.answers import UNPAID, ServerAnswer
from tailorset.llms.parts.replies import ChatReply
from tailorset.llms.parts.served import ServedModel
from tailorset.messages import first_line, some, unknown

if TYPE_CHECKING:
    import httpx2

BLOCK = "write_prompts.llm"
CONNECT_SECONDS = 10
MAX_BYTES = 4 * 2**20  # of an answer
MAX_QUOTED = 300  # characters of an answer in a message
NOT_THERE = (404, 405, 501)  # no such address, or not for this method
EVENTS = "text/event-stream"  # content type of an answer in pieces
LOOPBACK = ("localhost", "127.0.0.1", "::1")
log = logging.getLogger(__name__)


class NoModelList(ValueError):
    """A server of chat models does not say which models it has."""


class ModelServer:
    """Requests to one model of a server; several threads may share it."""

    def __init__(self, config: ServedModel) -> None:
        import httpx2

        self.config, self.key = config, config.api_key()
        self.stopping = threading.Event()
        self.wait: Callable[[float], object] = self.stopping.wait  # for some seconds, or until `stop` is called
        self.has_answered = False
        self.client = httpx2.Client(
            headers={"Authorization": f"Bearer {self.key}"} if self.key else {},
            limits=httpx2.Limits(max_connections=None),  # the threads are the limit
            timeout=httpx2.Timeout(config.timeout_s, connect=min(CONNECT_SECONDS, config.timeout_s)),
            trust_env=urlsplit(config.base_url).hostname not in LOOPBACK,  # no proxy can reach this machine
        )

    def chat(self, request: Mapping[str, Any]) -> ChatReply:
        """Send a request until it is answered; one that a content filter refuses has an empty reply.

        Raises:
            ValueError: the server refuses it, or answers with something else than a reply.
            ConnectionError: the server cannot be reached, or stays busy or out of order.
        """
        answer = self._patiently(request)
        if answer.is_filtered:
            log.warning("%s filters out a request: %s", self.config.base_url, self._fault(answer))
            return ChatReply("")
        if answer.meaning != 200:
            raise ValueError(self._refusal(answer))
        try:
            return answer.reply()
        except (ValueError, LookupError, TypeError, AttributeError):
            raise ValueError(self._no_reply(answer)) from None

    def models(self) -> list[str]:
        """Return the names of the models that the server offers; asked once, without retries.

        Raises:
            NoModelList: the server has no list, but it has /chat/completions.
            ValueError: the server refuses, or answers with something else than the API.
            ConnectionError: the server cannot be reached, is busy, or is still loading a model.
        """
        try:
            return self._listed()
        except NoModelList:
            self._check_chat()
            raise

    def _listed(self) -> list[str]:
        """Return what `models` does, or raise NoModelList without a look at /chat/completions."""
        answer = self._once("GET", "/models")
        if answer.meaning in (401, 403):
            raise ValueError(self._refusal(answer))
        if answer.is_redirect:
            raise NoModelList(self._unlisted(f"/models redirects to {self._target(answer)}"))
        if answer.meaning != 200:
            raise NoModelList(self._unlisted(self._fault(answer)))
        try:
            return [str(model["id"]) for model in retries.parsed(answer.text)["data"] or ()]
        except ValueError:
            raise ValueError(self._no_reply(answer)) from None
        except (LookupError, TypeError):
            raise NoModelList(self._unlisted(self._fault(answer))) from None

    def _check_chat(self) -> None:
        """Check that there is /chat/completions, with a request that lacks the messages: nothing is computed.

        Raises:
            ValueError: there is none, it redirects or is a web page, or the key is refused.
        """
        try:
            answer = self._once("POST", "/chat/completions", {"model": self.config.model})
        except ConnectionError:
            return  # a request that lacks so much may well end in an error of the server
        if answer.is_redirect or answer.meaning in (401, 403, *NOT_THERE):
            raise ValueError(self._refusal(answer))
        if answer.is_page:
            raise ValueError(self._no_reply(answer))

    def _once(self, method: str, path: str, request: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Send one request without retries; a server that cannot answer now is a ConnectionError."""
        import httpx2

        try:
            answer = self._send(method, path, request)
        except httpx2.RequestError as error:
            raise ConnectionError(self._unreachable(error)) from error
        if retries.is_passing(answer.meaning, answer.text):
            raise ConnectionError(f"{self.config.base_url} is not ready ({self._fault(answer)}): try again")
        return answer

    def stop(self) -> None:
        """End the pauses of all threads, and let them send no more."""
        self.stopping.set()

    def _patiently(self, request: Mapping[str, Any]) -> ServerAnswer:
        """Return the first answer that is not of a passing kind; pauses grow, or are as long as the server asks."""
        import httpx2

        for attempt in range(self.config.max_retries + 1):
            asked = 0.0
            try:
                answer = self._send("POST", "/chat/completions", request)
                self.has_answered = True
                if not retries.is_passing(answer.meaning, answer.text):
                    return answer
                fault = self._fault(answer)
                asked = retries.asked_pause(answer.headers)
            except httpx2.RequestError as error:
                if not self.has_answered and isinstance(error, httpx2.ConnectError | httpx2.ConnectTimeout):
                    raise ConnectionError(self._unreachable(error)) from error
                fault = first_line(error)
            if attempt == self.config.max_retries or asked > retries.MAX_PAUSE:
                break
            pause = max(asked, retries.pause(attempt))
            log.info("%s: %s; asked again in %.0f s", self.config.base_url, fault, pause)
            self.wait(pause)
            if self.stopping.is_set():
                break
        raise ConnectionError(self._given_up(fault, attempt + 1, asked))

    def _send(self, method: str, path: str, request: Mapping[str, Any] | None = None) -> ServerAnswer:
        """Send one request; the whole answer must arrive within timeout_s."""
        import httpx2

        end, content = time.monotonic() + self.config.timeout_s, bytearray()
        with self.client.stream(method, self.config.base_url + path, json=request) as response:
            for chunk in response.iter_bytes():
                content += chunk
                if len(content) > MAX_BYTES:
                    raise ValueError(f"{self.config.base_url} sent more than {MAX_BYTES} bytes: {_NOT_THE_API}")
                if time.monotonic() > end:
                    raise httpx2.ReadTimeout(f"the answer was not complete after {self.config.timeout_s:g} s")
        return ServerAnswer(response.status_code, response.headers, content.decode(errors="replace"))

    def _refusal(self, answer: ServerAnswer) -> str:
        config = self.config
        if answer.meaning in (401, 403):
            return f"{config.base_url} refuses {self._credentials()} ({self._fault(answer)})"
        if answer.meaning == UNPAID:
            return (
                f"{config.base_url} answers no more requests for this account ({self._fault(answer)}): add credit"
                f" there, or name another server in {BLOCK}; replies so far are kept"
            )
        if answer.meaning in NOT_THERE:
            return self._not_found(answer)
        if answer.is_redirect:
            return (
                f"{config.base_url} redirects to {self._target(answer)}: write the final address into {BLOCK}.base_url"
            )
        return (
            f"{config.base_url} refuses the request ({self._fault(answer)}). If it does not accept a field of"
            f" {BLOCK}.extra_body, remove the field, or set extra_body to null; if it does not accept temperature,"
            " top_p or max_tokens (here max_new_tokens), set that to null, and put a limit of another name into"
            " extra_body; if it does not accept seed, set seed_field to random_seed or null; if the text is too long"
            f" for the model, lower {BLOCK}.max_new_tokens or give the server a longer context"
        )

    def _credentials(self) -> str:
        name = self.config.api_key_env
        if name is None:
            return (
                f"requests without a key: set {BLOCK}.api_key_env to the name of an environment variable with the key"
            )
        return f"the key in ${name}: export a valid one, or name another variable in {BLOCK}.api_key_env"

    def _not_found(self, answer: ServerAnswer) -> str:
        try:
            names = self._listed()
        except (ValueError, ConnectionError):
            names = []
        if names and self.config.model not in names:
            return unknown(f"model of {self.config.base_url}", self.config.model, names)
        return (
            f"{self.config.base_url} has no /chat/completions for model {self.config.model!r} ({self._fault(answer)}):"
            f" correct {BLOCK}.base_url, which usually ends in /v1, or {BLOCK}.model ({some(names) or 'none listed'})"
        )

    def _no_reply(self, answer: ServerAnswer) -> str:
        kind = answer.headers.get("content-type", "no content type")
        return (
            f"{self.config.base_url} answers without a chat model's JSON (HTTP {answer.status}, {kind}):"
            f" {self._quoted(answer.text)!r}. {_STREAMS if kind.startswith(EVENTS) else _NOT_THE_API}"
        )

    def _unreachable(self, error: httpx2.RequestError) -> str:
        return (
            f"no server answers at {self.config.base_url} ({first_line(error)}): start it (`ollama serve`,"
            f" `vllm serve MODEL`, `llama-server -m FILE`), or correct {BLOCK}.base_url"
        )

    def _given_up(self, fault: str, attempts: int, asked: float) -> str:
        longer = f" and asks for a pause of {asked:.0f} s" if asked > retries.MAX_PAUSE else ""
        return (
            f"{self.config.base_url} gave no reply in {attempts} attempts{longer}; the last one: {fault}. Run again"
            f" later (replies so far are kept), lower {BLOCK}.concurrency, or raise {BLOCK}.max_retries or timeout_s"
        )

    def _unlisted(self, why: str) -> str:
        return f"{self.config.base_url} answers, but its list of models cannot be read ({why})"

    def _target(self, answer: ServerAnswer) -> str:
        return self._quoted(answer.headers.get("location", "another address"))

    def _fault(self, answer: ServerAnswer) -> str:
        return f"HTTP {answer.status}: {self._quoted(answer.text)}"

    def _quoted(self, text: str) -> str:
        """Return the beginning of a text of the server on one line, without the key."""
        line = " ".join((text.replace(self.key, "***") if self.key else text).split())
        return "".join(char if char.isprintable() else "?" for char in line[:MAX_QUOTED]) or "an empty text"


_STREAMS = f"It streams, although `stream` is false: switch that off on the server, or name another in {BLOCK}.base_url"
_NOT_THE_API = f"Correct {BLOCK}.base_url: it is the root of the API, which usually ends in /v1, not a web page"
