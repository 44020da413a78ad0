"""The gate lets good data through and names every kind of damage, with the rows and what to do."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tailorset.prompts.contract import REASONS
from tailorset.records import (
    FILTERED_COLUMNS,
    PROMPT_COLUMNS,
    REAL_COLUMNS,
    SYNTHETIC_COLUMNS,
    Label,
    LabelSpace,
)
from tailorset.validation.gate import Gate, RuleFinding, report
from tailorset.validation.generated_rules import negative_table
from tailorset.validation.page import render
from tailorset.validation.products import Products
from tailorset.validation.settings import ValidateData
from tailorset.validation.suites import content_tables, layout_tables

SPACE = LabelSpace(
    name="test",
    labels=(
        Label(name="hat", seen=True),
        Label(name="cup", seen=False),
        Label(name="fish", seen=False, aliases=("gold fish",)),
        Label(name="key", seen=False),
    ),
    confusable=frozenset([frozenset(["cup", "key"])]),
)
SETTINGS = ValidateData(max_template_share=0.5, min_images_per_label=3)
Damage = Callable[[Products], Products]


def good() -> Products:
    """Twelve prompts with two candidates each, of which every fourth is rejected; eight images a split."""
    pairs = SPACE.pairs()
    wording = {"cup": "a cup", "fish": "a gold fish", "key": "a key"}
    prompts = pd.DataFrame(
        [
            (f"p{k}", f"{' next to '.join(wording[name] for name in labels)} number {k}", list(labels), "llm", 1)
            for k, labels in enumerate([*pairs, *pairs, *pairs][:12])
        ],
        columns=PROMPT_COLUMNS,
    )
    real = pd.DataFrame(
        [
            (f"{split}-{k}", split, f"{split}.tar", f"sha-{split}-{k}", 8, 8, 0.5, 0.2)
            for split in ("train", "val", "test")
            for k in range(8)
        ],
        columns=REAL_COLUMNS,
    )
    shown = np.ones((24, 4), np.int8)
    shown[:8, 1:] = -1
    shown[8:, 2] = np.arange(16) % 2
    targets = pd.DataFrame(shown, columns=SPACE.names)
    targets.insert(0, "image_id", real["image_id"])
    synthetic = pd.DataFrame(
        [
            (
                f"s{k}",
                f"p{k % 12}",
                prompts["text"][k % 12],
                prompts["labels"][k % 12],
                k,
                "s.tar",
                f"sha-{k}",
                8,
                8,
                0.5,
                0.2,
                np.zeros(3),
                np.ones(3),
            )
            for k in range(24)
        ],
        columns=SYNTHETIC_COLUMNS,
    )
    filtered = pd.DataFrame(
        [
            (row.image_id, row.shard, row.sha256, row.prompt, *verdict(k % 4 > 0, row.labels))
            for k, row in enumerate(synthetic.itertuples())
        ],
        columns=FILTERED_COLUMNS,
    )
    asked = [["hat"]] * 4
    ids, shas = ([f"{kind}{k}" for k in range(4)] for kind in ("n", "sha-n"))
    negatives = synthetic[:4].assign(image_id=ids, sha256=shas, seed=range(100, 104), labels=asked, shard="n.tar")
    return Products(prompts, real, targets, synthetic, filtered, negatives)


def verdict(kept: bool, labels: list[str]) -> tuple[bool, list[str], str, float, list[str]]:
    return (True, labels, "kept", 0.9, []) if kept else (False, [], "cup below threshold", 0.2, [])


def put(product: str, row: int, **values: Any) -> Damage:
    """Damage to the cells of one row."""

    def damage(products: Products) -> Products:
        frame = getattr(products, product).copy()
        for column, value in values.items():
            frame[column] = frame[column].astype(object)
            frame.at[row, column] = value
        return replace(products, **{product: frame.infer_objects()})

    return damage


def without(product: str, *rows: int) -> Damage:
    return lambda products: replace(products, **{product: getattr(products, product).drop(index=list(rows))})


def twice(product: str, row: int) -> Damage:
    def damage(products: Products) -> Products:
        frame = getattr(products, product)
        return replace(products, **{product: pd.concat([frame, frame.loc[[row]]], ignore_index=True)})

    return damage


def all_rows(product: str, **values: Any) -> Damage:
    return lambda products: replace(products, **{product: getattr(products, product).assign(**values)})


def from_photos(**values: Any) -> Damage:
    """Let all images start from a train photo, but the first from another one, or with other values."""

    def damage(products: Products) -> Products:
        frame = products.synthetic.assign(photo_id="train-1", photo_similarity=0.5, copies_photo=False)
        for column, value in values.items():
            frame.loc[1, column] = value
        return replace(products, synthetic=frame)

    return damage


CRITICAL: dict[str, tuple[Damage, str, str, str]] = {  # damage, table, title, what the message shows
    "no prompts": (without("prompts", *range(12)), "prompts", "there are prompts", ": 0"),
    "start from a test photo": (
        from_photos(photo_id="test-1"),
        "source_photos",
        "no image starts from a photo of val or test",
        "s1: its photo is one of val or test",
    ),
    "kept copy of a photo": (
        from_photos(copies_photo=True),
        "source_photos",
        "no kept image is a near-duplicate of its photo",
        "s1: copies its photo",
    ),
    "prompt twice": (twice("prompts", 3), "prompts", "prompt ids differ", "p3"),
    "label unnamed": (
        put("prompts", 1, text="a cup next to a bird"),
        "prompts",
        "every prompt names its labels",
        "p1: fish",
    ),
    "seen label requested": (
        put("prompts", 0, labels=["hat"]),
        "prompts",
        "prompts ask for unseen labels only",
        "p0: hat",
    ),
    "foreign label requested": (
        put("prompts", 0, labels=["dog"]),
        "prompts",
        "prompts ask for unseen labels only",
        "p0: dog",
    ),
    "confusable pair": (
        put("prompts", 0, labels=["key", "cup"]),
        "prompts",
        "prompts ask for no confusable pair",
        "p0",
    ),
    "strange origin": (put("prompts", 2, origin="me"), "prompts", "origin is known", "p2: me"),
    "templates": (all_rows("prompts", origin="template"), "prompts", "few prompts are templates", "1.0"),
    "real id twice": (twice("real", 2), "real_images", "image ids differ", "train-2"),
    "id in two splits": (
        put("real", 9, image_id="train-3"),
        "real_images",
        "splits share no image id",
        "train-3: train, val",
    ),
    "bytes in two splits": (
        put("real", 20, sha256="sha-train-1"),
        "real_images",
        "splits share no image bytes",
        "test-4: test, train",
    ),
    "no test images": (without("real", *range(16, 24)), "real_images", "every split has images", "missing: test"),
    "black image": (
        put("real", 5, pixel_mean=0.0, pixel_std=0.0),
        "real_images",
        "no image is black or constant",
        "train-5: 0.0",
    ),
    "brightness unknown": (
        put("real", 5, pixel_mean=np.nan),
        "real_images",
        "mean brightness is a number in [0, 1]",
        "train-5",
    ),
    "no width": (put("real", 5, width=0), "real_images", "images have a width", "train-5: 0"),
    "no targets": (without("targets", 7), "real_images", "every image has targets", "train-7"),
    "targets twice": (twice("targets", 7), "label_matrix", "each image has one row", "train-7"),
    "targets of nothing": (without("real", 7), "label_matrix", "each row has its image", "train-7"),
    "unseen positive in train": (
        put("targets", 4, fish=1),
        "label_matrix",
        "train images are not annotated for unseen labels",
        "train-4: fish",
    ),
    "unseen negative in train": (
        put("targets", 4, cup=0),
        "label_matrix",
        "train images are not annotated for unseen labels",
        "train-4: cup",
    ),
    "strange target": (put("targets", 4, hat=2), "label_matrix", "targets are 1, 0 or -1", "train-4: hat"),
    "test not annotated": (
        put("targets", 20, key=-1),
        "label_matrix",
        "val and test images are annotated for all labels",
        "test-4: key",
    ),
    "no candidates": (without("synthetic", *range(24)), "candidates", "there are candidates", ": 0"),
    "candidate twice": (twice("synthetic", 3), "candidates", "image ids differ", "s3"),
    "unknown prompt": (put("synthetic", 3, prompt_id="px"), "candidates", "every candidate has its prompt", "s3"),
    "text of another prompt": (
        put("synthetic", 3, prompt="a gold fish"),
        "candidates",
        "candidates are drawn from their prompt's text",
        "s3: its prompt has another text",
    ),
    "labels of another prompt": (
        put("synthetic", 3, labels=["key"]),
        "candidates",
        "candidates request their prompt's labels",
        "s3",
    ),
    "test image as candidate": (
        put("synthetic", 3, sha256="sha-test-2"),
        "candidates",
        "no candidate is a real image",
        "s3: test-2",
    ),
    "id of a real image": (
        put("synthetic", 3, image_id="test-2"),
        "candidates",
        "candidates share no id with real images",
        "test-2",
    ),
    "score not finite": (
        put("synthetic", 3, judge_logits=np.array([0, np.nan, 0])),
        "candidates",
        "scores are finite, one per unseen label",
        "s3: judge: not finite",
    ),
    "score missing": (
        put("synthetic", 3, discriminator_logits=np.zeros(2)),
        "candidates",
        "scores are finite, one per unseen label",
        "s3: discriminator: 2 scores, not 3",
    ),
    "negative of an unseen label": (
        put("negatives", 1, labels=["hat", "fish"]),
        "negatives",
        "negatives request seen labels without an unseen parent or child",
        "n1: may show fish",
    ),
    "photo as negative": (
        put("negatives", 1, sha256="sha-val-2"),
        "negatives",
        "no negative is a real image",
        "n1: val-2",
    ),
    "negative with an id of a photo": (
        put("negatives", 1, image_id="val-2"),
        "negatives",
        "negatives share no id with real images",
        "val-2",
    ),
    "candidate as negative": (
        put("negatives", 1, image_id="s2"),
        "negatives",
        "negatives share no id with candidates",
        "s2: id of a candidate",
    ),
    "negative twice": (twice("negatives", 3), "negatives", "image ids differ", "n3"),
    "negative without scores": (
        put("negatives", 1, judge_logits=np.zeros(0)),
        "negatives",
        "scores are finite, one per unseen label",
        "n1: judge: 0 scores, not 3",
    ),
    "undecided": (without("filtered", 3), "filtered", "every candidate is decided on", "23"),
    "decided twice": (twice("filtered", 3), "filtered", "each candidate has one row", "s3"),
    "decided on nothing": (put("filtered", 3, image_id="sx"), "filtered", "rows are candidates", "sx"),
    "changed image": (put("filtered", 3, sha256="x"), "filtered", "images are the candidates' own", "s3"),
    "another prompt": (
        put("filtered", 1, prompt="a cup"),
        "filtered",
        "prompts are the candidates' own",
        "s1: not the candidate's",
    ),
    "seen label kept": (
        put("filtered", 1, labels=["cup", "fish", "hat"]),
        "filtered",
        "labels are unseen ones, and include the requested",
        "s1: not unseen: hat",
    ),
    "requested label lost": (
        put("filtered", 1, labels=["cup"]),
        "filtered",
        "labels are unseen ones, and include the requested",
        "fish",
    ),
    "rejected with labels": (
        put("filtered", 4, labels=["cup"]),
        "filtered",
        "labels are unseen ones, and include the requested",
        "s4: rejected, but has labels",
    ),
    "no reason": (put("filtered", 4, reason=""), "filtered", "every rejection has a reason", "s4: rejected"),
    "wrong reason": (
        put("filtered", 1, reason="cup below threshold"),
        "filtered",
        "every rejection has a reason",
        "s1: kept",
    ),
    "no confidence": (put("filtered", 1, confidence=np.nan), "filtered", "confidence is a probability", "s1"),
    "nothing kept": (all_rows("filtered", kept=False), "kept_images", "some images are kept", ": 0"),
    "kept twice": (
        lambda p: put("filtered", 1, sha256="sha-2")(put("synthetic", 1, sha256="sha-2")(p)),
        "kept_images",
        "kept images differ",
        "sha-2",
    ),
    "constant image kept": (
        put("synthetic", 1, pixel_std=0.001),
        "kept_images",
        "no kept image is black or constant",
        "s1: 0.001",
    ),
    "label never asked for": (
        lambda p: replace(p, prompts=p.prompts[~p.prompts["labels"].map(lambda labels: "key" in labels)]),
        "unseen_labels",
        "asked for by prompts",
        "key: 0",
    ),
}

WARNING: dict[str, tuple[Damage, str, str, str]] = {
    "same text": (put("prompts", 5, text="a cup number 0"), "prompts", "prompt texts differ", "a cup number 0"),
    "same image in a split": (put("real", 1, sha256="sha-train-0"), "real_images", "images differ", "train-1"),
    "not annotated": (put("targets", 3, hat=-1), "label_matrix", "every image is annotated", "train-3"),
    "same candidate": (put("synthetic", 3, sha256="sha-4"), "candidates", "candidates differ", "s3"),
    "same seed": (put("synthetic", 3, seed=4), "candidates", "seeds differ", "s3"),
    "same negative": (put("negatives", 3, sha256="sha-n2"), "negatives", "negatives differ", "n3"),
    "black negative": (
        put("negatives", 2, pixel_std=0.0),
        "negatives",
        "no negative is black or constant",
        "n2: 0.0",
    ),
    "under quota": (
        lambda p: replace(
            p,
            filtered=p.filtered.assign(
                kept=p.filtered["kept"] & ~p.filtered["labels"].map(lambda labels: "key" in labels)
            ),
        ),
        "unseen_labels",
        "shown by enough kept images",
        "key: 0",
    ),
    "not in test": (all_rows("targets", key=0), "unseen_labels", "shown by test images", "key: 0"),
    "not in train": (all_rows("targets", hat=0), "seen_labels", "shown by train images", "hat: 0"),
}


@pytest.fixture
def gate() -> Gate:
    return Gate()


def findings_on(gate: Gate, products: Products, table: str, *titles: str) -> dict[str, RuleFinding]:
    """Findings of one table, of all its rules or of those with these titles only."""
    tables = content_tables(products, SPACE, SETTINGS)
    (chosen,) = [one for one in tables if one.name == table]
    rules = [rule for rule in chosen.rules if not titles or rule.title in titles]
    return {finding.title: finding for finding in gate.check([replace(chosen, rules=rules)])}


def test_good_data_pass_and_are_documented(gate: Gate) -> None:
    tables = layout_tables(good(), SPACE) + content_tables(good(), SPACE, SETTINGS)
    findings = gate.check(tables)
    assert [str(finding) for finding in findings if not finding.success] == []
    assert len(findings) == sum(len(table.rules) for table in tables) > 45
    content = report(findings)
    assert content["passed"]
    json.dumps(content, allow_nan=False)
    page = render(findings)
    assert f"all {len(findings)} rules passed" in page
    assert page.count(">passed</span>") == len(findings)
    assert "real images" in page


def test_the_page_of_damaged_data_says_what_and_needs_no_network(gate: Gate) -> None:
    findings = gate.check(content_tables(put("targets", 4, fish=1)(good()), SPACE, SETTINGS))
    page = render(findings)
    (leak,) = [one for one in findings if one.title == "train images are not annotated for unseen labels"]
    assert "The data must not be trained on:" in page
    assert f"<li>{leak.examples[0]}</li>" in page
    assert f"1 of {leak.num_rows} rows break it. Remedy: {leak.remedy}." in page
    assert page.count(">critical</span>") == 2 * sum(one.is_critical for one in findings)  # on top and in its table
    assert "<li>&lt;script&gt;</li>" in render([replace(leak, examples=("<script>",))])
    assert not re.search(r"""(?:src|href)=["']?(?:https?:)?//|url\(|@import""", page)


