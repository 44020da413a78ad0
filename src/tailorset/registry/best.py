"""The registered version that is best on val: of a sweep, the point to promote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import harmonic_mean

from mlflow.entities.model_registry import ModelVersion
from rich.table import Table

from tailorset.evaluation.results import MAPS, percent
from tailorset.messages import count
from tailorset.project.tracking import registry
from tailorset.project.versions import ADDED
from tailorset.registry.measurement import VAL_SET, VAL_UNSEEN, val_tag
from tailorset.registry.promotion import ROLLED_BACK

NUM_SHOWN = 10


@dataclass(frozen=True)
class Ranking:
    """Versions that were measured on the same val photos, with the same labels unseen, best first; others left out."""

    versions: tuple[ModelVersion, ...]
    num_left_out: int

    def table(self) -> Table:
        """Return the first of them with their mAPs on val, in percent."""
        table = Table("version", "experiment", title="Best on val, %")
        for name in MAPS.values():
            table.add_column(name, justify="right")
        for version in self.versions[:NUM_SHOWN]:
            maps = (percent(value, 2) for value in _maps(version))
            table.add_row(str(version.version), version.tags.get("dvc.experiment", ""), *maps)
        if self.num_left_out:
            left_out = count(self.num_left_out, "version")
            table.caption = f"{left_out} left out: other photos or unseen labels, added labels, or rolled back"
        return table


def rank_versions(name: str) -> Ranking:
    """Rank by the harmonic mean of ZSL and GZSL mAP on val, as training ranks its epochs; of equals the newest first.

    Raises:
        ValueError: there is no registry, or no version was measured on val.
    """
    versions = registry(Path.cwd()).search_model_versions(f"name = '{name}'")
    newest_first = sorted(versions, key=lambda version: -int(version.version))
    fair = [one for one in newest_first if not (one.tags.get(ROLLED_BACK) or one.tags.get(ADDED))]
    measured = [one for one in fair if VAL_SET in one.tags]
    if not measured:
        raise ValueError(f"no version of models:/{name} was measured on val: `make run` registers one that does")
    alike = [one for one in measured if _is_comparable(one.tags, measured[0].tags)]
    ranked = sorted(alike, key=lambda version: -harmonic_mean(_maps(version)))
    return Ranking(tuple(ranked), len(versions) - len(ranked))


def _is_comparable(tags: Mapping[str, str], newest: Mapping[str, str]) -> bool:
    """Tell whether mAPs are of the same photos and unseen labels; older versions do not say which labels."""
    unseen = newest.get(VAL_UNSEEN)
    return tags[VAL_SET] == newest[VAL_SET] and tags.get(VAL_UNSEEN, unseen) == unseen


def _maps(version: ModelVersion) -> list[float]:
    return [float(version.tags[val_tag(key)]) for key in MAPS]
