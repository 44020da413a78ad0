"""Loops that a stage and `tailorset add-label` both run, with progress, logging and resume."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path

from tailorset.generation.engine import Engine, LocalEngine, Shelf, generate_shards
from tailorset.generation.negatives import Negatives
from tailorset.generation.quota import QuotaPlanner
from tailorset.generation.report import Tally
from tailorset.generation.settings import GenerateImages
from tailorset.generation.shard_store import ShardStore
from tailorset.progress import Bar
from tailorset.project.assembly import ADAPTERS, open_studio
from tailorset.project.definition import stage_definition
from tailorset.project.layout import PREPARED, PROMPTS, REAL
from tailorset.project.stage import Stage
from tailorset.prompts.captions import Scenes, scenes_of, write_captions
from tailorset.prompts.files import read_captions, read_ledger, save_ledger
from tailorset.prompts.settings import Captions
from tailorset.prompts.slots import all_slots
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.writer import Ledger, write_prompts
from tailorset.records import LabelSpace
from tailorset.storage.files import write_json
from tailorset.storage.lent import lent_photos


def write_all(stage: Stage, label_space: LabelSpace, limit: TokenLimit, requesting: Collection[str] = ()) -> Ledger:
    """Write every prompt, or those that request one of some labels.

    The ledger is kept in the resume folder, so that a restart asks for nothing twice.
    """
    config, seed = stage.params.write_prompts, stage.params.seed
    scenes = caption_all(stage, label_space, config.captions) if config.captions else None
    llm = config.llm.build(stage.device)
    path = stage.work_dir / "ledger.json"
    ledger = read_ledger(path)
    ledgers = write_prompts(llm.reply, label_space, config, seed, llm.batch_size, ledger, limit, requesting, scenes)
    total, done = len(all_slots(config, label_space, seed, requesting)), len(ledger.prompts)
    with Bar(total=total, initial=done, unit="prompt", is_whole=True) as bar:
        for step, ledger in enumerate(ledgers):
            bar.update(len(ledger.prompts) - bar.n)
            bar.set_postfix(attempt=ledger.attempt)
            stage.log_metrics({"prompts/written": len(ledger.prompts)}, step=step)
            save_ledger(ledger, path)
    return ledger


def caption_all(stage: Stage, label_space: LabelSpace, config: Captions) -> Scenes:
    """Write a caption of each lent photo, and return the scenes they describe.

    Captions are kept in the resume folder only, so that a restart writes none twice.
    """
    path = stage.work_dir / "captions.json"
    photos, folder = lent_photos(REAL).some(config.num_photos, stage.params.seed)
    captions = read_captions(path)
    with Bar(total=len(photos), initial=len(captions), desc="captions of photos", unit="photo") as bar:
        waiting = photos[~photos["image_id"].isin(captions.keys())]
        captioner = config.captioner.build(stage.device) if len(waiting) else None
        for written in write_captions(captioner, waiting, folder) if captioner else ():
            captions |= written
            write_json(path, captions)
            bar.update(len(written))
    return scenes_of([captions[image_id] for image_id in photos["image_id"]], label_space)


def draw_all(
    stage: Stage,
    label_space: LabelSpace,
    config: GenerateImages,
    planner: QuotaPlanner,
    store: ShardStore,
    negatives: Negatives | None = None,
) -> Tally:
    """Draw the negatives, then every candidate, and return the outcome; shards are stored as they are finished."""
    tally = Tally(planner.labels, config.quota_threshold)
    shelf = Shelf(planner.labels, config.quota_threshold, store.finished_rows, store.keep)
    num_negatives = sum(len(plan.draws) for plan in negatives.plans) if negatives else 0
    with Bar(total=num_negatives + config.max_images, unit="image", is_whole=True) as bar:
        engine = open_engine(stage, label_space, bar.update)
        if negatives:
            negative_shelf = Shelf((), 0, negatives.store.finished_rows, negatives.store.keep)
            for shard in engine.shards(negatives.plans, negative_shelf):
                bar.update(len(shard.rows) if shard.found else 0)
        for shard in generate_shards(engine, planner, config.shard_size, shelf):
            bar.update(len(shard.rows) if shard.found else 0)
            tally.add(shard)
            bar.total = num_negatives + tally.expected_images(planner.quotas, config.max_images)
            bar.set_postfix_str(tally.fewest(planner.quotas))
            progress = {f"generate/kept/{label}": float(count) for label, count in tally.kept.items()}
            stage.log_metrics(progress | {"generate/batch_size": engine.batch_size}, step=len(tally))
    return tally


def open_engine(stage: Stage, label_space: LabelSpace, on_batch: Callable[[int], object]) -> Engine:
    """Open the devices of this machine, or of a cluster."""
    params = stage.params
    if params.engine.name == "local":
        return LocalEngine(open_studio(params, label_space, stage.device), on_batch)
    from tailorset.project.ray_engine import RayEngine  # an optional dependency

    reads_photos = params.generate_images.from_photos or params.generator.config.retrieves_photos
    sent = (PROMPTS, *ADAPTERS.values(), *([] if reads_photos else [PREPARED]))
    files = [dep for dep in stage_definition("generate_images")["deps"] if Path(dep) not in sent]
    return RayEngine(params.engine.address, params, label_space, ADAPTERS, files, on_batch)