def test_the_advice_on_many_templates_names_why_most_replies_were_refused(gate: Gate) -> None:
    refused = dict.fromkeys(REASONS, 0) | {"about_the_task": 30, "too_short": 2}
    products = good()
    products.prompts["origin"] = "template"
    tables = content_tables(products, SPACE, SETTINGS, refused)
    finding = next(each for each in gate.check(tables[:1]) if each.title == "few prompts are templates")
    assert not finding.success
    assert finding.remedy.startswith("30 of 32 refused replies have a phrase that is about the task")


def test_the_report_repeats() -> None:
    damaged = put("targets", 4, fish=1)(good())
    first, second = (report(Gate().check(content_tables(damaged, SPACE, SETTINGS)[2:3])) for _ in range(2))
    assert json.dumps(first) == json.dumps(second)
    assert not first["passed"]
    assert first["num_critical"] == 1


@pytest.mark.parametrize("case", CRITICAL)
def test_critical_damage_is_named(gate: Gate, case: str) -> None:
    damage, table, title, shown = CRITICAL[case]
    finding = findings_on(gate, damage(good()), table, title)[title]
    assert finding.is_critical
    message = str(finding)
    assert message.startswith(f"[critical] {table}: {title} (Expect")
    assert shown in message
    assert "remedy: " in message


