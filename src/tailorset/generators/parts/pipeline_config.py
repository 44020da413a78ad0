"""Settings that name a pipeline of diffusers, against the files of that pipeline; no weights are read."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from tailorset.generators import GeneratorConfig
from tailorset.storage.hub import NamedModel, missing_weights

INDEX = "model_index.json"
LEFT_OUT = ("safety_checker", "feature_extractor", "image_encoder")  # never loaded: a checker returns black images


class PipelineConfig(GeneratorConfig, NamedModel):
    """image_px: side of the images, a multiple of what the model draws."""

    in_full: ClassVar[str] = (
        f"a folder with {INDEX}, as `from_single_file` and `save_pretrained` of diffusers' pipelines make it from such"
        " a file"
    )
    image_px: int = Field(gt=0)

    @abstractmethod
    def networks(self, index: Mapping[str, Any]) -> Iterable[str]:
        """Return the parts whose weights are read, by the content of model_index.json."""

    @abstractmethod
    def check_fit(self, folder: Path) -> None:
        """Compare these settings with the configs of the pipeline in a folder.

        Raises:
            ValueError: they do not fit.
        """

    def misfit(self, folder: Path) -> str:
        try:
            self.check_fit(folder)
        except ValueError as error:
            return str(error)
        return ""

    def lacking_in(self, folder: Path) -> list[str]:
        try:
            index = dict(json.loads((folder / INDEX).read_text(encoding="utf-8")))
        except (OSError, TypeError, ValueError):
            return [f"a readable {INDEX}"]
        weighted = list(self.networks(index))
        others = [part for part in parts_of(index) if part not in weighted and not (folder / part).is_dir()]
        return [f"{part}/" for part in others] + [
            f"{part}/{file}" for part in weighted for file in missing_weights(folder / part)
        ]


def parts_of(index: Mapping[str, Any]) -> dict[str, tuple[str, str]]:
    """Return the library and the class of each part that is loaded, by the content of model_index.json.

    A part that a pipeline does without is null there; other entries are settings, or lists of numbers.
    """
    lists = {name: source for name, source in index.items() if isinstance(source, list) and name not in LEFT_OUT}
    return {
        name: (source[0], source[1])
        for name, source in lists.items()
        if len(source) == 2 and all(isinstance(one, str) for one in source)
    }
