"""Draw on all devices of a Ray cluster: an actor on each holds the models, and shards are the unit of work.

Only rows and images travel back; the process that started the stage writes them. A lost actor's shard is drawn again
by another, and a new actor takes its place as soon as its machine, or another, has room.
"""

from __future__ import annotations

import logging
import os
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import ray
from ray.exceptions import RayError, RayTaskError

from tailorset.compute.device import resolve_device, use_tf32
from tailorset.compute.memory import enforce_budget
from tailorset.generation.engine import Shard, Shelf
from tailorset.generation.studio import PlannedShard, Row, Samples
from tailorset.generators import Part
from tailorset.messages import first_line
from tailorset.project.assembly import open_studio
from tailorset.project.cluster import dial, no_cluster
from tailorset.project.definition import fingerprint
from tailorset.project.params import Params, named_models
from tailorset.records import LabelSpace
from tailorset.storage.hub import cached_commit

MAX_LOSSES = 3  # of one shard, or in a row of each worker before it is ready: the next one would be lost as well
LEAD = 4  # shards per worker that may be drawn ahead of the first missing one
PATIENCE_SECONDS = 60
log = logging.getLogger(__name__)


class WorkerJob(NamedTuple):
    """Work for a worker. files: those that the images depend on, next to params and adapters; state: their digest."""

    params: Params
    label_space: LabelSpace
    adapters: Mapping[Part, dict[str, bytes]]  # contents of their files by name
    files: Sequence[str]
    state: str
    project: str


class Task(Enum):
    """Tasks of an actor other than drawing: load its models, or answer that it is alive."""

    OPEN = "open"
    PING = "ping"


def state_of(params: Params, files: Sequence[str]) -> str:
    """A digest of files in the current folder, and of the commits of hub models as they are cached on this machine.

    Raises:
        ValueError: a file is missing.
    """
    commits = {
        key: cached_commit(model.repository, model.revision)
        for key, model in named_models(params)
        if model.repository and key.startswith(("generator", "clip"))
    }
    return fingerprint({"params": commits, "deps": files})


class Worker:
    """The models on one device of one machine, in the project's folder there."""

    def open(self, job: WorkerJob) -> None:
        """Load the models.

        Raises:
            ValueError: code or models differ from those of the machine that started the stage.
        """
        if Path(job.project).is_dir():  # else `ray start` was called in the project's folder on this machine
            os.chdir(job.project)
        try:
            state = state_of(job.params, job.files)
        except ValueError as error:
            state = str(error)
        if state != job.state:
            raise ValueError(
                f"code or models in {Path.cwd()} on {os.uname().nodename} differ from those of the machine that started"
                f" generate_images ({state}): bring both to the same commit, pin a `revision` of hub models, and call"
                " `ray start` in the project's folder"
            )
        use_tf32()
        device = resolve_device(job.params.device)
        enforce_budget(job.params.memory_budget_gb, device)
        with TemporaryDirectory() as folder:
            adapters = {part: Path(folder, part) for part in job.adapters}
            for part, files in job.adapters.items():
                adapters[part].mkdir()
                for name, content in files.items():
                    (adapters[part] / name).write_bytes(content)
            self._studio = open_studio(job.params, job.label_space, device, adapters)

    def ping(self) -> None:
        """Answer, to show that the worker is alive."""

    def draw(self, plan: PlannedShard) -> tuple[list[Row], Samples, int]:
        """Return the result of `Studio.draw_shard`, and the number of images drawn at once."""
        return *self._studio.draw_shard(plan), self._studio.drawing.size


