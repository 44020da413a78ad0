"""One way to tell names apart everywhere: which are the same, and which a text holds."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tailorset.project.layout import REVIEW
from tailorset.prompts.contract import Contract
from tailorset.prompts.writer import unwritable
from tailorset.records import LabelSpace
from tailorset.records.names import fold, name_problem, safe_file_name, wording_problem

LABELS = Path(__file__).resolve().parents[2] / "data" / "labels"


def space_of(*names: str, **aliases: list[str]) -> LabelSpace:
    labels = [{"name": name, "seen": False, "aliases": aliases.get(name, [])} for name in names]
    return LabelSpace.model_validate({"name": "s", "labels": labels})


NESTED = space_of(
    "dog", "hot dog", "bear", "teddy bear", "car", "race car", "knife", "lens", car=["automobile", "toy car"]
)


@pytest.mark.parametrize(
    ("text", "rest", "named"),
    [
        ("A hot dog, two dogs.", "a x two x", ["hot dog", "dog"]),
        ("race-cars near a car-wash", "x near a x wash", ["race car", "car"]),
        ("a cat on a mat", "a cat on a mat", []),
        ("", "", []),
    ],
)
def test_names_are_replaced_in_texts_of_others(text: str, rest: str, named: list[str]) -> None:
    """A part of a hyphenated word counts here, so that no text leads to a label by a part of a name."""
    assert NESTED.without_names(text, by="x") == (rest, named)
    assert not NESTED.named_in(rest.replace("x", ""))


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("a grilled hot dog on a plate", {"hot dog"}),
        ("two grilled Hot  Dogs", {"hot dog"}),
        ("a dog next to a hot dog", {"dog", "hot dog"}),
        ("a hot-dog", {"hot dog"}),
        ("a teddy bear\u2019s picnic", {"teddy bear"}),
        ("race cars, one car", {"race car", "car"}),
        ("race cars", {"race car"}),
        ("three toy cars", {"car"}),
        ("automobiles", {"car"}),
        ("knives and a lens", {"knife", "lens"}),
        ("the dog's bowl", {"dog"}),
        ("dogs/bears", {"dog", "bear"}),
        ("a doghouse, a car-port and a bear_trap", set()),
        ("a ｄｏｇ", {"dog"}),
        ("hot. dog", {"hot dog"}),
        ("", set()),
    ],
)
def test_the_longest_name_of_the_label_space_wins(text: str, named: set[str]) -> None:
    assert NESTED.named_in(text) == named


def test_singulars_hide_what_is_in_them_and_are_no_plurals() -> None:
    space = space_of("dog", "hot dogs", "glasses", "flower", "flowers")
    assert space.named_in("a hot dog") == set()
    assert space.named_in("a glass of water") == set()
    assert space.named_in("a flower") == {"flower"}
    assert space.named_in("some flowers") == {"flowers"}


def test_what_could_be_the_plural_of_two_labels_is_neither() -> None:
    assert space_of("axe", "axis").named_in("axes") == {"axe"}  # no English plural of axis is guessed
    assert space_of("hoof", "hoove").named_in("hooves") == set()


@pytest.mark.parametrize("name", ["कप", "杯子", "кружка", "كوب", "O'Neill", "Straße", "café au lait", "7-Eleven"])
def test_names_of_any_script_are_found(name: str) -> None:
    space = space_of(name, "key")
    assert space.named_in(f"a photo of a {name.upper()}, and no more") == {name}
    assert space.named_in(f"a photo of a {name}{name}") == set()


def test_accents_belong_to_their_letter() -> None:
    assert space_of("कप", "key").named_in("a कपा") == set()


@pytest.mark.parametrize(
    "file", sorted(set(LABELS.glob("*.yaml")) - {LABELS / REVIEW.name}), ids=lambda path: path.stem
)
def test_every_label_of_the_shipped_label_spaces_is_named_by_its_own_name_and_no_other_is(file: Path) -> None:
    space = LabelSpace.load(file)
    for label in space.names:
        for wording in space.wordings(label):
            assert space.named_in(f"x {wording} x") == {label}
    assert list(unwritable(Contract(space, 10))) == []


def test_names_of_coco_that_are_in_others() -> None:
    space = space_of("bear", "teddy bear", "dog", "hot dog", "sports ball", "ball", "baseball bat", "bat", "wine glass")
    for name in space.names:
        assert space.named_in(f"two old {name}s next to a {name}") == {name}


def test_names_of_nus_wide_in_the_singular_and_the_plural_are_two_labels() -> None:
    content = yaml.safe_load((LABELS / "nus_wide.yaml").read_text(encoding="utf-8"))
    names = {label["name"] for label in content["labels"]}
    space = LabelSpace.load(LABELS / "nus_wide.yaml")
    both = sorted(name for name in names if f"{name}s" in names)
    assert {"bird", "boat", "flower"} <= set(both)
    for name in both:
        assert space.named_in(name) == {name}
        assert space.named_in(f"{name}s") == {f"{name}s"}


def test_a_label_that_no_prompt_can_name_is_told() -> None:
    problems = list(unwritable(Contract(space_of("key", "the user", "cup"), 10)))
    assert len(problems) == 1
    assert "no prompt can name label 'the user'" in problems[0]
    assert "about the task" in problems[0]
    assert "lower" in next(unwritable(Contract(space_of("key", "cup", "hat"), 90)))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("cup", "Cup"),
        ("t-shirt", "T shirt"),
        ("stop_sign", "stop sign"),
        ("café", "cafe\u0301"),
        ("cup", "cup\u200d"),
        ("Straße", "STRASSE"),
        ("fish", "\ufb01sh"),
        ("children's book", "children\u2019s book"),
    ],
)
def test_names_that_people_take_for_one_are_one(one: str, other: str) -> None:
    assert fold(one) == fold(other)


def test_file_names_are_safe_and_differ() -> None:
    names = ["cup", "Cup", "CUP", "t-shirt", "T-shirt", "t shirt", "杯子", "杯", "rock 'n' roll", "x" * 80, "X" * 80]
    files = [safe_file_name(name) for name in names]
    assert len({file.lower() for file in files}) == len(names)
    assert all(file.isascii() and "/" not in file and len(file) <= 80 for file in files)
    assert files[0] == "cup"


def test_what_a_name_may_be() -> None:
    for name in ("Car", "T-shirt", "men's shoe", "杯子", "कप", "7-Eleven", "stop_sign", "a"):
        assert name_problem(name) is None
    for name in ("", " cup", "cup ", "../x", "a;b", "a  b", "-a", "a\u200db", "a\nb", "x" * 81):
        assert name_problem(name)
    assert "U+200D ZERO WIDTH JOINER" in str(wording_problem("cup\u200d"))
