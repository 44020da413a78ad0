"""Use of the products that the licences of all models and of the photos allow."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from tailorset.commands.licences import licence_findings
from tailorset.project.licences import LicensedPart, allowances, forbidden, on_cards, parts_of, uses
from tailorset.project.params import Params, check_params
from tailorset.project.presets import load_preset, preset_text
from tests.storage.test_hub import NEW, cached_repository

PRESETS = Path(__file__).resolve().parents[2] / "presets"
NC_CLIP = {"model": "ViT-B-16-quickgelu", "pretrained": "metaclip_400m"}
SERVED = {"name": "openai", "base_url": "http://localhost:1/v1", "model": "Qwen/Qwen3-4B-Instruct-2507"}


def changed(preset: str, **blocks: object) -> Params:
    values = yaml.safe_load(preset_text(preset, PRESETS))
    for name, block in blocks.items():
        values[name] = values[name] | block if isinstance(block, dict) else block
    return check_params(values, "params.yaml")


def test_every_part_is_named_with_its_licence() -> None:
    parts = {part.role: part for part in parts_of(load_preset("coco_fast", PRESETS))}
    assert list(parts) == [
        "discriminator",
        "judge",
        "image generator",
        "few-step LoRA of the generator",
        "language model",
        "backbone, within the classifier's weights",
        "CLIP to compare with",
        "photos",
    ]
    assert parts["judge"].stated == ("Apache-2.0", "yes")
    assert parts["image generator"].stated == (
        "CreativeML Open RAIL-M; its use restrictions go with what it draws",
        "yes",
    )
    assert parts["photos"].stated[1] == "depends"
    assert "CLIP to compare with" not in {part.role for part in on_cards(parts.values())}


def test_the_version_of_a_part_is_that_of_its_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    cached_repository(tmp_path, {"main": NEW}, name="some/model")

    def revision(**generator: str) -> str:
        parts = parts_of(changed("folder", generator=generator))
        return next(part.revision for part in parts if part.key == "generator")

    assert revision(model="some/model") == f"{NEW} (the latest)"
    assert revision(model="some/model", revision="v1") == "v1 (pinned)"
    assert revision(model="nobody/nothing") == "not stated"
    assert revision(model=str(tmp_path)) == "local folder"


def test_a_model_behind_a_server_counts() -> None:
    params = changed("coco", write_prompts={"llm": SERVED})
    served = next(part for part in parts_of(params) if part.key == "write_prompts.llm")
    assert (served.title, served.licence.title) == ("Qwen/Qwen3-4B-Instruct-2507", "Apache-2.0")


def test_the_toybox_may_be_used_for_anything() -> None:
    drawn, classifier = allowances(parts_of(load_preset("toybox", PRESETS)))
    assert (drawn.commercial, classifier.commercial) == (True, True)
    assert str(drawn) == "generated set: commercial use is allowed"


def test_a_generator_s_terms_go_to_set_and_classifier() -> None:
    flux = {"name": "diffusers", "model": "black-forest-labs/FLUX.2-dev", "image_px": 512}
    guidance = {"guidance": {"kind": "embedded", "scale": 4.0}}
    values = yaml.safe_load(preset_text("folder", PRESETS))
    params = check_params(values | {"generator": flux | guidance}, "params.yaml")
    for allowance in allowances(parts_of(params)):
        assert allowance.commercial is False
        assert allowance.because == ("image generator black-forest-labs/FLUX.2-dev (FLUX Non-Commercial)",)
        assert any("may not train a competing model" in term for term in allowance.terms)
    assert list(uses(parts_of(params))) == ["use of the generated set", "use of the classifier"]


def test_photos_and_backbone_bind_the_classifier_only_and_the_judge_neither() -> None:
    drawn, classifier = allowances(parts_of(load_preset("nus_wide", PRESETS)))
    assert (drawn.commercial, classifier.commercial) == (True, False)
    assert "photos nus_wide (research only" in str(classifier)
    drawn, classifier = allowances(parts_of(changed("toybox", train_classifier={"backbone": NC_CLIP})))
    assert (drawn.commercial, classifier.commercial) == (True, False)
    clip = {"judge": NC_CLIP}
    params = changed("toybox", clip=clip)
    assert all(allowance.commercial for allowance in allowances(parts_of(params)))
    assert [text.partition(":")[0] for text in forbidden(parts_of(params))] == ["clip.judge"]


def test_an_unknown_licence_is_not_a_permission() -> None:
    drawn, classifier = allowances(parts_of(changed("toybox", generator={"model": "nobody/nothing"})))
    assert drawn.commercial is classifier.commercial is None
    assert "depends on image generator nobody/nothing (not known to tailorset" in str(drawn)


@pytest.mark.parametrize(("licences", "status"), [("any", "warning"), ("commercial", "error")])
def test_what_forbids_commercial_use_is_named_and_refused_if_that_was_asked(licences: str, status: str) -> None:
    found = list(licence_findings(changed("toybox", generator={"model": "stabilityai/sdxl-turbo"}, licences=licences)))
    assert found[0].status == status
    assert found[0].text == (
        "generator: stabilityai/sdxl-turbo may not be used commercially (Stability AI Non-Commercial)"
    )
    assert "docs/models.md" in found[0].remedy
    assert [finding.status for finding in found[1:]] == ["ok", "ok"]


def test_unknown_licences_are_a_warning_where_commercial_use_is_asked() -> None:
    generator = {"model": "nobody/nothing"}
    assert {finding.status for finding in licence_findings(changed("toybox", generator=generator))} == {"ok"}
    first, *_ = licence_findings(changed("toybox", generator=generator, licences="commercial"))
    assert (first.status, "generator: nobody/nothing may or may not be used" in first.text) == ("warning", True)


def test_every_preset_but_that_of_nus_wide_passes_the_gate() -> None:
    for preset in ("toybox", "coco", "coco_fast", "paper", "folder"):
        found = licence_findings(changed(preset, licences="commercial"))
        assert "error" not in {finding.status for finding in found}, preset
    assert "error" in {finding.status for finding in licence_findings(changed("nus_wide", licences="commercial"))}


def test_a_part_of_another_plug_in_keeps_its_key_as_its_role() -> None:
    part = next(part for part in parts_of(load_preset("toybox", PRESETS)) if part.key == "generator")
    assert LicensedPart("filter_images.model", "x", "", part.licence).role == "filter_images.model"


def test_images_that_start_from_photos_carry_the_photos_licence() -> None:
    plain = allowances(parts_of(load_preset("coco", PRESETS)))[0]
    assert (plain.product, plain.commercial) == ("generated set", True)
    started = changed("coco", generate_images={"from_photos": {"strength": 0.6}})
    generated = allowances(parts_of(started))[0]
    assert generated.commercial is None
    assert "photos that images start from coco" in generated.answer
    learned = allowances(parts_of(changed("coco", tune_unet={"num_updates": 500})))[0]
    assert learned.commercial is None
    assert "photos that the image generator learns from coco" in learned.answer


def test_folders_of_photos_are_not_taken_for_free_and_named_without_their_place() -> None:
    lent = {"name": "toybox", "shard_size": 10, "num_train": 9, "num_val": 9, "num_test": 9, "image_px": 64}
    started = changed(
        "toybox",
        generate_images={"from_photos": {"strength": 0.7}},
        prepare_dataset=lent | {"lend_photos": "/home/me/pool"},
    )
    retrieved = changed("toybox")
    values = yaml.safe_load(preset_text("toybox", PRESETS))
    values["generator"] = {"name": "retrieval", "images": "/home/me/pool", "image_px": 64} | {
        "model": "local-dir:models/foundation/toybox/backbone"
    }
    values["tune_unet"]["num_updates"] = values["tune_text_encoder"]["num_updates"] = 0
    for params, words in (
        (started, "depends on photos that images start from pool"),
        (check_params(values, "params.yaml"), "depends on images to choose from pool"),
    ):
        for allowance in allowances(parts_of(params)):
            assert allowance.commercial is None
            assert words in allowance.answer
    assert all(allowance.commercial for allowance in allowances(parts_of(retrieved)))