class RayEngine:
    """Draws shards on a cluster; see `generation.engine.Engine`.

    address: of the cluster's head, or auto for the one this machine belongs to. files: what the images depend on in
    the project's folder, beside the adapters. on_batch: called with the number of images of each shard, for progress.

    Raises:
        ValueError: there is no cluster at the address, or it has no device of the kind that params.yaml asks for.
    """

    def __init__(
        self,
        address: str,
        params: Params,
        label_space: LabelSpace,
        adapters: Mapping[Part, Path],
        files: Sequence[str],
        on_batch: Callable[[int], object],
    ) -> None:
        connect(address)
        kind, number = devices(params.device)
        log.info("drawing on a Ray cluster: %d workers, a %s each", number, kind)
        content = {
            part: {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            for part, folder in adapters.items()
        }
        self._job = ray.put(WorkerJob(params, label_space, content, files, state_of(params, files), str(Path.cwd())))
        self.batch_size = params.generate_images.batch_size
        self._actor: Any = ray.remote(Worker).options(**{f"num_{kind.lower()}s": 1})
        self._on_batch, self._losses = on_batch, Counter[str]()
        self._num_workers, self._failed_starts = number, 0
        self._idle: deque[Any] = deque()
        self._running: dict[Any, tuple[Any, PlannedShard | Task]] = {}  # answer to come: its actor, and what it does
        for _ in range(number):
            self._add_worker()

    def shards(self, plans: Sequence[PlannedShard], shelf: Shelf) -> Iterator[Shard]:
        """Yield the shards in order; each is stored once it is drawn, and kept in memory until its turn."""
        made: dict[str, Shard] = {}
        waiting: deque[PlannedShard] = deque()
        ahead, lead = iter(plans), LEAD * self._num_workers
        for number, plan in enumerate(plans):
            for coming in islice(ahead, 1 if number else lead):  # one more for each shard that was yielded
                if shard := shelf.find(coming):
                    made[coming.name] = shard
                else:
                    waiting.append(coming)
            while plan.name not in made:
                self._hand_out(waiting)
                if drawn := self._next_drawn(waiting, shelf):
                    made[drawn.name] = drawn
            yield made.pop(plan.name)

    def _hand_out(self, waiting: deque[PlannedShard]) -> None:
        while waiting and self._idle:
            actor, plan = self._idle.popleft(), waiting.popleft()
            self._running[actor.draw.remote(plan)] = (actor, plan)

    def _next_drawn(self, waiting: deque[PlannedShard], shelf: Shelf) -> Shard | None:
        """Wait for an answer; store and return the shard that was drawn, if the answer is one."""
        actor, task, answer = self._wait()
        try:
            result = ray.get(answer)
        except RayTaskError as error:
            raise error.cause from None
        except RayError as error:
            self._lost(task, error, waiting)
            return None
        self._idle.append(actor)
        if task is Task.OPEN:
            self._failed_starts = 0
        if not isinstance(task, PlannedShard):
            return None
        rows, samples, size = result
        self.batch_size = min(self.batch_size, size)
        shard = shelf.add(task.name, rows, samples)
        self._on_batch(len(rows))
        return shard

    def _wait(self) -> tuple[Any, PlannedShard | Task, Any]:
        """Wait for the next actor that answers; return it, its task and the answer."""
        while not (answers := ray.wait(list(self._running), timeout=PATIENCE_SECONDS)[0]):
            if all(task is Task.OPEN for _, task in self._running.values()):
                log.warning(
                    "waiting for a worker: the cluster has no free device, or models are loading; see `ray status`"
                )
        return *self._running.pop(answers[0]), answers[0]

    def _lost(self, task: PlannedShard | Task, error: RayError, waiting: deque[PlannedShard]) -> None:
        """Give the task of a lost worker to another one; ping idle workers first, as they may be lost, too.

        Raises:
            RuntimeError: a shard, or loading the models, is too much for any worker.
        """
        log.warning("lost a Ray worker (%s): %s", task.name, first_line(error))
        if isinstance(task, PlannedShard):
            waiting.appendleft(task)
            self._losses[task.name] += 1
            if self._losses[task.name] == MAX_LOSSES:
                raise RuntimeError(f"{task.name}: {MAX_LOSSES} workers were lost while drawing it: {error}") from error
        elif task is Task.OPEN:
            self._failed_starts += 1
            if self._failed_starts == MAX_LOSSES * self._num_workers:
                raise RuntimeError(f"{self._failed_starts} workers were lost while they loaded: {error}") from error
        while self._idle:
            actor = self._idle.popleft()
            self._running[actor.ping.remote()] = (actor, Task.PING)
        self._add_worker()

    def _add_worker(self) -> None:
        actor = self._actor.remote()
        self._running[actor.open.remote(self._job)] = (actor, Task.OPEN)


def connect(address: str) -> None:
    """Join the cluster.

    Raises:
        ValueError: there is none at the address.
    """
    try:
        dial(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
    except (OSError, RuntimeError, ValueError) as error:
        problem, remedy = no_cluster(address, first_line(error))
        raise ValueError(f"{problem}: {remedy}") from error


def devices(device: str) -> tuple[str, int]:
    """Resource that a worker of the cluster takes, GPU or CPU, and its number.

    Raises:
        ValueError: the cluster has no GPU, and params.yaml asks for one.
    """
    found = ray.cluster_resources()
    number = {kind: int(found.get(kind, 0)) for kind in ("GPU", "CPU")}
    kind = "GPU" if device == "cuda" or (device == "auto" and number["GPU"]) else "CPU"
    if not number[kind]:
        raise ValueError(f"device is {device!r}, and the Ray cluster has {number}: add a machine by `ray start`")
    return kind, number[kind]
