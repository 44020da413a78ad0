"""Run a module as in an environment made from a requirements.txt: other distributions cannot be imported.

    python -P declared_environment.py REQUIREMENTS MODULE [ARGUMENTS ...]

It is a script and not imported: the package stored in a registered version has to be the one that is loaded.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name


class DeclaredFinder:
    """Python's own way to find modules and distributions, blind to those that are hidden."""

    def __init__(self, hidden_modules: set[str], distributions: set[str]) -> None:
        self.hidden_modules, self.distributions = hidden_modules, distributions

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Return None for a hidden module and its submodules."""
        return None if name.partition(".")[0] in self.hidden_modules else PathFinder.find_spec(name, path, target)

    def find_distributions(self, context: metadata.DistributionFinder.Context) -> Iterator[metadata.Distribution]:
        """Yield only distributions that would be installed."""
        for found in metadata.MetadataPathFinder.find_distributions(context):
            if canonicalize_name(found.metadata["Name"]) in self.distributions:
                yield found

    def invalidate_caches(self) -> None:
        """Forward to Python's own finder."""
        PathFinder.invalidate_caches()


def closure(requirements: Iterable[str]) -> set[str]:
    """Return the names of all distributions that the requirements lead to, as installed ones declare them."""
    found: set[tuple[str, str]] = set()  # (name, extra)
    queue = [Requirement(line) for line in requirements]
    while queue:
        requirement = queue.pop()
        name = canonicalize_name(requirement.name)
        for extra in {"", *requirement.extras}:
            if (name, extra) in found:
                continue
            found.add((name, extra))
            try:
                needed = [Requirement(text) for text in metadata.requires(name) or ()]
            except metadata.PackageNotFoundError:
                continue  # not needed on this platform, or missing: then importing it fails
            queue += [other for other in needed if not other.marker or other.marker.evaluate({"extra": extra})]
    return {name for name, _ in found}


def hide_undeclared(requirements: Iterable[str]) -> None:
    """Allow only imports from the standard library, the closure of the requirements and code on sys.path."""
    declared = closure(requirements)
    hidden = {
        module
        for module, names in metadata.packages_distributions().items()
        if not declared & {canonicalize_name(name) for name in names}
    }
    finder = DeclaredFinder(hidden - {"tailorset"}, declared)
    sys.meta_path[:] = [finder if found is PathFinder else found for found in sys.meta_path]  # type: ignore[list-item]


def main() -> None:
    requirements, module, *arguments = sys.argv[1:]
    lines = Path(requirements).read_text(encoding="utf-8").splitlines()
    hide_undeclared(line for line in lines if line.strip() and not line.startswith("#"))
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
