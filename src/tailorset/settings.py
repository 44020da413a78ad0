"""Base classes of the blocks of params.yaml."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, BaseModel, SerializeAsAny, model_validator

from tailorset.messages import Strict
from tailorset.plugins import load_plugin, plugin_config, plugin_names


def _wording(template: str) -> str:
    """Check that a template takes a label's name and nothing else."""
    try:
        filled = template.format("a label")
    except (IndexError, KeyError, ValueError):
        filled = ""
    if "{}" not in template or "a label" not in filled:
        raise ValueError(
            f"{template!r} is not a wording for a label: write {{}} once for its name, and no other braces"
        )
    return template


Wording = Annotated[str, AfterValidator(_wording)]


class Block(Strict):
    """One block of params.yaml."""


class PluginBlock(Block):
    """A block that names a plug-in: the keys declared here belong to the stage, all others to the plug-in's Config."""

    kind: ClassVar[str]
    name: str
    config: SerializeAsAny[BaseModel]

    @property
    def plugin(self) -> ModuleType:
        """The module of the plug-in."""
        return load_plugin(self.kind, self.name)

    @classmethod
    def variants(cls) -> dict[str, ModuleType]:
        """Return the modules of all plug-ins of this kind by name."""
        return {name: load_plugin(cls.kind, name) for name in plugin_names(cls.kind)}

    def build(self, *arguments: Any) -> Any:
        """Build the plug-in from its settings; the Protocol of its folder names the other arguments and the result."""
        return self.plugin.build(self.config, *arguments)

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