@pytest.mark.parametrize("case", WARNING)
def test_lesser_damage_is_a_warning(gate: Gate, case: str) -> None:
    damage, table, title, shown = WARNING[case]
    findings = findings_on(gate, damage(good()), table)
    assert findings[title].is_warning
    assert shown in str(findings[title])
    assert not any(finding.is_critical for finding in findings.values())


@pytest.mark.parametrize("product", ["prompts", "real", "targets", "synthetic", "filtered", "negatives"])
def test_a_missing_column_is_named(gate: Gate, product: str) -> None:
    products = good()
    frame = getattr(products, product)
    damaged = replace(products, **{product: frame.drop(columns=frame.columns[-1])})
    (finding,) = [one for one in gate.check(layout_tables(damaged, SPACE)) if not one.success]
    assert finding.is_critical
    assert finding.table == f"{product}_columns"


@pytest.mark.parametrize(
    ("product", "column"), [("real", "sha256"), ("real", "width"), ("targets", "hat"), ("synthetic", "seed")]
)
def test_an_empty_cell_is_named(gate: Gate, product: str, column: str) -> None:
    damaged = put(product, 5, **{column: None})(good())
    (finding,) = [one for one in gate.check(layout_tables(damaged, SPACE)) if not one.success]
    assert finding.is_critical
    assert str(finding).startswith(f"[critical] {product}_cells: no cell is empty")
    assert f": {column}\n" in str(finding)


def test_rows_are_counted_and_few_examples_shown(gate: Gate) -> None:
    damaged = all_rows("real", pixel_std=0.0)(good())
    finding = findings_on(gate, damaged, "real_images")["no image is black or constant"]
    assert "24 of 24 rows" in str(finding)
    assert len(finding.examples) == 5


@pytest.mark.parametrize(
    ("kin", "shown"),
    [
        ([Label(name="mug", seen=True, parents=("cup",))], "cup"),
        ([Label(name="mug", seen=True), Label(name="tea mug", seen=False, parents=("mug",))], "tea mug"),
    ],
)
def test_a_negative_must_not_show_a_child_or_parent_of_an_unseen_label(kin: list[Label], shown: str) -> None:
    products = put("negatives", 1, labels=["mug"])(good())
    assert products.negatives is not None
    table = negative_table(products.negatives, products, SPACE.grown(kin))
    assert list(table.frame["shows_unseen"]) == ["", f"may show {shown}", "", ""]
