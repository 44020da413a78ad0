"""The plan of a run: work times the measured cost of a unit, and what would be cheaper."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from tailorset.commands.planning.device_rates import DeviceRates
from tailorset.commands.planning.workload import (
    Cost,
    Drawing,
    Work,
    expected_drawing,
    expected_replies,
    template_prompts,
    total,
    workload,
)
from tailorset.compute.device import resolve_device, use_tf32
from tailorset.progress import Bar
from tailorset.project.params import Params
from tailorset.records import LabelSpace, Split

CHEAPER: Mapping[str, Callable[[Any], float]] = {  # key of params.yaml -> a value that takes less
    "write_prompts.prompts_per_pair": lambda value: value // 2,
    "tune_unet.num_updates": lambda value: 0,
    "tune_text_encoder.num_updates": lambda value: 0,
    "tune_text_encoder.backprop_steps": lambda value: 1,
    "generate_images.images_per_label": lambda value: value // 2,
    "generate_images.num_inference_steps": lambda value: value // 2,
    "train_classifier.num_epochs": lambda value: value // 2,
    "train_classifier.crop_weight": lambda value: 0,
}
COUNTED = {  # further settings that change how much there is to do, and not what a unit of it costs
    "generate_images.max_images",
    "generate_images.negative_images",
    "train_classifier.mosaics",
    "train_classifier.synthetic_repeats",
    "train_classifier.warmup_epochs",
    "tune_text_encoder.evaluate_every",
    "tune_text_encoder.held_out_prompts",
    "write_prompts.max_attempts",
} | CHEAPER.keys()
SHARED = ("tune_text_encoder", "generate_images", "train_classifier")  # by num_processes
MIN_SAVED = 0.02  # of the run's time, below which a cheaper setting is not worth naming


@dataclass(frozen=True)
class Plan:
    """values: params.yaml as read. stages: of dvc.yaml. unit_costs: by unit of work; "start" is a stage's.

    accepted_replies, pass_rate: of the LLM and of the untuned generator, as a sample shows them, in [0, 1].
    """

    values: Mapping[str, Any]
    label_space: LabelSpace
    photos: Mapping[Split, int]
    stages: Sequence[str]
    unit_costs: Mapping[str, Cost]
    accepted_replies: float
    pass_rate: float

    @cached_property
    def params(self) -> Params:
        return Params.model_validate(self.values)

    @cached_property
    def drawing(self) -> Drawing:
        prompts = template_prompts(self.params, self.label_space)
        return expected_drawing(self.params, self.label_space, prompts, self.pass_rate)

    @cached_property
    def work(self) -> list[Work]:
        replies = expected_replies(self.accepted_replies, self.params.write_prompts.max_attempts)
        return workload(self.params, self.label_space, self.photos, replies, self.drawing)

    def stage(self, name: str) -> Cost:
        """Cost of a stage once it has started; processes that share one are taken to be as fast as one alone."""
        cost = total(self.unit_costs[work.unit].times(work.amount) for work in self.work if work.stage == name)
        return cost._replace(seconds=cost.seconds / self.params.num_processes) if name in SHARED else cost

    @property
    def starts(self) -> Cost:
        """Cost of starting all stages, mostly imports."""
        return self.unit_costs["start"].times(len(self.stages))

    @property
    def run(self) -> Cost:
        return total([self.starts, *map(self.stage, self.stages)])

    def saved_by(self, changes: Mapping[str, Any]) -> float | None:
        """Return the seconds that a run saves with these settings, {"block.key": value}.

        None if the plan cannot tell: the settings contradict each other, or change more than the amount of work.
        """
        if not changes.keys() <= COUNTED:
            return None
        values = copy.deepcopy(dict(self.values))
        for key, value in changes.items():
            block, name = key.split(".")
            values[block][name] = value
        try:
            return self.run.seconds - replace(self, values=values).run.seconds
        except (ValueError, KeyError):  # a contradiction, or a kind of work that was not measured
            return None

    def cheaper(self) -> Iterator[tuple[str, float, float, float]]:
        """Yield (key, value, smaller value, seconds saved), largest saving first."""
        found = []
        for key, smaller in CHEAPER.items():
            block_name, name = key.split(".")
            block = getattr(self.params, block_name)
            before = getattr(block, name, getattr(getattr(block, "config", None), name, None))
            if before is None or (value := smaller(before)) == before:
                continue
            saved = self.saved_by({key: value})
            if saved is not None and saved > MIN_SAVED * self.run.seconds:
                found.append((key, before, value, saved))
        yield from sorted(found, key=lambda row: -row[3])


def make_plan(values: Mapping[str, Any], label_space: LabelSpace, stages: Sequence[str]) -> Plan:
    """Measure this device by a short sample of all kinds of work, with the models and photos of params.yaml.

    Raises:
        ValueError: a model or the photos cannot be read.
    """
    params = Params.model_validate(values)
    block = params.prepare_dataset
    dataset = block.build(label_space, params.seed)
    use_tf32()
    rates = DeviceRates(
        params, label_space, dataset, template_prompts(params, label_space), resolve_device(params.device)
    )
    costs = dict(Bar(rates.unit_costs(), desc="measuring this device", unit="kind of work"))
    return Plan(values, label_space, dict(dataset.sizes), stages, costs, rates.accepted_replies, rates.pass_rate)
