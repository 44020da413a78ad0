"""The hierarchy of a label space in a filter: an image that shows a label shows its ancestors too."""

from __future__ import annotations

from collections.abc import Sequence

from tailorset.records import LabelSpace


class Ancestors:
    """Unseen ancestors of the unseen labels: generated images are annotated for unseen labels only."""

    def __init__(self, label_space: LabelSpace) -> None:
        unseen = label_space.unseen
        self.by_label = {
            name: tuple(parent for parent in label_space.parents_of(name) if parent in unseen) for name in unseen
        }

    def of(self, labels: Sequence[str]) -> tuple[str, ...]:
        """Return the ancestors that are not among the labels themselves, each once."""
        found = dict.fromkeys(ancestor for label in labels for ancestor in self.by_label[label])
        return tuple(name for name in found if name not in labels)
