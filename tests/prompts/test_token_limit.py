"""The part of a prompt that text encoders read is measured by their own tokenizers."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tailorset.generators.stable_diffusion import Config, build_tokenizers
from tailorset.prompts.contract import Contract
from tailorset.prompts.token_limit import TokenLimit
from tailorset.records import LabelSpace

TOYBOX = Path(__file__).resolve().parents[2] / "models" / "foundation" / "toybox" / "diffusion"


@pytest.fixture(scope="module")
def toybox() -> TokenLimit:
    return TokenLimit(build_tokenizers(Config(model=str(TOYBOX), image_px=64)))


class Words:
    """A tokenizer that makes a token of each word."""

    def __init__(self, model_max_length: int) -> None:
        self.model_max_length = model_max_length

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": list(range(len(text.split())))}


def test_the_generators_tokenizer_counts_not_words(toybox: TokenLimit) -> None:
    rare = "xylophonic " * 9 + "cup"
    assert len(rare.split()) == 10
    assert toybox.excess(rare) > 0
    assert "cup" not in toybox.read(rare)
    assert toybox.count("a cup") == 4  # with start and end


def test_all_that_fits_is_read_and_no_word_more(toybox: TokenLimit) -> None:
    (tokenizer,) = toybox.tokenizers
    text = "a small cup next to a clock " * 9
    read = toybox.read(text)
    assert text.startswith(read)
    longer = text[: text.index(" ", len(read) + 1)]
    assert len(tokenizer(read)["input_ids"]) <= tokenizer.model_max_length < len(tokenizer(longer)["input_ids"])
    assert toybox.read("a cup") == "a cup"


def test_the_strictest_of_several_text_encoders_decides() -> None:
    limit = TokenLimit([Words(77), Words(3), Words(10**30)])
    assert limit.read("a cup next to a key") == "a cup next"
    assert limit.excess("a cup next to a key") == 3


def test_a_label_beyond_the_limit_is_refused_and_a_label_within_is_not() -> None:
    labels = [{"name": name, "seen": False} for name in ("cup", "key")]
    space = LabelSpace.model_validate({"name": "s", "labels": labels})
    contract = Contract(space, min_words=3, limit=TokenLimit([Words(6)]))
    assert contract.rejection("a cup and a small old key", ["cup"]) is None
    assert contract.rejection("a cup and a small old key", ["cup", "key"]) == "label_cut_off"


def test_every_text_encoder_of_a_pipeline_has_its_tokenizer(tmp_path: Path) -> None:
    for part in ("tokenizer", "tokenizer_2"):
        shutil.copytree(TOYBOX / "tokenizer", tmp_path / part)
    parts = {part: ["transformers", "CLIPTokenizer"] for part in ("tokenizer", "tokenizer_2")}
    index = {"_class_name": "StableDiffusionXLPipeline", "unet": ["diffusers", "UNet2DConditionModel"], **parts}
    (tmp_path / "model_index.json").write_text(json.dumps(index))
    assert len(build_tokenizers(Config(model=str(tmp_path), image_px=64))) == 2
    shutil.rmtree(tmp_path / "tokenizer_2")
    with pytest.raises(ValueError, match="tokenizer_2 cannot be loaded"):
        build_tokenizers(Config(model=str(tmp_path), image_px=64))
