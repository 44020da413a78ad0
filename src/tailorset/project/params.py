"""params.yaml, typed: frozen, and an unknown key is an error that names the nearest one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SerializeAsAny, ValidationError, model_validator

from tailorset.clip.model import OpenClip
from tailorset.plugins import check_keys, faults, plugin_config
from tailorset.prompts.writer import num_prompts
from tailorset.records import LabelSpace
from tailorset.storage.hub import NamedModel


def _wording(template: str) -> str:
    """A template that takes a label's name and nothing else."""
    try:
        filled = template.format("a label")
    except (IndexError, KeyError, ValueError):
        filled = ""
    if "{}" not in template or "a label" not in filled:
        raise ValueError(f"{template!r} is no wording for a label: write its place as {{}}, once, and no other braces")
    return template


def _address(storage: str) -> str:
    """A URL, or a path that means the same wherever a stage runs."""
    if "://" not in storage and not Path(storage).is_absolute():
        raise ValueError(f"{storage!r} is no URL: give one, e.g. s3://bucket/folder, or a path from the root, or null")
    return storage


Wording = Annotated[str, AfterValidator(_wording)]
PREFIX = "tailorset-"  # of registered models


class Block(BaseModel):
    """One block of params.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        if isinstance(values, Mapping):
            check_keys(values, cls.model_fields, where=cls.__name__)
        return values


class PluginBlock(Block):
    """A block that names a plug-in: the keys declared here belong to the stage, all others to the plug-in's Config."""

    kind: ClassVar[str]
    name: str
    config: SerializeAsAny[BaseModel]

    @model_validator(mode="before")
    @classmethod
    def _known_keys(cls, values: Any) -> Any:
        """Split {"name": ..., keys} into this block's own fields and the plug-in's validated Config."""
        if not isinstance(values, Mapping) or isinstance(values.get("config"), BaseModel):
            return values
        own = set(cls.model_fields) - {"name", "config"}
        theirs = {key: value for key, value in values.items() if key not in own}
        config = plugin_config(cls.kind, theirs, also_known=own)
        return {"name": values["name"], "config": config} | {key: values[key] for key in own & set(values)}


class ClipModel(OpenClip, Block):
    """An open_clip model; an unknown key is an error as everywhere here."""


class Clip(Block):
    discriminator: ClipModel
    judge: ClipModel
    prompt_template: Wording


class Generator(PluginBlock):
    kind = "generators"


class Engine(Block):
    name: Literal["local", "ray"]
    address: str = "auto"


class PrepareDataset(PluginBlock):
    kind = "datasets"
    shard_size: int = Field(gt=0)


class Llm(PluginBlock):
    kind = "llms"


class WritePrompts(Block):
    prompts_per_pair: int = Field(gt=0)
    max_prompts: int | None = Field(gt=0)
    min_words: int = Field(ge=1)
    max_attempts: int = Field(ge=0)
    llm: Llm

    def num_prompts(self, label_space: LabelSpace) -> int:
        """How many prompts will be written for the unseen labels."""
        return num_prompts(label_space, self.prompts_per_pair, self.max_prompts)


class TuneTextEncoder(Block):
    num_updates: int = Field(ge=0)
    batch_size: int = Field(gt=0)
    learning_rate: float = Field(gt=0)
    weight_decay: float = Field(ge=0)
    max_grad_norm: float = Field(gt=0)
    lora_rank: int = Field(gt=0)
    lora_alpha: float = Field(gt=0)
    num_inference_steps: int = Field(gt=0)
    backprop_steps: int = Field(gt=0)
    stop_after: tuple[int, int] | None
    compare_with: Literal["unseen", "all"]
    gradient_checkpointing: bool
    gamma_neg: float = Field(ge=0)
    gamma_pos: float = Field(ge=0)
    clip: float = Field(ge=0, lt=1)
    held_out_prompts: int = Field(gt=0)
    evaluate_every: int = Field(gt=0)
    patience: int = Field(gt=0)
    checkpoint_every: int = Field(gt=0)

    @model_validator(mode="after")
    def _steps(self) -> Self:
        if self.backprop_steps > self.num_inference_steps:
            raise ValueError(
                f"backprop_steps is {self.backprop_steps}, more than the sampling steps there are: "
                f"choose 1 to num_inference_steps ({self.num_inference_steps})."
            )
        least, most = self.stop_after or (1, self.num_inference_steps)
        if not 1 <= least <= most <= self.num_inference_steps:
            raise ValueError(
                f"stop_after is [{least}, {most}]: choose a least and a most number of steps from 1 to"
                f" num_inference_steps ({self.num_inference_steps}), or null for all"
            )
        return self


