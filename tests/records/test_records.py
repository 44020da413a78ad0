"""Label files as users write them: the good ones load, the others say what is wrong and what to do."""

from pathlib import Path

import pytest

from tailorset.project.layout import REVIEW
from tailorset.records import LabelSpace, Prompt, prompt_id

ROOT = Path(__file__).resolve().parents[2]
GOOD = """
name: office
labels:
  - {name: cup, seen: true, parents: [ware]}
  - {name: ware, seen: true, parents: [thing]}
  - {name: thing, seen: true}
  - {name: keyboard, seen: false, aliases: [computer keyboard, keys], parents: [thing]}
  - {name: mouse, seen: false}
  - {name: snow-board 2, seen: false}
confusable:
  - [mouse, keyboard]
  - [cup, mouse]
"""


def load(tmp_path: Path, text: str) -> LabelSpace:
    path = tmp_path / "labels.yaml"
    path.write_text(text, encoding="utf-8")
    return LabelSpace.load(path)


def test_order_is_the_files(tmp_path: Path) -> None:
    space = load(tmp_path, GOOD)
    assert space.names == ("cup", "ware", "thing", "keyboard", "mouse", "snow-board 2")
    assert space.seen == ("cup", "ware", "thing")
    assert space.unseen == ("keyboard", "mouse", "snow-board 2")
    assert [space.index(name) for name in space.names] == list(range(6))


def test_aliases_replace_the_name_in_prompts(tmp_path: Path) -> None:
    space = load(tmp_path, GOOD)
    assert space.prompt_names("keyboard") == ("computer keyboard", "keys")
    assert space.prompt_names("mouse") == ("mouse",)


def test_ancestors_are_nearest_first(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).parents_of("cup") == ("ware", "thing")


def test_pairs_are_unordered_and_leave_confusable_ones_out(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD).pairs() == [
        ("keyboard",),
        ("keyboard", "snow-board 2"),
        ("mouse",),
        ("mouse", "snow-board 2"),
        ("snow-board 2",),
    ]


def test_records_do_not_change(tmp_path: Path) -> None:
    space = load(tmp_path, GOOD)
    with pytest.raises(ValueError, match="frozen"):
        space.name = "other"  # type: ignore[misc]
    assert space == load(tmp_path, GOOD)
    assert hash(space) == hash(load(tmp_path, GOOD))


def test_names_of_any_script_with_capitals_hyphens_and_apostrophes_are_labels(tmp_path: Path) -> None:
    text = GOOD.replace("thing", "T-shirt").replace("ware", "men's shoe").replace("cup", "杯子")
    assert load(tmp_path, text).names[:3] == ("杯子", "men's shoe", "T-shirt")


def test_a_name_is_the_same_however_its_accents_are_composed(tmp_path: Path) -> None:
    assert load(tmp_path, GOOD.replace("mouse", "cafe\u0301")).names[4] == "café"


