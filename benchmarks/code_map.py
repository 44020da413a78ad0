"""The map of the code: `make map` prints how many boxes and arrows a reader meets, and how long scripts are."""

from __future__ import annotations

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
SRC = ROOT / "src"
PACKAGE = SRC / "tailorset"
CODE = ("src", "pipeline", "benchmarks", "tests")
CLAUSE = re.compile(r"(What|How|Whether|Where|Which|Who|Whom|Whose|When|Why)\b")
# Modules that `mlflow.pyfunc.load_model` imports itself: the model's code, and the plug-in of its classifier.
MODEL = ("tailorset.inference.mlflow_model", "tailorset.classifiers.dual_prompt")


def module_file(module: str) -> Path | None:
    """The file of a module or package of ours; None for others."""
    path = SRC / module.replace(".", "/")
    return next((file for file in (path.with_suffix(".py"), path / "__init__.py") if file.exists()), None)


def imported_modules(path: Path) -> Iterator[str]:
    """Modules that a file imports, at its top or inside functions; not those for annotations only."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    skipped = {id(inner) for node in ast.walk(tree) if _type_checking(node) for inner in ast.walk(node)}
    for node in ast.walk(tree):
        if id(node) in skipped:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield from (name for alias in node.names if module_file(name := f"{node.module}.{alias.name}"))
            yield node.module
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"


def holds_code(file: Path) -> bool:
    """Check that a file is more than a docstring; most packages' own file is not."""
    return len(ast.parse(file.read_text(encoding="utf-8")).body) > 1


def boxes() -> dict[str, list[Path]]:
    """Files of each direct child of the package, by the child's name."""
    found: dict[str, list[Path]] = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        name = path.relative_to(PACKAGE).parts[0].removesuffix(".py")
        if name != "__init__":
            found.setdefault(name, []).append(path)
    return found


def arrows() -> set[tuple[str, str]]:
    """Pairs of boxes of which the first imports the second."""
    names = boxes()
    found = set()
    for box, files in names.items():
        for module in (module for path in files for module in imported_modules(path)):
            other = module.removeprefix("tailorset.").partition(".")[0]
            if module.startswith("tailorset.") and other in names and other != box:
                found.add((box, other))
    return found


def layers() -> dict[str, int]:
    """Number of each box's layer in pyproject.toml, 0 at the top."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contract = next(one for one in settings["tool"]["importlinter"]["contracts"] if one["type"] == "layers")
    return {name.strip(): place for place, layer in enumerate(contract["layers"]) for name in layer.split("|")}


def arrows_back_up() -> set[tuple[str, str]]:
    """Arrows that do not lead to a lower layer."""
    place = layers()
    return {(one, other) for one, other in arrows() if place[one] >= place[other]}


def modules_of_a_model() -> list[str]:
    """Modules with code of this package that are loaded with a registered model."""
    code = f"import importlib, sys\nfor name in {MODEL}: importlib.import_module(name)\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    ours = [name for name in done.stdout.split() if name.partition(".")[0] == "tailorset"]
    return sorted(name for name in ours if (file := module_file(name)) and holds_code(file))


def lines_on_src() -> int:
    """Number of lines of dvc.yaml that name files or folders below src/."""
    return sum("src/" in line for line in (ROOT / "dvc.yaml").read_text(encoding="utf-8").splitlines())


def stages() -> list[str]:
    return list(yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"])


def script_lengths() -> dict[str, int]:
    """Number of lines of each stage's script."""
    texts = {name: (ROOT / "pipeline" / f"{name}.py").read_text(encoding="utf-8") for name in stages()}
    return {name: text.count("\n") for name, text in texts.items()}


def clause_openers() -> list[str]:
    """Places of docstrings that open with a clause instead of a verb or a noun."""
    found = []
    for path in (path for folder in CODE for path in sorted((ROOT / folder).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
                continue
            if CLAUSE.match(ast.get_docstring(node) or ""):
                line = 1 if isinstance(node, ast.Module) else node.lineno
                found.append(f"{path.relative_to(ROOT)}:{line}")
    return found


def main() -> None:
    lengths, openers = script_lengths(), clause_openers()
    longest = max(lengths, key=lambda name: lengths[name])
    folders = ", ".join(f"{sum(place.startswith(f'{name}/') for place in openers)} in {name}" for name in CODE)
    back = sorted(f"{one} -> {other}" for one, other in arrows_back_up())
    print(f"top-level packages and modules (boxes)      {len(boxes())}")
    print(f"arrows between them                         {len(arrows())}")
    print(f"arrows back up                              {len(back)} {', '.join(back)}")
    print(f"modules loaded by a registered model        {len(modules_of_a_model())}")
    print(f"lines of dvc.yaml that name src files       {lines_on_src()}")
    print(f"median stage script                         {statistics.median(lengths.values()):g} lines")
    print(f"longest stage script                        {lengths[longest]} lines ({longest})")
    print(f"docstrings that open with a clause          {len(openers)} ({folders})")
    if "--list" in sys.argv:
        print("\n".join(openers))


if __name__ == "__main__":
    main()
