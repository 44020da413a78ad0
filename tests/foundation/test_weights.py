"""The committed foundation models: whole, small, never pickled, and loadable by the stock classes of their kinds."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from diffusers import StableDiffusionPipeline
from safetensors import safe_open
from sklearn.metrics import average_precision_score
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "pipeline" / "foundation"))
from publish import LIMIT_MIB

from tailorset.clip.model import load_clip
from tailorset.messages import MIB
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.scenes import render, web_scene

FOLDER = Path(__file__).parents[2] / "models" / "foundation" / "toybox"


def test_weights_are_fp16_safetensors_within_the_limit():
    files = [file for file in FOLDER.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) <= LIMIT_MIB * MIB
    assert {file.suffix or file.name for file in files} <= {".safetensors", ".json", ".txt", ".jinja", "SHA256SUMS"}
    for file in FOLDER.rglob("*.safetensors"):
        with safe_open(file, framework="pt") as weights:
            kinds = {weights.get_slice(key).get_dtype() for key in list(weights.keys())}
        assert kinds <= {"F16", "I64"}, file


def test_stock_stable_diffusion_pipeline_draws():
    pipeline = StableDiffusionPipeline.from_pretrained(FOLDER / "diffusion", torch_dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(0)
    image = pipeline("a red ball on the grass", num_inference_steps=4, generator=generator, output_type="np").images[0]
    assert image.shape == (64, 64, 3)
    assert image.std() > 0.02


@pytest.mark.parametrize("name", ["discriminator", "judge", "backbone"])
def test_open_clip_loads(name):
    model, _, preprocess = open_clip.create_model_and_transforms(f"local-dir:{FOLDER / name}")
    tokens = open_clip.get_tokenizer(f"local-dir:{FOLDER / name}")(["a photo of a kite", "a photo of a fish"])
    features = model.eval().encode_text(tokens, normalize=True)
    assert features.shape == (2, 128)
    assert features[0] @ features[1] < 0.99
    assert preprocess is not None


@pytest.mark.parametrize(("name", "bar"), [("discriminator", 0.9), ("judge", 0.9), ("backbone", 0.55)])
def test_zero_shot_clip_knows_the_objects(name, bar):
    names = LabelSpace.load(FOLDER.parents[2] / "data" / "labels" / "toybox.yaml").names
    scenes = [web_scene(numpy_rng("test weights", i), names) for i in range(150)]
    images = torch.from_numpy(np.stack([render(scene, 64) for scene in scenes])).permute(0, 3, 1, 2) / 255
    present = [[name in {item.label for item in scene.items} for name in names] for scene in scenes]
    clip = load_clip(f"local-dir:{FOLDER / name}", torch.device("cpu"))
    with torch.no_grad():
        scores = clip.logits(images, clip.encode_texts(names, "a photo of a {}"))
    # 0.08 by chance; the backbone leaves something to learn, and the other two know what an image shows
    assert average_precision_score(np.array(present), scores.numpy(), average="macro") > bar


def test_language_model_has_a_chat_template():
    tokenizer = AutoTokenizer.from_pretrained(FOLDER / "llm")
    model = AutoModelForCausalLM.from_pretrained(FOLDER / "llm")
    ids = tokenizer.apply_chat_template(
        [{"role": "user", "content": "a boat"}], add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    assert model.generate(**ids, max_new_tokens=4, do_sample=False).shape[1] > ids["input_ids"].shape[1]
