"""The rules of the house: who imports whom, what a stage depends on, how long things get, what the README says."""

from __future__ import annotations

import ast
import functools
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path

import code_map
import pytest
import yaml
from code_map import holds_code, imported_modules, module_file
from packaging.specifiers import SpecifierSet

from tailorset import cli
from tailorset.plugins import KINDS, load_plugin, plugin_names
from tailorset.project.definition import stage_definition
from tailorset.project.params import Params

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
STAGES = tuple(code_map.stages())
# They serve the scripts and shape no product: a new log line must not repeat a training. Of those in SHAPING the
# stages depend, but not on all that these import: each holds parts of several stages.
SHAPING = {"project.assembly", "project.known_models", "project.licences", "project.loops"}
PLUMBING = {"failures", "messages", "plugins", "progress", "project", "settings", "storage.files", "storage.paths"}
DOCUMENTS = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
SOURCES = sorted([*SRC.rglob("*.py"), *(ROOT / "pipeline").rglob("*.py")])


def is_plumbing(module: str) -> bool:
    name = module.removeprefix("tailorset").lstrip(".")
    return not name or any(name == one or name.startswith(f"{one}.") for one in PLUMBING)


@functools.cache
def reachable_files(path: Path) -> frozenset[str]:
    """Every file of the package a script runs through, relative to the repository."""
    found: dict[str, Path] = {}
    queue = [path]
    while queue:
        for module in imported_modules(queue.pop()):
            file, shapes = module_file(module), module.removeprefix("tailorset.") in SHAPING
            if module.startswith("tailorset") and module not in found and file and (shapes or not is_plumbing(module)):
                found[module] = file
                queue += [] if shapes else [file]
    return frozenset(str(file.relative_to(ROOT)) for file in found.values() if holds_code(file))


def test_photos_are_read_before_anything_that_takes_hours() -> None:
    """DVC runs stages that do not depend on each other in an order that differs from run to run."""
    deps = {name: stage_definition(name, ROOT)["deps"] for name in STAGES}
    made: dict[str, str] = {}
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items():
        for out in [*stage.get("outs", []), *stage.get("plots", []), *stage.get("metrics", [])]:
            made[out if isinstance(out, str) else next(iter(out))] = name

    def earlier(name: str) -> set[str]:
        found = {by for out, by in made.items() for dep in deps[name] if dep == out or dep.startswith(f"{out}/")}
        return found.union(*map(earlier, found))

    assert all("prepare_dataset" in earlier(name) for name in STAGES if name != "prepare_dataset")
    assert "data/real" not in deps["write_prompts"]  # a corrected annotation repeats no prompts


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_all_code_it_runs(stage: str) -> None:
    deps = stage_definition(stage, ROOT)["deps"]
    plugins = [ROOT / dep for dep in deps if dep.split("/")[2:3] and dep.split("/")[2] in KINDS and dep.endswith(".py")]
    plugins += [
        file for kind in KINDS if f"src/tailorset/{kind}" in deps for file in (SRC / "tailorset" / kind).glob("*.py")
    ]
    needed = set(reachable_files(ROOT / "pipeline" / f"{stage}.py"))
    for plugin in plugins:
        needed |= reachable_files(plugin)
    uncovered = {file for file in needed if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)}
    assert not uncovered, f"add to the deps of {stage} in dvc.yaml: {sorted(uncovered)}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_every_block_of_settings_that_its_script_reads(stage: str) -> None:
    script = (ROOT / "pipeline" / f"{stage}.py").read_text(encoding="utf-8")
    read = Params.model_fields.keys() & set(re.findall(r"\bparams\.([a-z_]+)", script))
    named = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["params"]
    assert read <= {key.partition(".")[0] for key in named}


def test_every_variant_has_the_settings_that_stages_depend_on() -> None:
    """DVC refuses to start a stage that depends on a key which params.yaml lacks."""
    stages = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].values()
    keys = {key for stage in stages for key in stage["params"] if key.count(".") == 1}
    for kind, block in (("generators", "generator"), ("classifiers", "train_classifier"), ("filters", "filter_images")):
        own = {"name", "held_out_share"}  # of the stage, in every block
        needed = {key.split(".")[1] for key in keys if key.startswith(f"{block}.")} - own
        for name in plugin_names(kind):
            assert needed <= load_plugin(kind, name).Config.model_fields.keys(), f"{kind}/{name}"


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_is_a_script_and_a_block_of_the_same_name(stage: str) -> None:
    definition = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]
    assert definition["cmd"] == f"python pipeline/{stage}.py"
    assert f"pipeline/{stage}.py" in definition["deps"]
    assert stage in yaml.safe_load((ROOT / "params.yaml").read_text())


def test_settings_are_read_without_loading_a_framework() -> None:
    """Every stage and command reads params.yaml, and with it the module of every plug-in named there."""
    heavy = ("diffusers", "transformers", "open_clip", "peft", "mlflow", "great_expectations")
    code = f"""
import sys
from tailorset.project.params import load_params
load_params()
print([name for name in {heavy} if name in sys.modules])"""
    answer = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert answer.stdout.strip() == "[]"


