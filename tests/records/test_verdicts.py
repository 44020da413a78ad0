"""Verdicts on generated images: bound to pictures, checked against the labels, kept as they were written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailorset.records.verdicts import ImageVerdict, current_verdicts, read_verdicts, verdict_lines

ONE, TWO = "1" * 64, "2" * 64
UNSEEN = ("cup", "fish 🐟", 'a "key"', "no")
ROOT = Path(__file__).resolve().parents[2]


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    verdicts = {
        "0123456789012345-0000": ImageVerdict(sha256=ONE, labels=UNSEEN),
        "0e10-0001": ImageVerdict(sha256=TWO, labels=()),
    }
    path = tmp_path / "review.yaml"
    path.write_text(verdict_lines(verdicts), encoding="utf-8")
    assert read_verdicts(path) == verdicts


def test_the_file_in_git_is_what_the_page_starts_from() -> None:
    path = ROOT / "data" / "labels" / "review.yaml"
    assert read_verdicts(path) == {}
    assert path.read_text(encoding="utf-8") == verdict_lines({})


def test_verdicts_on_other_pictures_are_counted_whatever_their_labels() -> None:
    verdicts = {
        "a": ImageVerdict(sha256=ONE, labels=("cup",)),
        "b": ImageVerdict(sha256=ONE, labels=("cup", "dog")),
        "c": ImageVerdict(sha256=ONE, labels=()),
    }
    current, rest = current_verdicts(verdicts, {"a": ONE, "b": TWO}, UNSEEN, "review.yaml")
    assert current == {"a": verdicts["a"]}
    assert rest == {"changed": 1, "gone": 1}


def test_an_unknown_label_is_named_with_the_choices_and_the_remedy() -> None:
    verdicts = {"a-0001": ImageVerdict(sha256=ONE, labels=("cap",))}
    with pytest.raises(ValueError, match=r"review\.yaml, image a-0001: .*'cap'.*'cup'.*Choices: cup.*review the image"):
        current_verdicts(verdicts, {"a-0001": ONE}, UNSEEN, "review.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "cannot be read"),
        ("- a", "is not valid"),
        ("a: {sha256: abc, labels: []}", r"a\.sha256"),
        (f"a: {{sha256: {ONE}}}", r"a\.labels"),
        (f"a: {{sha256: {ONE}, labels: [], strike: true}}", "a: Unknown key of ImageVerdict: 'strike'"),
        (
            "".join(f"{key}: {{sha256: {ONE}, labels: []}}\n" for key in "aba"),
            r"review\.yaml has 'a' twice, in lines 1 and 3: remove one of them",
        ),
    ],
)
def test_a_file_that_is_not_valid_is_refused(tmp_path: Path, text: str, message: str) -> None:
    path = tmp_path / "review.yaml"
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_verdicts(path)


def test_a_missing_file_is_an_error_with_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="correct it; an empty file has none"):
        read_verdicts(tmp_path / "review.yaml")
