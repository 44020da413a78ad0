"""Seeds depend on what names the sample, and on nothing else."""

import numpy as np
import torch

from tailorset.seeding import numpy_rng, sample_seed, torch_generator


def test_seeds_are_the_same_everywhere() -> None:
    assert sample_seed(0, "prompt", 3) == 1381441003375334364


def test_seeds_fit_63_bits_and_differ() -> None:
    seeds = {sample_seed(base, name, index) for base in (0, 1) for name in ("a", "b") for index in range(500)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_parts_do_not_run_together() -> None:
    assert len({sample_seed("ab", "c"), sample_seed("a", "bc"), sample_seed("abc"), sample_seed("a", "b", "c")}) == 4
    assert sample_seed(1) != sample_seed("1")


def test_generators_repeat_their_numbers() -> None:
    assert np.array_equal(numpy_rng(0, "x").normal(size=4), numpy_rng(0, "x").normal(size=4))
    first, second = (torch.randn(4, generator=torch_generator(0, "x")) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, torch.randn(4, generator=torch_generator(1, "x")))


def test_generators_leave_the_global_state_alone() -> None:
    before = torch.get_rng_state()
    torch.randn(4, generator=torch_generator(0, "x"))
    assert torch.equal(before, torch.get_rng_state())