def test_nothing_is_ever_unpickled() -> None:
    loaders = re.compile(r"\b(import pickle|from pickle|pickle\.loads?|torch\.load|joblib\.load|cloudpickle)\b")
    assert not [str(path) for path in SOURCES if loaders.search(path.read_text(encoding="utf-8"))]


def test_functions_and_files_stay_short() -> None:
    lengths = {}
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        assert text.count("\n") <= 300, f"{path} has more than 300 lines: split it by noun"
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef):
                lengths[f"{path}:{node.name}"] = (node.end_lineno or node.lineno) - node.lineno + 1
    longest = max(lengths, key=lambda name: lengths[name])
    assert lengths[longest] <= 60, f"{longest} has {lengths[longest]} lines"
    assert statistics.median(lengths.values()) <= 12


def test_the_map_stays_small() -> None:
    """Figures of `make map`. Those with a goal next to them are the present values: lower them as they get better."""
    assert len(code_map.boxes()) <= 33
    assert len(code_map.arrows()) <= 169
    assert code_map.arrows_back_up() == set()
    assert len(code_map.modules_of_a_model()) <= 25
    assert code_map.lines_on_src() <= 137
    assert max(code_map.script_lengths().values()) <= 110
    assert statistics.median(code_map.script_lengths().values()) <= 60
    assert not code_map.clause_openers()


def test_no_module_is_named_after_nothing() -> None:
    assert not [path for path in SOURCES if path.stem in {"utils", "util", "helpers", "common", "misc"}]


def test_no_two_classes_share_a_name() -> None:
    """Except `Config`, which every plug-in calls the class of its settings."""
    files = [path for name in ("src", "pipeline", "benchmarks") for path in sorted((ROOT / name).rglob("*.py"))]
    places: dict[str, list[str]] = {}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and node.name != "Config":
                places.setdefault(node.name, []).append(f"{path.relative_to(ROOT)}:{node.lineno}")
    assert not {name: where for name, where in places.items() if len(where) > 1}


def test_the_commands_of_the_documents_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE))
    functions = {str(command.callback.__name__) for command in cli.app.registered_commands if command.callback}
    commands = {name.replace("_", "-") for name in functions}
    for document in DOCUMENTS:
        text = document.read_text(encoding="utf-8")
        assert set(re.findall(r"\bmake ([a-z]+(?:-[a-z]+)*)`", text)) <= targets
        assert set(re.findall(r"^(?:\$ )?make ([a-z-]+)", text, flags=re.MULTILINE)) <= targets
        assert set(re.findall(r"\btailorset (?!is\b)([a-z-]+) ?(?:[A-Za-z]*)`", text)) <= commands
        assert set(re.findall(r"^(?:    |\$ )tailorset ([a-z-]+)", text, flags=re.MULTILINE)) <= commands


def test_the_first_screen_of_the_readme_is_short() -> None:
    """Purpose, a picture, two commands with their output, and links come before the first section."""
    first, _, _ = (ROOT / "README.md").read_text(encoding="utf-8").partition("\n## ")
    assert first.count("\n") <= 35
    assert first.count("![") == 1
    assert "docs/guides/" in first


def test_modules_the_documents_name_exist() -> None:
    for document in DOCUMENTS:
        for name in re.findall(r"`(?:src/tailorset/)?([a-z_]+/[a-z_/]+\.py)\b", document.read_text(encoding="utf-8")):
            places = (ROOT / name, SRC / "tailorset" / name)
            assert any(place.exists() for place in places), f"{document.name} names {name}, which is not there"


def test_the_map_names_every_package_and_layer() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    children = [path for path in (SRC / "tailorset").iterdir() if path.name[:2] != "__"]
    names = [f"{path.name}/" if path.is_dir() else path.name for path in children if path.suffix in {"", ".py"}]
    assert not [name for name in names if f"`{name}" not in text]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    layers = project["tool"]["importlinter"]["contracts"][0]["layers"]
    assert "".join(f"    {layer}\n" for layer in layers) in text


def test_files_the_documents_point_to_exist() -> None:
    for document in DOCUMENTS:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}, which is not there"


def test_tests_the_documents_point_to_exist() -> None:
    named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8"))
    assert len(named) >= 15
    for file, test in named:
        assert f"\ndef {test}(" in (ROOT / file).read_text(encoding="utf-8"), f"{file} has no {test}"


def test_constraints_pin_exact_versions_from_anywhere() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert not [line for line in lines if line[:1] != "#" and not re.fullmatch(r"[a-z0-9.-]+==[0-9][0-9a-z.]*", line)]


def test_what_is_installed_runs_on_the_oldest_python_that_is_supported() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    oldest = project["requires-python"].removeprefix(">=") + ".0"
    others = {
        f"{one.name} {one.version}"
        for one in distributions()
        if (needed := one.metadata.get("Requires-Python")) and not SpecifierSet(needed).contains(oldest)
    }
    assert not others, f"`make setup` fails on Python {oldest}: pin older versions in constraints.txt"
