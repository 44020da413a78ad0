"""From the bytes of a photo to an answer: checked, decoded, computed together with others, decided.

Shapes: L labels, P x P pixels, h x w positions of a map.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import dataclass
from itertools import groupby
from typing import Any, NamedTuple

import torch
from torch import Tensor

from tailorset.images.codec import decode_image
from tailorset.inference.predictor import NOVEL, Looked, Predictor, is_unfamiliar
from tailorset.inference.uploads import Refusal, check_upload, damaged, row_named
from tailorset.messages import unknown
from tailorset.serving.answers import Answer, Attention, ModelAnswer, model_answer
from tailorset.serving.batching import Batcher, Full
from tailorset.serving.live import Backend, LiveModel
from tailorset.serving.measures import Measures

logger = logging.getLogger("uvicorn.error")

DECODERS = 2  # threads; each may hold a picture of MAX_PIXELS
ANSWER_S = 30.0  # after which a waiting request is refused
DRAIN_S = 40  # for requests in flight when the service ends
RELOAD_S = 3.0  # for a new version that is being loaded then; an export ends with the process


@dataclass(frozen=True)
class Load:
    """Limits on simultaneous work. `max_waiting` bounds the admitted requests, and the images that wait."""

    max_batch: int = 16
    max_wait_s: float = 0.003
    max_waiting: int = 32


class ScoringJob(NamedTuple):
    """A photo for one model, (3, P, P) uint8, and the label whose map is requested."""

    predictor: Predictor
    pixels: Tensor
    label: str | None = None


class Scored(NamedTuple):
    """scores: (L,); novelty: (), see `Looked`; map: (h, w), summing to 1."""

    scores: Tensor
    novelty: Tensor | None
    map: Tensor | None


class Service:
    """The models, the threads that decode and compute, and the measures."""

    def __init__(
        self,
        model: str,
        challenger: str | None = None,
        load: Load | None = None,
        poll_s: float = 5.0,
        backend: Backend = "torch",
    ) -> None:
        """Load the models.

        Raises:
            ValueError: one of them cannot be used or computed by the backend, they have different labels, or the queue
                has no room for a photo of both.
        """
        self.load, self.poll_s, self.measures = load or Load(), poll_s, Measures()
        if challenger and self.load.max_waiting < 2:
            raise ValueError(
                f"max_waiting is {self.load.max_waiting}, and a photo waits twice where two models are compared:"
                " choose 2 or more"
            )
        self.champion = LiveModel(model, self.measures.loaded, backend)
        self.challenger = LiveModel(challenger, self.measures.loaded, backend) if challenger else None
        if self.challenger and set(self.challenger.predictor.labels) != set(self.champion.predictor.labels):
            raise ValueError(
                f"{model} and {challenger} have different labels: only models of the same labels can be compared"
            )
        self.batcher = Batcher(self._compute, self.load.max_batch, self.load.max_wait_s, self.load.max_waiting)
        self.measures.watch_queue(lambda: self.batcher.num_waiting)
        self.is_ready = False
        self._decoders = ThreadPoolExecutor(DECODERS, thread_name_prefix="decoder")

    @property
    def models(self) -> list[LiveModel]:
        return [self.champion, *([self.challenger] if self.challenger else [])]

    async def run(self) -> None:
        """Answer, and follow the aliases, until cancelled."""
        stop = threading.Event()
        followers = [
            threading.Thread(target=model.follow, args=(self.poll_s, stop), daemon=True)
            for model in self.models
            if model.follows_alias
        ]
        for follower in followers:
            follower.start()
        gc.collect()
        gc.freeze()  # all objects of torch and MLflow; collecting them repeatedly would stop answers for 0.4 s
        self.is_ready = True
        try:
            await self.batcher.run()
        finally:
            self.is_ready = False
            stop.set()
            for follower in followers:
                follower.join(RELOAD_S)

    async def answer(self, content: bytes, label: str | None, compare: bool) -> Answer:
        """Return the champion's answer on a photo, and the challenger's if `compare`.

        Raises:
            Refusal: the photo cannot be used, there is no such label or challenger, or the queue is full.
        """
        if compare and not self.challenger:
            raise Refusal(422, "No second model is served here: start with --challenger models:/NAME@challenger.")
        predictors = [model.predictor for model in (self.models if compare else self.models[:1])]
        for predictor in predictors:
            if label is not None and label not in predictor.labels:
                raise Refusal(422, unknown("label", label, predictor.labels))
        jobs = await self._decoded(predictors, [content], label)
        scored = await self._computed(jobs)
        answers = [_answer(job, result) for job, result in zip(jobs, scored, strict=True)]
        self.measures.decided({entry.label: entry.decision for entry in answers[0].labels}, answers[0].unfamiliar)
        return Answer(**dict(answers[0]), challenger=answers[1] if compare else None)

    async def rows(self, contents: Sequence[bytes]) -> list[dict[str, Any]]:
        """Return the champion's answers, one row per photo, with the columns of the registered model.

        Raises:
            Refusal: names the row of a photo that cannot be used; or there are too many.
        """
        if len(contents) > self.load.max_waiting:
            raise Refusal(413, f"{len(contents)} images: send at most {self.load.max_waiting} in one request.")
        predictor = self.champion.predictor
        scored = await self._computed(await self._decoded([predictor], contents))
        if not scored:
            return []
        answers = predictor.answers(_together(scored))
        rows = [dict(zip(answers, values, strict=True)) for values in zip(*answers.values(), strict=True)]
        for row in rows:
            decisions = {label: row[f"decision/{label}"] for label in predictor.labels}
            self.measures.decided(decisions, is_unfamiliar(row[NOVEL]))
        return rows

    async def _decoded(
        self, predictors: Sequence[Predictor], contents: Sequence[bytes], label: str | None = None
    ) -> list[ScoringJob]:
        loop, jobs = asyncio.get_running_loop(), []
        for number, content in enumerate(contents):
            with row_named(number) if len(contents) > 1 else nullcontext():
                decoded = await loop.run_in_executor(self._decoders, _decode, predictors, content)
            jobs += [
                ScoringJob(predictor, pixels, label) for predictor, pixels in zip(predictors, decoded, strict=True)
            ]
        return jobs

    async def _computed(self, jobs: list[ScoringJob]) -> list[Scored]:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await self.batcher.submit(jobs)
        except Full:
            raise busy() from None
        except TimeoutError:
            raise Refusal(503, f"No answer within {ANSWER_S:.0f} s: try again.", retry_after_s=5) from None
        except RuntimeError as error:  # usually out of memory
            logger.exception("a batch failed")
            raise Refusal(503, f"The classifier failed ({type(error).__name__}): try again.", retry_after_s=5) from None

    def _compute(self, jobs: list[ScoringJob]) -> list[Scored]:
        """Compute a batch, in the one thread that uses the models; it may have jobs of two models or versions."""
        self.measures.batches.observe(len(jobs))
        order = sorted(range(len(jobs)), key=lambda index: id(jobs[index].predictor))
        results: dict[int, Scored] = {}
        for _, indices in groupby(order, key=lambda index: id(jobs[index].predictor)):
            members = list(indices)
            results |= zip(members, _score([jobs[index] for index in members]), strict=True)
        return [results[index] for index in range(len(jobs))]


def busy() -> Refusal:
    """Return the refusal if the queue is full."""
    return Refusal(429, "The queue is full: try again in a second.", retry_after_s=1)


def _decode(predictors: Sequence[Predictor], content: bytes) -> list[Tensor]:
    try:
        check_upload(content)
        image = decode_image(content)
        return [predictor.pixels(image) for predictor in predictors]
    except ValueError:
        raise damaged(content) from None


def _score(jobs: Sequence[ScoringJob]) -> Iterator[Scored]:
    """Score jobs of one predictor."""
    predictor = jobs[0].predictor
    scores, novelty = predictor.look(torch.stack([job.pixels for job in jobs]))
    for number, job in enumerate(jobs):
        attention = None if job.label is None else predictor.map(job.pixels, job.label)
        yield Scored(scores[number], None if novelty is None else novelty[number], attention)


def _together(scored: Sequence[Scored]) -> Looked:
    """Join the results of one predictor."""
    novelty = [result.novelty for result in scored if result.novelty is not None]
    return Looked(torch.stack([result.scores for result in scored]), torch.stack(novelty) if novelty else None)


def _answer(job: ScoringJob, result: Scored) -> ModelAnswer:
    attention = None
    if job.label is not None and result.map is not None:
        attention = Attention(label=job.label, weights=result.map.tolist())
    return model_answer(job.predictor, _together([result]), attention)
