"""Score the test split by CLIP without any training. A stage of its own: no setting of the classifier runs it again."""

from __future__ import annotations

from tailorset.evaluation.comparison import clip_methods, method_scores
from tailorset.project.layout import BASELINE_SCORES, FILTERED, REAL, SYNTHETIC
from tailorset.project.stage import run_stage
from tailorset.storage.annotated import Collection
from tailorset.storage.files import atomic_output


def main() -> None:
    with run_stage("score_baselines") as stage:
        space, settings = stage.label_space, stage.params.score_baselines
        clip = settings.clip.load(stage.device)
        test = Collection(space, REAL, SYNTHETIC, FILTERED).photos("test").load(clip.image_px)
        methods = clip_methods(clip, test.images, space, stage.params.clip.prompt_template, settings.templates)
        with atomic_output(BASELINE_SCORES) as partial:
            method_scores(methods, test.ids, space.names).to_parquet(partial, index=False)


if __name__ == "__main__":
    main()
