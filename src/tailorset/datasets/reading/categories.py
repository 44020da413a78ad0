"""Names in other people's annotations, matched with labels: by a label's name or an alias, letter for letter."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from tailorset.messages import some
from tailorset.records import LabelSpace
from tailorset.records.names import composed, fold


def labels_of(label_space: LabelSpace, offered: Iterable[str]) -> dict[str, str]:
    """offered name -> label, for the names that a label has; blanks around a name do not count."""
    known = label_space.label_of_wording
    spelt = {name: composed(" ".join(name.split())) for name in offered}
    return {name: known[spelling] for name, spelling in spelt.items() if spelling in known}


def check_categories(
    label_space: LabelSpace, offered: Collection[str], needed: Collection[str], where: object, what: str = "category"
) -> None:
    """Check that needed labels have a category, and that no label lacks one only because of its spelling.

    Raises:
        ValueError: names the labels, the categories that may be meant, and the remedy.
    """
    found = set(labels_of(label_space, offered).values())
    by_fold = folded_wordings(label_space)
    near_of = {label_space.label_of_wording[by_fold[fold(name)]]: name for name in offered if fold(name) in by_fold}
    lacking = {label: near_of.get(label) for label in label_space.names if label not in found}
    if not any(near or label in needed for label, near in lacking.items()):
        return
    named = [f"{label!r}" + (f" (there is {near!r})" if near else "") for label, near in lacking.items() if near]
    named += [repr(label) for label, near in lacking.items() if not near and label in needed]
    raise ValueError(
        f"no {what} {some(named)} in {where}: write the label, or one of its aliases, as it is written there; of"
        f" {len(offered)} there are {some(sorted(offered))}"
    )


def folded_wordings(label_space: LabelSpace) -> dict[str, str]:
    """folded -> the wording of a label that differs from it in case, blanks or hyphens only."""
    return {fold(wording): wording for wording in label_space.label_of_wording}
