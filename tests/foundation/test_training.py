"""Training of the foundation models: resumable, on mini-batches that depend on the step only."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

sys.path.insert(0, str(Path(__file__).parents[2] / "pipeline" / "foundation"))
import measure_drawing
import measure_models
import publish
import training_loop
from foundation_settings import load_settings
from measure_captions import measure_captions
from text_tower import text_encoder_from_open_clip
from train_clip import build, matching_loss, model_config
from train_tokenizer import train_tokenizer
from web_images import batch_indices

from tailorset.records import LabelSpace
from tailorset.storage.files import read_metrics
from tailorset.toybox.oracle import load_oracle

TEXTS = ["a red ball next to a blue boat on the sand", "a kite above the sea", "an orange umbrella at night"]


@pytest.fixture(scope="module")
def tokenizer():
    return train_tokenizer(TEXTS * 20, vocab_size=400, max_length=16)


@pytest.fixture(scope="module")
def clip(tokenizer, tmp_path_factory):
    options = load_settings().train_clip["judge"]
    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    model = build(model_config(options, tokenizer), folder, tokenizer).eval()
    save_file(model.state_dict(), folder / "open_clip_model.safetensors", metadata={"format": "pt"})
    return model, folder


def test_end_of_text_has_the_highest_id(tokenizer):
    ids = tokenizer(TEXTS[0], padding="max_length", truncation=True).input_ids
    assert max(ids) == tokenizer.eos_token_id == len(tokenizer) - 1
    assert len(ids) == 16


def test_text_tower_is_the_same_in_transformers(tokenizer, clip):
    model, folder = clip
    encoder = text_encoder_from_open_clip(folder, tokenizer)
    tokens = tokenizer(TEXTS, padding="max_length", truncation=True, return_tensors="pt").input_ids
    with torch.no_grad():
        states = model.token_embedding(tokens) + model.positional_embedding
        expected = model.ln_final(model.transformer(states, attn_mask=model.attn_mask))
        torch.testing.assert_close(encoder(tokens).last_hidden_state, expected, atol=1e-5, rtol=1e-4)


def test_every_match_is_a_positive_and_a_row_without_one_has_no_loss():
    logits = torch.tensor([[2.0, 1.0, -1.0], [0.0, 3.0, 0.5]])
    matches = torch.tensor([[True, True, False], [False, True, False]])
    rows = logits.log_softmax(1)
    columns = logits.T.log_softmax(1)
    by_image = -((rows[0, 0] + rows[0, 1]) / 2 + rows[1, 1]) / 2
    by_text = -(columns[0, 0] + (columns[1, 0] + columns[1, 1]) / 2) / 2
    torch.testing.assert_close(matching_loss(logits, matches), (by_image + by_text) / 2)


def test_an_epoch_sees_every_image_once():
    seen = np.concatenate([batch_indices(24, 8, step, seed=5) for step in range(3)])
    assert sorted(seen) == list(range(24))
    assert not np.array_equal(batch_indices(24, 8, 0, seed=5), batch_indices(24, 8, 3, seed=5))


def run_steps(num_steps: int, stop_at: int | None = None) -> torch.Tensor:
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)

    def loss_at(step: int) -> torch.Tensor:
        if step == stop_at:
            raise KeyboardInterrupt
        return (model(torch.randn(8, 4)) - 1).square().mean()

    training_loop.train("linear", {"model": model}, loss_at, num_steps, 0.01)
    return model.weight.detach().clone()


def test_an_interrupted_training_ends_where_an_uninterrupted_one_does(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "CHECKPOINT_EVERY", 5)
    monkeypatch.setattr(training_loop, "WORK", tmp_path / "whole")
    whole = run_steps(20)
    monkeypatch.setattr(training_loop, "WORK", tmp_path / "halved")
    with pytest.raises(KeyboardInterrupt):
        run_steps(20, stop_at=12)
    assert torch.equal(run_steps(20), whole)


def test_other_settings_start_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "WORK", tmp_path)
    monkeypatch.setattr(training_loop, "FOUNDATION", tmp_path / "pipeline/foundation")
    training_loop.FOUNDATION.mkdir(parents=True)
    (training_loop.FOUNDATION / "params.yaml").write_text("seed: 0")
    first = run_steps(5)
    with pytest.raises(KeyboardInterrupt):
        run_steps(10, stop_at=7)  # continues at step 5
    (training_loop.FOUNDATION / "params.yaml").write_text("seed: 1")
    with pytest.raises(KeyboardInterrupt):
        run_steps(10, stop_at=2)
    (training_loop.FOUNDATION / "params.yaml").write_text("seed: 0")
    assert torch.equal(run_steps(5), first)


def test_a_diverged_training_stops(tmp_path, monkeypatch):
    monkeypatch.setattr(training_loop, "WORK", tmp_path)
    model = torch.nn.Linear(1, 1)
    with pytest.raises(ValueError, match="lower its learning_rate"):
        training_loop.train("nan", {"model": model}, lambda step: model.weight.sum() * float("nan"), 3, 0.1)


def test_models_that_are_too_large_are_not_published(tmp_path, monkeypatch):
    settings = load_settings().model_copy(update={"output": tmp_path / "made", "published": tmp_path / "kept"})
    for name in publish.MODELS:
        (tmp_path / "made" / name).mkdir(parents=True)
        (tmp_path / "made" / name / "weights.safetensors").write_bytes(bytes(8 * 2**20))
    monkeypatch.setattr(publish, "load_settings", lambda: settings)
    with pytest.raises(ValueError, match="the limit is 44"):
        publish.main()
    assert not (tmp_path / "kept").exists()


def test_training_of_the_unet_counts_the_noise_at_which_captions_decide():
    settings = load_settings()
    figures = measure_captions(settings, LabelSpace.load(settings.label_space), num_scenes=32)
    assert figures["caption/gain/950"] > 5 * abs(figures["caption/gain/450"]) > 0
    assert figures["caption/weighted_share"] > 0.7  # min-SNR weights: 0.11


def test_more_pairs_are_drawn_with_most_steps_where_there_is_most_noise(monkeypatch):
    monkeypatch.setattr(measure_drawing, "PROMPTS_PER_PAIR", 1)
    monkeypatch.setattr(measure_drawing, "STEPS", (5,))
    settings = load_settings()
    space = LabelSpace.load(settings.label_space)
    figures = measure_drawing.measure_steps(settings, space, load_oracle(settings.published / "oracle"))
    assert figures["steps/dpm++_2m_early/5"] > figures["steps/dpm++_2m/5"] + 0.1


def test_foundation_report_measures_chosen_parts_only(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(measure_models, "REPORTS", tmp_path)
    monkeypatch.setattr(measure_models, "measure_captions", lambda *_: {"caption/weighted_share": 0.5})
    monkeypatch.setattr(sys, "argv", ["measure_models.py", "captions"])
    measure_models.main()
    assert (tmp_path / "metrics.json").read_text() == '{\n  "caption/weighted_share": 0.5\n}\n'
    (tmp_path / "metrics.json").write_text('{"caption/weighted_share": 0.1, "from_scratch": 0.9}')
    measure_models.main()
    assert read_metrics(tmp_path / "metrics.json") == {"caption/weighted_share": 0.5, "from_scratch": 0.9}
    monkeypatch.setattr(sys, "argv", ["measure_models.py", "pictures"])
    with pytest.raises(SystemExit):
        measure_models.main()
    assert "unknown: pictures; choose from generator, steps, captions" in capsys.readouterr().err
