"""Speed of two workers of a Ray cluster on this machine against one, one thread each: `python
benchmarks/ray_scaling.py`, two minutes on two cores, after `dvc repro generate_images`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

from ray_cluster import local_cluster

import tailorset  # noqa: F401 - sets the offline and telemetry switches before any library is imported
from tailorset.generation.engine import Shelf
from tailorset.generation.quota import Draw
from tailorset.generation.studio import PlannedShard
from tailorset.project.assembly import ADAPTERS
from tailorset.project.layout import PROMPTS
from tailorset.project.params import Params, load_params
from tailorset.project.ray_engine import RayEngine
from tailorset.records import LabelSpace, read_prompts


def seconds(num_workers: int, params: Params, plans: Sequence[PlannedShard]) -> float:
    """Seconds for all shards except the first one of each worker, during which it loads and warms up."""
    space = LabelSpace.load(params.label_space)
    with local_cluster(num_workers) as cluster:
        engine = RayEngine(cluster.address, params, space, ADAPTERS, (), lambda num_images: None)
        shelf = Shelf(space.unseen, params.generate_images.quota_threshold)
        warm = [PlannedShard(f"warm-{number}", plans[number].draws) for number in range(num_workers)]
        list(engine.shards(warm, shelf))
        start = time.perf_counter()
        list(engine.shards(plans, shelf))
        return time.perf_counter() - start


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=8)
    options = parser.parse_args(arguments)
    params, prompts = load_params(), read_prompts(PROMPTS)
    size = params.generate_images.batch_size
    draws = [Draw(prompts[i % len(prompts)], i // len(prompts), "") for i in range(options.shards * size)]
    plans = [PlannedShard(f"shard-{i}", draws[i * size : (i + 1) * size]) for i in range(options.shards)]
    one, two = (seconds(number, params, plans) for number in (1, 2))
    print(f"{len(draws)} images in {len(plans)} shards: one worker {one:.1f} s, two {two:.1f} s, {one / two:.2f} times")


if __name__ == "__main__":
    main()
