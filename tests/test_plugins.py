from __future__ import annotations

import pytest
from pydantic import BaseModel

from tailorset.plugins import KINDS, load_plugin, plugin_config, plugin_names


@pytest.mark.parametrize("kind", KINDS)
def test_every_variant_has_a_strict_frozen_config_and_a_build(kind: str) -> None:
    assert plugin_names(kind)
    for name in plugin_names(kind):
        plugin = load_plugin(kind, name)
        assert issubclass(plugin.Config, BaseModel)
        assert plugin.Config.model_config.get("extra") == "forbid"
        assert plugin.Config.model_config.get("frozen") is True
        assert callable(plugin.build)


def test_an_unknown_variant_lists_the_choices_and_the_nearest_name() -> None:
    with pytest.raises(ValueError, match=r"(?s)grouped_softmx.*Did you mean 'grouped_softmax'.*top_k"):
        load_plugin("filters", "grouped_softmx")


def test_a_name_that_leaves_the_folder_is_no_variant() -> None:
    for name in ("../records", "..records", "os", "_lora", ""):
        with pytest.raises(ValueError, match="Unknown variant of generators"):
            load_plugin("generators", name)


def test_an_unknown_folder_is_refused() -> None:
    with pytest.raises(ValueError, match="Did you mean 'filters'"):
        plugin_names("filter")


def test_a_config_takes_the_other_keys_of_the_block() -> None:
    assert plugin_config("filters", {"name": "grouped_softmax", "threshold": 0.25}).model_dump() == {"threshold": 0.25}


def test_a_typo_in_a_block_names_the_nearest_key() -> None:
    with pytest.raises(ValueError, match=r"'treshold'.*Did you mean 'threshold'"):
        plugin_config("filters", {"name": "grouped_softmax", "treshold": 0.25})


def test_a_wrong_value_says_where_it_stands() -> None:
    with pytest.raises(ValueError, match=r"filters/grouped_softmax is not valid:\n  threshold: "):
        plugin_config("filters", {"name": "grouped_softmax", "threshold": "high"})


def test_a_block_without_a_name_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"grouped_softmax.*, top_k"):
        plugin_config("filters", {"threshold": 0.5})