class Allocation(Block):
    name: Literal["uniform", "turns", "thompson"]
    round_images: int = Field(gt=0)
    gain: Literal["images", "labels"]
    max_share_per_prompt: float = Field(gt=0, le=1)
    max_share_per_pair: float = Field(gt=0, le=1)


class GenerateImages(Block):
    images_per_label: int = Field(gt=0)
    max_images: int = Field(gt=0)
    allocation: Allocation
    weakness: dict[str, Annotated[float, Field(gt=0)]]
    quota_threshold: float = Field(ge=0, le=1)
    num_inference_steps: int = Field(gt=0)
    batch_size: int = Field(gt=0)
    shard_size: int = Field(gt=0)


class FilterImages(PluginBlock):
    kind = "filters"


class ValidateData(Block):
    max_template_share: float = Field(ge=0, le=1)
    min_images_per_label: int = Field(ge=0)
    annotated_unseen: bool = False


class TrainClassifier(PluginBlock):
    kind = "classifiers"
    held_out_share: float = Field(gt=0, lt=1)
    synthetic_repeats: int = Field(ge=1)


class FitThresholds(Block):
    source: Literal["seen_photos", "synthetic"]
    share_pooling: float = Field(ge=0, le=1)
    max_risk: float = Field(gt=0, le=0.5)


class Evaluate(Block):
    top_k: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    templates: tuple[Wording, ...] = Field(min_length=1)


class DataCard(Block):
    num_shown: int = Field(ge=2)
    num_resamples: int = Field(gt=0)
    near_duplicate: float = Field(gt=0, le=1)
    low_pass_rate: float = Field(ge=0, le=1)
    min_gain: float = Field(ge=0, lt=1)


class RegisterModel(Block):
    model_name: Annotated[str, Field(pattern=r"^[^/:]+$")] | None  # MLflow's rule


class Params(Block):
    """All of params.yaml: what every stage shares first, then one block per stage."""

    seed: int
    device: Literal["auto", "cpu", "cuda"]
    num_processes: int = Field(default=1, ge=1)
    memory_budget_gb: Annotated[float, Field(gt=0)] | None = None
    engine: Engine = Engine(name="local")
    storage: Annotated[str, AfterValidator(_address)] | None
    label_space: Path
    max_hours: float | None = Field(None, gt=0)
    clip: Clip
    generator: Generator
    prepare_dataset: PrepareDataset
    write_prompts: WritePrompts
    tune_text_encoder: TuneTextEncoder
    generate_images: GenerateImages
    filter_images: FilterImages
    validate_data: ValidateData
    train_classifier: TrainClassifier
    fit_thresholds: FitThresholds
    evaluate: Evaluate
    data_card: DataCard
    register_model: RegisterModel

    @property
    def model_name(self) -> str:
        """Name in the model registry: one per label file, unless params.yaml gives another."""
        return self.register_model.model_name or PREFIX + re.sub("[:@]", "-", self.label_space.stem)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params file.

    Raises:
        ValueError: every fault of the file, one a line: key, value, choices.
    """
    try:
        return Params.model_validate(read_yaml(path))
    except ValidationError as error:
        is_short = any(fault["type"] == "missing" for fault in error.errors())
        hint = "\npresets/toybox.yaml has every block, with what its keys mean." if is_short else ""
        raise ValueError(f"{path} is not valid:\n{faults(error)}{hint}") from None


def named_models(block: BaseModel, prefix: str = "") -> Iterator[tuple[str, NamedModel]]:
    """(dotted key, model) of every model that a file of settings names."""
    for key, value in block:
        if isinstance(value, NamedModel):
            yield f"{prefix}{key}".removesuffix(".config"), value
        if isinstance(value, BaseModel):
            yield from named_models(value, prefix if key == "config" else f"{prefix}{key}.")


def read_yaml(path: str | Path) -> dict[str, Any]:
    """A YAML file whose top level is a mapping.

    Raises:
        ValueError: no such file, no YAML, or not a mapping.
    """
    try:
        content = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"There is no {path} here: go to the project's folder or `tailorset use toybox`.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no file of text in UTF-8: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is no YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `key: value` lines at the top level, not {type(content).__name__}.")
    return content


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, the spelling `dvc exp run -S` uses."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
