"""Allocations: the posterior by hand, caps that hold, fewer draws where prompts differ, equal plans after a restart."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import combinations_with_replacement

import numpy as np
import pytest

from tailorset.generation.allocation import Allocator, DrawCounts, Thompson, Turns, Uniform, most_kept, posterior
from tailorset.generation.quota import Draw, QuotaPlanner
from tailorset.generation.settings import Allocation
from tailorset.records import Prompt, prompt_id
from tailorset.seeding import numpy_rng

LABELS = ("boat", "clock", "fish")
Chance = Callable[[Prompt], float]


def prompts_for(labels: Sequence[str] = LABELS, per_pair: int = 10) -> list[Prompt]:
    pairs = [tuple(dict.fromkeys(pair)) for pair in combinations_with_replacement(labels, 2)]
    return [
        Prompt(prompt_id=prompt_id(pair, i), text=f"{i}", labels=pair, origin="llm", attempt=1)
        for pair in pairs
        for i in range(per_pair)
    ]


def thompson(
    seed: int = 0, gain: str = "images", per_prompt: float = 1.0, per_pair: float = 1.0, round_images: int = 32
) -> Thompson:
    shares = {"max_share_per_prompt": per_prompt, "max_share_per_pair": per_pair}
    settings = {"name": "thompson", "round_images": round_images, "gain": gain, **shares}
    return Thompson(Allocation.model_validate(settings), seed)


def play(planner: QuotaPlanner, chance: Chance, num_rounds: int = 1000) -> list[list[Draw]]:
    """Rounds to the end; whether an image is kept depends on its id alone."""
    rounds: list[list[Draw]] = []
    while len(rounds) < num_rounds and (draws := planner.plan_round()):
        planner.record(draws, [numpy_rng(draw.image_id).random() < chance(draw.prompt) for draw in draws])
        rounds.append(draws)
    return rounds


def number(draws: list[list[Draw]]) -> int:
    return sum(map(len, draws))


def one_good_in_five(prompt: Prompt) -> float:
    return 0.9 if int(prompt.text) < 2 else 0.1


EACH = pytest.mark.parametrize(
    "allocator",
    [Uniform(), Turns(), thompson(), thompson(gain="labels", per_prompt=0.2, per_pair=0.4)],
    ids=["uniform", "turns", "thompson", "thompson for labels"],
)


def test_the_posterior_is_the_one_computed_by_hand() -> None:
    counts = DrawCounts.of([*prompts_for(("boat",), 1), *prompts_for(("clock",), 2)], ("boat", "clock"))
    counts.drawn[:], counts.kept[:] = [4, 6, 0], [4, 2, 0]
    alpha, beta = posterior(counts)
    everybody = (6 + 1) / (10 + 2)
    boat, clock = ((kept + 4 * everybody) / (drawn + 4) for kept, drawn in ((4, 4), (2, 6)))
    boat, clock = (4 + 4 * boat) / (4 + 4), (2 + 4 * clock) / (6 + 4)
    np.testing.assert_allclose(alpha, [4 * boat + 4, 4 * clock + 2, 4 * clock])
    np.testing.assert_allclose(beta, [4 * (1 - boat), 4 * (1 - clock) + 4, 4 * (1 - clock)])


def test_a_prompt_never_drawn_is_judged_by_its_pair_and_a_pair_by_its_labels_in_company() -> None:
    prompts = prompts_for(per_pair=2)
    counts = DrawCounts.of(prompts, LABELS)
    of = {
        labels: [i for i, prompt in enumerate(prompts) if prompt.labels == labels]
        for labels in {p.labels for p in prompts}
    }
    counts.drawn[of["boat",][0]], counts.kept[of["boat",][0]] = 20, 20  # alone: no evidence about company
    counts.drawn[of["boat", "clock"][0]], counts.kept[of["boat", "clock"][0]] = 20, 2
    alpha, beta = posterior(counts)
    mean = alpha / (alpha + beta)
    assert mean[of["boat",][1]] > 0.8
    assert mean[of["boat", "clock"][1]] < 0.2
    assert mean[of["boat", "fish"][0]] == mean[of["clock", "fish"][0]]  # each shares one label with the poor pair
    assert mean[of["boat", "clock"][1]] < mean[of["boat", "fish"][0]] < 0.3 < mean[of["fish",][0]]


def test_gain_by_labels_counts_those_still_short() -> None:
    """Alone 0.9, in company 0.6: two labels for 0.6 are the better bargain, until only one of them is short."""

    def chance(prompt: Prompt) -> float:
        return 0.9 if len(prompt.labels) == 1 else 0.6

    def in_company(gain: str, weakness: dict[str, float]) -> float:
        planner = QuotaPlanner(LABELS, prompts_for(), 100, 5000, thompson(gain=gain), weakness)
        late = [draw for draws in play(planner, chance)[4:] for draw in draws]
        return float(np.mean([len(draw.prompt.labels) > 1 for draw in late]))

    assert in_company("labels", {}) > 0.7
    assert in_company("images", {}) < 0.3
    assert in_company("labels", {"fish": 5.0}) < 0.5  # fish alone is short at the end


def test_thompson_needs_less_than_half_of_what_uniform_draws_where_prompts_differ() -> None:
    drawn = {}
    for allocator in (Uniform(), thompson()):
        planner = QuotaPlanner(LABELS, prompts_for(), 200, 20_000, allocator)
        drawn[type(allocator)] = number(play(planner, one_good_in_five))
        assert planner.under_quota == ()
    assert drawn[Uniform] > 2 * drawn[Thompson]


def test_uniform_gives_every_pair_and_its_prompts_equal_shares() -> None:
    draws = QuotaPlanner(LABELS, prompts_for(), 500, 10_000, Uniform()).plan_round()
    of_pair = Counter(draw.prompt.labels for draw in draws)
    of_prompt = Counter(draw.prompt.prompt_id for draw in draws)
    assert len(of_pair) == 6
    assert max(of_pair.values()) - min(of_pair.values()) <= 1
    assert max(of_prompt.values()) - min(of_prompt.values()) <= 1


@pytest.mark.parametrize(("per_prompt", "per_pair"), [(0.05, 0.4), (1.0, 0.35), (0.1, 1.0)])
def test_no_prompt_and_no_pair_gives_more_than_its_share(per_prompt: float, per_pair: float) -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), 100, 10_000, thompson(per_prompt=per_prompt, per_pair=per_pair))
    play(planner, lambda prompt: 0.9 if prompt.labels == ("boat",) else 0.5)
    assert planner.under_quota == ()
    kept = planner.counts.kept
    assert kept.max() <= np.ceil(per_prompt * 100)
    assert planner.counts.by_pair(kept).max() <= np.ceil(per_pair * 100)


def test_a_share_below_an_equal_one_means_the_equal_one() -> None:
    requested = np.array([[1, 0], [1, 0], [1, 1], [0, 1]], dtype=bool)
    everything, quota = np.ones(4, dtype=bool), np.array([90, 10])
    np.testing.assert_array_equal(most_kept(requested, everything, quota, 0.01), [30, 30, 5, 5])
    np.testing.assert_array_equal(most_kept(requested, everything, quota, 0.6), [54, 54, 6, 6])
    np.testing.assert_array_equal(
        most_kept(requested, requested[:, 0], quota, 0.01), [30, 30, 10, 10]
    )  # the last is given up


def test_a_label_whose_prompts_are_at_their_caps_ends_under_quota_and_holds_up_nobody() -> None:
    """One prompt for fish alone, none better: it may give half the quota, and the rest never shows fish."""
    prompts = [p for p in prompts_for() if "fish" not in p.labels or p.text == "0"]
    planner = QuotaPlanner(LABELS, prompts, 20, 3000, thompson(per_prompt=0.5))
    play(planner, lambda prompt: 0.0 if "fish" in prompt.labels and len(prompt.labels) > 1 else 0.7)
    assert planner.under_quota == ("fish",)
    assert planner.kept["fish"] == 10


@EACH
@pytest.mark.parametrize("budget", [3, 50, 401])
def test_the_budget_is_spent_and_never_exceeded(allocator: Allocator, budget: int) -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), 10_000, budget, allocator)
    assert number(play(planner, lambda prompt: 0.5)) == budget
    assert planner.left == 0
    assert planner.plan_round() == []


@EACH
def test_a_label_that_never_shows_is_given_up_and_reported(allocator: Allocator) -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), 60, 1500, allocator)
    play(planner, lambda prompt: 0.0 if "fish" in prompt.labels else 0.6)
    assert planner.under_quota == planner.given_up == ("fish",)
    assert planner.charged["fish"] == planner.share == 500


@EACH
def test_a_restart_plans_what_was_planned(allocator: Allocator) -> None:
    """The outcomes of finished rounds, recorded by another process, in another order of the prompts."""
    first = QuotaPlanner(LABELS, prompts_for(), 80, 3000, allocator)
    rounds = play(first, one_good_in_five)
    for num_finished in range(len(rounds)):
        again = QuotaPlanner(LABELS, prompts_for()[::-1], 80, 3000, allocator)
        again_rounds = play(again, one_good_in_five, num_finished)
        assert again_rounds == rounds[:num_finished]
        assert again.plan_round() == again.plan_round() == rounds[num_finished]


def test_the_seed_decides_what_thompson_tries() -> None:
    def first_round(seed: int) -> list[Draw]:
        return QuotaPlanner(LABELS, prompts_for(), 80, 3000, thompson(seed)).plan_round()

    assert first_round(1) == first_round(1) != first_round(2)


def test_weakness_scales_the_quota_within_the_budget() -> None:
    planner = QuotaPlanner(LABELS, prompts_for(), 50, 2000, thompson(), {"fish": 2.0, "boat": 0.5})
    assert planner.quotas == {"boat": 25, "clock": 50, "fish": 100}
    play(planner, lambda prompt: 0.8)
    assert planner.under_quota == ()
    assert planner.kept["fish"] >= 100 > planner.kept["boat"]
    with pytest.raises(ValueError, match=r"weakness names \['fsh'\]; choices: .*'fish'"):
        QuotaPlanner(LABELS, prompts_for(), 50, 2000, weakness={"fsh": 2.0})


def test_an_unknown_allocation_lists_the_choices() -> None:
    with pytest.raises(ValueError, match=r"'uniform', 'turns' or 'thompson'.*'ucb'"):
        Allocation.model_validate(thompson().config.model_dump() | {"name": "ucb"})


@pytest.mark.parametrize(
    "allocator",
    [Uniform(), Turns(), thompson(0, "labels", 0.1, 0.25, 1024)],
    ids=["uniform", "turns", "thompson for labels"],
)
def test_a_round_for_81_labels_is_planned_in_seconds(allocator: Allocator) -> None:
    labels = [f"label {i:02d}" for i in range(81)]
    planner = QuotaPlanner(labels, prompts_for(labels), 200, 40_000, allocator)
    start = time.process_time()
    draws = planner.plan_round()
    assert len(draws) >= 1000
    assert (time.process_time() - start) / len(draws) < 5e-3  # seconds; measured 0.0002


def test_counts_know_pairs_in_the_order_of_their_rows_and_sums_by_label() -> None:
    asked = [(*some, *more) for some in [("boat",), ("fish",), ("boat", "fish")] for more in [(), ("clock",)]]
    prompts = [
        Prompt(prompt_id=f"{i}", text="x", labels=labels, origin="llm", attempt=1) for i, labels in enumerate(asked * 2)
    ]
    counts = DrawCounts.of(prompts, [*LABELS, "never requested"])
    rows, of_prompt = np.unique(counts.requested, axis=0, return_inverse=True)
    assert counts.pair_requested.tolist() == rows.tolist()
    assert counts.pair.tolist() == of_prompt.reshape(-1).tolist()
    images = np.arange(len(prompts))
    assert counts.by_label(images).tolist() == (images @ counts.requested.astype(int)).tolist()
