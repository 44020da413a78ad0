"""Training of the toybox's painter: only its answers carry loss, and the written model loads as any other."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

sys.path.insert(0, str(Path(__file__).parents[2] / "pipeline" / "foundation"))
import training_loop
from foundation_settings import TrainLlm
from train_llm import END, IGNORED, encode, example, train_llm, train_tokenizer

from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng

SPACE = LabelSpace.load(Path(__file__).parents[2] / "data" / "labels" / "toybox.yaml")
TINY = TrainLlm(
    vocab_size=400,
    hidden_size=64,
    intermediate_size=64,
    num_layers=1,
    num_heads=2,
    caption_share=0.15,
    num_tokenizer_examples=50,
    num_steps=2,
    batch_size=2,
    learning_rate=2e-3,
)


def test_only_answers_carry_loss() -> None:
    examples = [example(SPACE, 0.0, numpy_rng("test", i)) for i in range(4)]
    tokenizer = train_tokenizer([answer for _, answer in examples], vocab_size=400)
    ids, targets = encode(examples, tokenizer)
    assert ids.shape == targets.shape
    for row, target, (_, answer) in zip(ids, targets, examples, strict=True):
        learned = target != IGNORED
        assert tokenizer.decode(row[learned]) == answer + END
        assert torch.equal(row[learned], target[learned])


@pytest.mark.parametrize(("share", "obeys"), [(0.0, True), (1.0, False)])
def test_captions_among_the_answers_break_the_contract(share: float, obeys: bool) -> None:
    answers = [example(SPACE, share, numpy_rng("test", i))[1] for i in range(40)]
    assert all(len(answer.split()) >= 10 for answer in answers) is obeys


def test_writes_a_folder_that_transformers_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "WORK", tmp_path / "work")
    train_llm(SPACE, TINY, seed=0, folder=tmp_path / "llm")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "llm")
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "llm")
    assert model.config.eos_token_id == tokenizer.eos_token_id
    assert {file.suffix for file in (tmp_path / "llm").iterdir()} <= {".safetensors", ".json", ".jinja"}
