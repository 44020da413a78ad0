"""Models by name: revisions reach the loaders."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError

from tailorset.clip.model import OpenClip, load_clip
from tailorset.generators.stable_diffusion import Config, build
from tailorset.llms.transformers import Config as TransformersConfig
from tailorset.project.params import load_params, named_models
from tailorset.project.presets import load_preset
from tailorset.storage.hub import NamedModel, is_read

ROOT = Path(__file__).resolve().parents[2]
NEW, OLD = "a" * 40, "b" * 40


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


@pytest.mark.parametrize("model", ["hf-hub:some/model", "local-dir:some/model"])
def test_a_prefix_of_open_clip_is_refused_for_models_that_it_does_not_load(model: str) -> None:
    with pytest.raises(ValidationError, match=r"only CLIPs have the prefix .*, so write some/model"):
        Config(model=model, image_px=8)
    with pytest.raises(ValidationError, match="so write some/model"):
        TransformersConfig(model=model)
    assert OpenClip(model=model).title == model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("https://huggingface.co/some/model", "is a web address: write some/model \\["),
        ("https://hf.co/some/model/tree/main", "write some/model \\["),
        ("https://example.org/model", "write a folder, or a model of the Hugging Face hub as OWNER/NAME"),
        ("weights/model.safetensors", r"is a single file: name a folder with model_index\.json"),
        ("some/sd-v1-5.CKPT", r"is a single file: name a folder with model_index\.json"),
        (" some/model", "' some/model': remove the space at its beginning or end"),
        ("some/model\t", "remove the space"),
    ],
)
def test_what_names_no_model_is_refused_with_what_to_write(model: str, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        Config(model=model, image_px=8)
    clip = {"match": "in `pretrained`"} if "single file" in message else {"match": "write|remove"}
    with pytest.raises(ValidationError, **clip):
        OpenClip(model=model)


def test_spaces_around_other_names_are_refused(tmp_path: Path) -> None:
    for block in ({"revision": "v1 "}, {"pretrained": " openai"}):
        with pytest.raises(ValidationError, match="remove the space"):
            OpenClip(**{"model": "RN50"} | block)
    folder = tmp_path / "model.safetensors"
    folder.mkdir()
    assert Config(model=str(folder), image_px=8).folder == folder


def test_all_shards_that_an_index_lists_are_needed(tmp_path: Path) -> None:
    llm = NamedModel(model=str(tmp_path))
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "model.safetensors").touch()
    assert llm.lacking_in(tmp_path) == ["*.safetensors"]
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": shards[0], "b": shards[1]}}))
    (tmp_path / shards[0]).touch()
    assert llm.lacking_in(tmp_path) == [shards[1]]
    index.write_text("[]")
    assert llm.lacking_in(tmp_path) == ["a readable model.safetensors.index.json"]
    (tmp_path / "model.safetensors").touch()
    assert llm.lacking_in(tmp_path) == []


def test_shards_whose_names_have_their_ending_twice_are_read(tmp_path: Path) -> None:
    llm = NamedModel(model=str(tmp_path))
    shards = [f"model.safetensors-0000{number}-of-00002.safetensors" for number in (1, 2)]
    (tmp_path / "model.safetensors.index.json").write_text(
        json.dumps({"weight_map": dict(zip("ab", shards, strict=True))})
    )
    (tmp_path / shards[0]).touch()
    assert llm.lacking_in(tmp_path) == [shards[1]]
    (tmp_path / shards[1]).touch()
    assert llm.lacking_in(tmp_path) == []
    assert not is_read("model.fp16.safetensors", llm.needed_files)
    assert not is_read("model.fp16-00001-of-00002.safetensors", llm.needed_files)


def test_one_of_two_layouts_of_weights_is_enough(tmp_path: Path) -> None:
    llm = NamedModel(model=str(tmp_path))
    for layout in ("consolidated", "model"):
        index = tmp_path / f"{layout}.safetensors.index.json"
        shards = [f"{layout}-{number}-of-2.safetensors" for number in (1, 2)]
        index.write_text(json.dumps({"weight_map": dict(zip("ab", shards, strict=True))}))
        (tmp_path / shards[0]).touch()
    (tmp_path / "model-2-of-2.safetensors").touch()
    assert llm.lacking_in(tmp_path) == []
    (tmp_path / "model-1-of-2.safetensors").unlink()
    assert len(llm.lacking_in(tmp_path)) == 1


PRESETS = ROOT / "presets"


def test_every_model_of_the_settings_is_found() -> None:
    models = dict(named_models(load_preset("coco", PRESETS)))
    assert list(models) == [
        "clip.discriminator",
        "clip.judge",
        "generator",
        "write_prompts.llm",
        "train_classifier.backbone",
        "score_baselines.clip",
    ]
    assert models["clip.judge"].repository == "timm/PE-Core-B-16"
    assert models["write_prompts.llm"].repository == "Qwen/Qwen3-4B-Instruct-2507"
    of_fast = dict(named_models(load_preset("coco_fast", PRESETS)))
    assert of_fast["generator.few_step"].repository == "ByteDance/Hyper-SD"
    of_toybox = [model for _, model in named_models(load_params(ROOT / "params.yaml"))]
    assert all(model.folder and not model.repository for model in of_toybox)
