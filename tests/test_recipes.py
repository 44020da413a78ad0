"""CONTRIBUTING.md's recipes, followed to the letter: each file is written into its folder and keeps the contract."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
import yaml

from tailorset.images.codec import encode_png
from tailorset.plugins import KINDS, load_plugin, plugin_config, plugin_names
from tailorset.project.params import load_params
from tailorset.records import SPLITS
from tests.classifiers import test_contract as classifier_contract
from tests.datasets import test_dataset_contract as dataset_contract
from tests.filters import test_filter_contract as filter_contract
from tests.generators import test_generator_contract as generator_contract
from tests.llms import test_captioner_contract as captioner_contract
from tests.llms import test_llm_contract as llm_contract

ROOT = Path(__file__).resolve().parents[1]
RECIPE = re.compile(r"```python\n# src/tailorset/([\w/]+)/(\w+)\.py\n(.*?)```\n\n```yaml\n(.*?)```", re.DOTALL)


class Recipe(NamedTuple):
    """A plug-in's folder, its name, the text of its file, and the part of params.yaml that names it."""

    kind: str
    name: str
    text: str
    settings: str


RECIPES = {match[1]: Recipe(*match.groups()) for match in RECIPE.finditer((ROOT / "CONTRIBUTING.md").read_text())}


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Every plug-in folder with the recipe's file in it."""
    for recipe in RECIPES.values():
        folder = tmp_path / "plugins" / recipe.kind
        folder.mkdir(parents=True)
        (folder / f"{recipe.name}.py").write_text(recipe.text)
        package = importlib.import_module(package_of(recipe.kind))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(folder)])
    importlib.invalidate_caches()
    yield
    for recipe in RECIPES.values():
        sys.modules.pop(f"{package_of(recipe.kind)}.{recipe.name}", None)
        vars(sys.modules[package_of(recipe.kind)]).pop(recipe.name, None)


def package_of(kind: str) -> str:
    return f"tailorset.{kind.replace('/', '.')}"


@pytest.fixture
def plugin(folders: None, request: pytest.FixtureRequest) -> ModuleType:
    return load_plugin(request.param, RECIPES[request.param].name)


def of(kind: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("plugin", [kind], indirect=True)


def test_there_is_a_recipe_for_every_folder(folders: None) -> None:
    assert set(RECIPES) == set(KINDS)
    assert all(recipe.name in plugin_names(kind) for kind, recipe in RECIPES.items())
    assert all(recipe.name not in ("__init__", "parts") for recipe in RECIPES.values())


@pytest.mark.parametrize("plugin", KINDS, indirect=True)
def test_a_recipe_has_a_strict_frozen_config(plugin: ModuleType) -> None:
    assert plugin.Config.model_config["extra"] == "forbid"
    assert plugin.Config.model_config["frozen"] is True


@pytest.mark.parametrize("kind", KINDS)
def test_the_settings_of_a_recipe_are_valid_params(folders: None, tmp_path: Path, kind: str) -> None:
    """The block replaces the one of the toybox, and keys that the stage has keep the toybox's values."""
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    ((block, settings),) = yaml.safe_load(RECIPES[kind].settings).items()
    params[block] = params[block] | settings if block == "write_prompts" else settings
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    loaded: Any = getattr(load_params(tmp_path / "params.yaml"), block)
    named = {"llms": "llm", "llms/captioners": "captions.captioner"}.get(kind)
    assert (attrgetter(named)(loaded) if named else loaded).name == RECIPES[kind].name


@of("filters")
def test_the_filter_keeps_the_contract(plugin: ModuleType) -> None:
    rule = plugin.build(plugin.Config(), filter_contract.SPACE)
    filter_contract.test_a_clear_image_is_kept_with_its_labels(rule)
    filter_contract.test_order_and_batch_do_not_matter(rule)
    filter_contract.test_rejected_images_have_no_label_but_a_reason(rule)
    filter_contract.test_no_image_gives_no_decision(rule)
    filter_contract.test_scores_that_are_not_finite_stop(rule, float("nan"))
    filter_contract.test_only_unseen_labels_can_be_requested(rule, ("hat",))
    filter_contract.test_scores_of_other_labels_are_refused(rule)


@of("llms")
def test_the_llm_keeps_the_contract(plugin: ModuleType) -> None:
    llm = plugin.build(plugin.Config(), torch.device("cpu"))
    llm_contract.test_one_reply_each_in_order(llm)
    llm_contract.test_seeds_decide(llm)
    llm_contract.test_nothing_asked_nothing_answered(llm)


@of("llms/captioners")
def test_the_captioner_keeps_the_contract(plugin: ModuleType) -> None:
    captioner = plugin.build(plugin.Config(), torch.device("cpu"))
    captioner_contract.test_one_caption_each_in_order(captioner)
    captioner_contract.test_nothing_shown_nothing_said(captioner)


@of("datasets")
def test_the_data_set_keeps_the_contract(plugin: ModuleType, tmp_path: Path) -> None:
    for split in SPLITS:
        (tmp_path / split).mkdir()
        for number, shown in enumerate(("cup+ball", "ball", "fish", "hat+star", "key", "tree")):
            pixels = np.full((20, 30, 3), 30 * number, np.uint8)
            (tmp_path / split / f"{shown}-{number}.png").write_bytes(encode_png(pixels))
    dataset = plugin.build(plugin.Config(root=tmp_path), dataset_contract.SPACE, 0)
    dataset_contract.test_every_split_has_images_that_can_be_read(dataset)
    dataset_contract.test_train_is_annotated_for_seen_labels_only(dataset)
    dataset_contract.test_a_later_start_gives_the_same_samples(dataset)
    dataset_contract.test_sheets_show_images_with_captions(dataset)
    assert next(dataset.samples("test", start=1)).targets["cup"] == 1


@of("generators")
def test_the_generator_keeps_the_contract(plugin: ModuleType, tmp_path: Path) -> None:
    def make() -> Any:
        return plugin.build(plugin.Config(), torch.device("cpu"))

    generator_contract.test_images_depend_on_their_own_prompt_and_seed_only(make)
    generator_contract.test_only_an_adapter_is_trained_and_it_changes_nothing_at_first(make)
    generator_contract.test_a_folder_without_an_adapter_is_refused(make, tmp_path)
    for name, check in (
        ("saved", generator_contract.test_a_saved_adapter_draws_the_same),
        ("zero", generator_contract.test_a_folder_of_zero_updates_is_no_change),
    ):
        (tmp_path / name).mkdir()
        check(make, "text_encoders", tmp_path / name)
    nothing = generator_contract.Tiny()
    generator_contract.test_tokenizers_say_how_much_of_a_prompt_is_read(RECIPES["generators"].name, nothing)


@of("classifiers")
def test_the_classifier_keeps_the_contract(plugin: ModuleType, tmp_path: Path) -> None:
    """It also works without a CLIP inside."""
    no_backbones = {"resnet": ""}
    space = dataset_contract.SPACE
    classifier_contract.test_contract(RECIPES["classifiers"].name, no_backbones, space, tmp_path / "saved")
    assert "backbone" not in plugin_config("classifiers", {"name": RECIPES["classifiers"].name}).model_dump()