def test_shipped_label_files_load() -> None:
    for path in set((ROOT / "data" / "labels").glob("*.yaml")) - {ROOT / REVIEW}:
        space = LabelSpace.load(path)
        assert space.unseen, path


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        (
            "name: cup, seen: true, parents: [ware]",
            "name: mouse, seen: false",
            r"\['mouse'\] are listed more than once",
        ),
        ("name: cup, seen: true, parents: [ware]", "name: mouse, seen: true", "'mouse' is both seen and unseen"),
        ("name: cup,", "name: ../../x,", r"'../../x' is not a label name: it has '.'"),
        ("name: cup,", "name: /etc/x,", "is not a label name"),
        (
            "- {name: mouse",
            "- {name: Mouse, seen: true}\n  - {name: mouse",
            "'Mouse' of label 'Mouse' and 'mouse' of label 'mouse' are the same name",
        ),
        (
            "- {name: mouse",
            "- {name: snow board 2, seen: true}\n  - {name: mouse",
            "'snow board 2' of label 'snow board 2' and 'snow-board 2'",
        ),
        ("name: cup,", 'name: "cup\\u200d",', r"has '\\u200d' \(U\+200D ZERO WIDTH JOINER\)"),
        ("name: cup,", "name: '',", "is not a label name"),
        ("name: cup,", "name: 'cup ',", "is not a label name"),
        ("name: cup,", f"name: {'x' * 81},", "up to 80"),
        ("name: cup,", "name: image_id,", "'image_id' is the name of another column"),
        ("name: cup,", "name: method,", "'method' is the name of another column"),
        ("name: cup,", "name: no,", "quote names that YAML reads as numbers or booleans"),
        ("name: office", "name: ../office", "is not a label name"),
        ("[mouse, keyboard]", "[mouse, keybord]", r"confusable \['keybord', 'mouse'\].*two different labels out of"),
        ("[mouse, keyboard]", "[mouse, mouse]", r"confusable \['mouse'\].*two different labels"),
        ("[mouse, keyboard]", "[mouse, keyboard, cup]", "two different labels"),
        ("parents: [ware]", "parents: [wares]", r"'cup' has unknown parents \['wares'\]: choose from"),
        ("{name: thing, seen: true}", "{name: thing, seen: true, parents: [cup]}", "'cup' is its own ancestor"),
        ("{name: mouse, seen: false}", "{name: mouse, seen: maybe}", "labels.4.seen.*valid boolean"),
        ("{name: mouse, seen: false}", "{name: mouse}", "labels.4.seen: Field required"),
        (
            "{name: mouse, seen: false}",
            "{name: mouse, seen: false, alias: [x]}",
            "labels.4: .*Did you mean 'aliases'",
        ),
        ("aliases: [computer keyboard, keys]", "aliases: [mouse]", "'mouse' of label 'keyboard' and 'mouse' of label"),
        ("aliases: [computer keyboard, keys]", "aliases: [Mouse]", "'Mouse' of label 'keyboard' and 'mouse' of label"),
        ("aliases: [computer keyboard, keys]", 'aliases: ["k\\u200deys"]', r"U\+200D.*, which no prompt"),
        ("aliases: [computer keyboard, keys]", "aliases: ['']", "alias '' is not plain words: write words"),
        ("seen: false", "seen: true", "no label has `seen: false`"),
        ("name: office\n", "", "name: Field required"),
    ],
)
def test_a_contradiction_is_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in GOOD
    with pytest.raises(ValueError, match=message) as error:
        load(tmp_path, GOOD.replace(old, new))
    assert "labels.yaml" in str(error.value)


@pytest.mark.parametrize(
    "text", ["", "- a\n- b\n", "just words", "labels: [", "\tname: x", "!!python/object:os.system {}"]
)
def test_no_mapping_is_refused(tmp_path: Path, text: str) -> None:
    with pytest.raises(ValueError, match=r"labels\.yaml (is|cannot be read)"):
        load(tmp_path, text)


def test_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(ValueError, match=r"labels\.yaml cannot be read"):
        LabelSpace.load(tmp_path / "labels.yaml")
    missing = r"none\.yaml cannot be read \(there is no such file\); in .* there are labels\.yaml: .*set label_space"
    with pytest.raises(ValueError, match=missing):
        LabelSpace.load(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (f"{GOOD}name: shop\n", r"labels\.yaml has 'name' twice, in lines 2 and 13: remove one of them"),
        (GOOD.replace("seen: true}", "seen: true, seen: false}"), r"has 'seen' twice, in line 6: remove one"),
        (
            GOOD.replace("name: office", "name: 2024-13-45"),
            r"labels\.yaml has a value .* \(month must be .*\): quote it",
        ),
    ],
)
def test_what_yaml_would_drop_or_cannot_make_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(tmp_path, text)


def test_an_unknown_label_lists_the_choices(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"unknown label 'dog': choose from \['cup'"):
        load(tmp_path, GOOD).index("dog")


def test_prompt_ids_differ_and_stay() -> None:
    ids = {prompt_id(labels, index) for labels in (("a",), ("b",), ("a", "b"), ("a, b",)) for index in range(20)}
    assert len(ids) == 80
    assert prompt_id(("cup", "fish"), 3) == prompt_id(["cup", "fish"], 3) == "e44d39d92dfa0ca1"


def test_a_prompt_needs_labels_and_a_known_origin() -> None:
    Prompt(prompt_id="x", text="a cup", labels=("cup",), origin="llm", attempt=1)
    with pytest.raises(ValueError, match="labels"):
        Prompt(prompt_id="x", text="a cup", labels=(), origin="llm", attempt=1)
    with pytest.raises(ValueError, match="origin"):
        Prompt(prompt_id="x", text="a cup", labels=("cup",), origin="me", attempt=1)  # type: ignore[arg-type]
