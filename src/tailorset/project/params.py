"""params.yaml, typed: frozen, and an unknown key is an error that names the nearest one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, Field, SerializeAsAny, ValidationError, field_validator

from tailorset.card.settings import DataCard
from tailorset.clip.settings import Clips
from tailorset.datasets import DatasetConfig
from tailorset.datasets.reading.changes import UserPath
from tailorset.evaluation.settings import Evaluate, ScoreBaselines
from tailorset.generation.settings import GenerateImages
from tailorset.generators import GeneratorConfig
from tailorset.messages import invalid
from tailorset.prompts.settings import WritePrompts
from tailorset.records.yaml_files import parse_yaml
from tailorset.settings import Block, PluginBlock
from tailorset.storage.hub import NamedModel
from tailorset.thresholds.settings import FitThresholds
from tailorset.training.settings import TrainClassifier
from tailorset.tuning.settings import TuneTextEncoder
from tailorset.tuning.unet_settings import TuneUnet
from tailorset.validation.settings import ValidateData


def _address(storage: str) -> str:
    """A URL, or a path that means the same wherever a stage runs."""
    if "://" not in storage and not Path(storage).is_absolute():
        raise ValueError(f"{storage!r} is not a URL: give one, e.g. s3://bucket/folder, an absolute path, or null")
    return storage


PREFIX = "tailorset-"  # of registered models


class GeneratorSettings(PluginBlock):
    kind = "generators"
    config: SerializeAsAny[GeneratorConfig]


class EngineSettings(Block):
    name: Literal["local", "ray"]
    address: str = "auto"


class PrepareDataset(PluginBlock):
    kind = "datasets"
    config: SerializeAsAny[DatasetConfig]
    shard_size: int = Field(gt=0)
    # Photos that write_prompts.captions and generate_images.from_photos may start from: those of train, or a folder
    lend_photos: Literal["train"] | UserPath | None = None

    @field_validator("lend_photos", mode="before")
    @classmethod
    def _train_or_a_folder(cls, value: object) -> object:
        if value is not None and not isinstance(value, str | Path):
            raise ValueError(f"is {value!r}: choose train, a folder of photos, or null")
        return value


class FilterImages(PluginBlock):
    kind = "filters"


class RegisterModel(Block):
    model_name: Annotated[str, Field(pattern=r"^[^/:']+$")] | None  # MLflow's rule, and ' ends a name in its filters


class Params(Block):
    """All of params.yaml: what every stage shares first, then one block per stage."""

    seed: int = Field(ge=0, lt=2**63)
    device: Literal["auto", "cpu", "cuda"]
    num_processes: int = Field(default=1, ge=1)
    memory_budget_gb: Annotated[float, Field(gt=0)] | None = None
    engine: EngineSettings = EngineSettings(name="local")
    storage: Annotated[str, AfterValidator(_address)] | None
    label_space: Path
    max_hours: float | None = Field(None, gt=0, le=8760)  # a year; timers overflow far beyond
    licences: Literal["any", "commercial"] = "any"
    clip: Clips
    generator: GeneratorSettings
    prepare_dataset: PrepareDataset
    write_prompts: WritePrompts
    tune_unet: TuneUnet
    tune_text_encoder: TuneTextEncoder
    generate_images: GenerateImages
    filter_images: FilterImages
    validate_data: ValidateData
    train_classifier: TrainClassifier
    fit_thresholds: FitThresholds
    score_baselines: ScoreBaselines
    evaluate: Evaluate
    data_card: DataCard
    register_model: RegisterModel

    @property
    def model_name(self) -> str:
        """Name in the model registry: one per label file, unless params.yaml gives another."""
        return self.register_model.model_name or PREFIX + re.sub("[:@']", "-", self.label_space.stem)


def load_params(path: str | Path = "params.yaml") -> Params:
    """Read and validate a params file.

    Raises:
        ValueError: every fault of the file, one per line: key, value, choices.
    """
    return check_params(read_yaml(path), path)


def check_params(values: Mapping[str, Any], source: str | Path) -> Params:
    """Validate all settings; `source` is the file that error messages name.

    Raises:
        ValueError: every fault of the settings, one per line: key, value, choices.
    """
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        is_short = any(fault["type"] == "missing" for fault in error.errors())
        hint = "\npresets/toybox.yaml has every block, with what its keys mean." if is_short else ""
        raise ValueError(invalid(source, error) + hint) from None


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
        ValueError: no such file, no YAML, a key twice, a value that cannot be read, or not a mapping.
    """
    try:
        content = parse_yaml(Path(path).read_text(encoding="utf-8"), path)
    except FileNotFoundError:
        remedy = ", or `tailorset use toybox` writes it" if Path("presets").is_dir() else ""
        raise ValueError(f"There is no {path} here: go to the folder of a tailorset project{remedy}.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is not a text file in UTF-8: {error}") from None
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {error}") from None
    if not isinstance(content, dict):
        raise ValueError(f"{path} must hold `key: value` lines at the top level, not {type(content).__name__}.")
    return content


def flatten(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"a": {"b": 1}} -> {"a.b": 1}, the spelling `dvc exp run -S` uses."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, Mapping) else {f"{prefix}{key}": value}
    return flat
