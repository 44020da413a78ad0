"""Rounds meet quotas within the budget, repeat exactly, and no label lives at another's expense."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping
from itertools import combinations_with_replacement
from pathlib import Path

import pytest

from tailorset.generation.quota import Draw, QuotaPlanner
from tailorset.project.params import load_params
from tailorset.records import LabelSpace, Prompt
from tailorset.seeding import numpy_rng

ROOT = Path(__file__).resolve().parents[2]
LABELS = ("boat", "clock", "fish", "key")


def prompts_for(labels: tuple[str, ...] = LABELS, per_pair: int = 3) -> list[Prompt]:
    """`per_pair` prompts for every unordered pair of labels, a label with itself included."""
    return [
        Prompt(
            prompt_id=hashlib.sha256(f"{pair}{i}".encode()).hexdigest()[:12],
            text="a " + " next to a ".join(dict.fromkeys(pair)),
            labels=tuple(dict.fromkeys(pair)),
            origin="llm",
            attempt=0,
        )
        for pair in combinations_with_replacement(labels, 2)
        for i in range(per_pair)
    ]


def run(planner: QuotaPlanner, chance: Mapping[str, float]) -> list[list[Draw]]:
    """Play rounds to the end; an image shows each requested label with that label's chance."""
    rounds = []
    while draws := planner.plan_round():
        rounds.append(draws)
        planner.record(draws, [_shows(draw, chance) for draw in draws])
        assert len(rounds) < 100
    return rounds


def _shows(draw: Draw, chance: Mapping[str, float]) -> bool:
    return all(numpy_rng(draw.image_id, label).random() < chance[label] for label in draw.prompt.labels)


def test_every_label_gets_its_quota_in_few_rounds_without_much_waste() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=200, max_images=10_000)
    rounds = run(planner, dict.fromkeys(LABELS, 0.7))
    assert planner.under_quota == ()
    assert len(rounds) <= 6
    assert max(planner.kept.values()) < 1.3 * 200


def test_perfect_images_need_one_round() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=50, max_images=1000)
    assert len(run(planner, dict.fromkeys(LABELS, 1.0))) == 1


def test_the_undrawable_label_takes_nothing_from_others_even_in_a_tight_budget() -> None:
    """Every label needs about its whole share; fish must not eat into it, whatever its place in the order."""
    for hopeless in LABELS:
        planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=10_000, max_images=400)
        charged = Counter(
            draw.charged_to for draws in run(planner, {**dict.fromkeys(LABELS, 0.5), hopeless: 0.0}) for draw in draws
        )
        assert all(charged[label] == 100 for label in LABELS)


def test_prompts_shared_with_a_given_up_label_are_not_drawn_any_more() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=40, max_images=1600)
    rounds = run(planner, {**dict.fromkeys(LABELS, 0.95), "fish": 0.0, "key": 0.03})
    spent, after = 0, []
    for draws in rounds:
        if spent == planner.share:
            after += draws
        spent += sum(draw.charged_to == "fish" for draw in draws)
    assert after
    assert not any("fish" in draw.prompt.labels for draw in after)


def test_what_others_leave_unspent_goes_to_a_label_that_is_hard_but_possible() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=40, max_images=1200)
    chance = {**dict.fromkeys(LABELS, 0.95), "key": 0.08}
    charged = Counter(draw.charged_to for draws in run(planner, chance) for draw in draws)
    assert charged["key"] > planner.share
    assert planner.under_quota == ()


def test_all_unknowns_get_nothing_but_their_shares() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), images_per_label=10, max_images=403)
    assert sum(map(len, run(planner, dict.fromkeys(LABELS, 0.0)))) == 400
    assert planner.given_up == LABELS


def test_a_round_is_fair_to_labels_and_goes_round_their_prompts() -> None:
    draws = QuotaPlanner(LABELS, prompts_for(), images_per_label=500, max_images=10_000).plan_round()
    charged = Counter(draw.charged_to for draw in draws)
    images = Counter(draw.prompt.prompt_id for draw in draws)
    assert max(charged.values()) - min(charged.values()) <= 0.1 * 500
    assert len(images) == len(prompts_for())
    for label in LABELS:
        of_label = [images[prompt.prompt_id] for prompt in prompts_for() if label in prompt.labels]
        assert max(of_label) <= 2 * min(of_label)


def test_no_image_is_drawn_twice_and_indices_of_a_prompt_count_up() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(per_pair=1), images_per_label=60, max_images=2000)
    draws = [draw for draws in run(planner, dict.fromkeys(LABELS, 0.4)) for draw in draws]
    assert len({draw.image_id for draw in draws}) == len(draws)
    for prompt in prompts_for(per_pair=1):
        indices = [draw.index for draw in draws if draw.prompt == prompt]
        assert indices == list(range(len(indices)))


def test_input_that_cannot_work_is_refused_before_anything_is_drawn() -> None:
    with pytest.raises(ValueError, match="max_images=3 for 4 unseen labels"):
        QuotaPlanner(LABELS, prompts_for(), images_per_label=1, max_images=3)
    with pytest.raises(ValueError, match=r"no prompt requests \['kite'\]"):
        QuotaPlanner((*LABELS, "kite"), prompts_for(), images_per_label=1, max_images=100)
    with pytest.raises(ValueError, match=r"prompts request \['key'\]"):
        QuotaPlanner(LABELS[:3], prompts_for(), images_per_label=1, max_images=100)
    with pytest.raises(ValueError, match="occurs twice"):
        QuotaPlanner(LABELS, prompts_for() * 2, images_per_label=1, max_images=100)


def test_an_added_label_alone_has_a_quota_and_its_part_of_the_budget() -> None:
    names = ("cup", "fish", "key", "drum")
    labels = [{"name": name, "seen": False} for name in names]
    space = LabelSpace.model_validate({"name": "four", "labels": labels, "confusable": [["cup", "drum"]]})
    config = load_params(ROOT / "params.yaml").generate_images.model_copy(update={"max_images": 900})
    added = config.for_added(space, ["drum"])
    assert added.max_images == 300  # 3 of 9 pairs request it
    requested = [prompt for prompt in prompts_for(names) if "drum" in prompt.labels and "cup" not in prompt.labels]
    planner = QuotaPlanner.of(added, space.unseen, requested, seed=0)
    assert planner.quotas == {"cup": 1, "fish": 1, "key": 1, "drum": config.images_per_label}
    run(planner, {"fish": 0.9, "key": 0.9, "drum": 0.9})
    assert planner.kept["drum"] >= config.images_per_label
    assert planner.kept["cup"] == 0  # never drawn together
