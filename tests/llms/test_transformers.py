"""The transformers plug-in on a tiny random Llama: batches, seeds, quantisation, damaged folders."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tailorset.llms import transformers
from tailorset.llms.transformers import Config, TransformersLLM, build, sample_nucleus, uniform_streams
from tailorset.prompts.wording import dialogue

CPU = torch.device("cpu")
DIALOGUES = [dialogue(keywords, 10) for keywords in [("cup",), ("computer keyboard", "wall clock"), ("key", "fish")]]


def llm_of(folder: Path, **options: object) -> TransformersLLM:
    return build(Config(model=str(folder), **{"max_new_tokens": 12, "batch_size": 2, **options}), CPU)


def test_replies_depend_on_dialogue_and_seed_not_on_the_batch(tiny_llm: Path) -> None:
    replies = llm_of(tiny_llm, batch_size=3).reply(DIALOGUES, [1, 2, 3])
    assert replies == llm_of(tiny_llm, batch_size=2).reply(DIALOGUES, [1, 2, 3])
    assert replies == [llm_of(tiny_llm).reply([d], [s])[0] for d, s in zip(DIALOGUES, [1, 2, 3], strict=True)]
    assert replies[0] != llm_of(tiny_llm).reply(DIALOGUES, [4, 2, 3])[0]


def test_replies_stay_the_same_where_memory_runs_out(tiny_llm: Path, failing_twice: Callable[..., list[int]]) -> None:
    llm, dialogues = llm_of(tiny_llm, batch_size=6), DIALOGUES * 2
    expected = llm.reply(dialogues, list(range(6)))
    calls = failing_twice(llm, "_sample")
    assert llm.reply(dialogues, list(range(6))) == expected
    assert calls == [6, 3, 3, 1, 1, 1]
    assert llm.batch_size == 6  # replies requested between two checks


def test_thinking_is_switched_off_where_the_chat_template_can(tiny_llm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    plain = (folder / "chat_template.jinja").read_text()
    switch = "{% if enable_thinking is not defined or enable_thinking %}think first{% endif %}"
    (folder / "chat_template.jinja").write_text(plain + switch)
    assert llm_of(folder).reply(DIALOGUES, [1, 2, 3]) == llm_of(tiny_llm).reply(DIALOGUES, [1, 2, 3])


def test_the_global_random_state_is_neither_used_nor_changed(tiny_llm: Path) -> None:
    llm = llm_of(tiny_llm)
    state = torch.manual_seed(0).get_state()
    first = llm.reply(DIALOGUES, [1, 2, 3])
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(5)
    assert llm.reply(DIALOGUES, [1, 2, 3]) == first


def test_nearly_greedy_sampling_equals_the_librarys_greedy_search(tiny_llm: Path) -> None:
    llm = llm_of(tiny_llm, temperature=1e-6, top_p=1.0)
    inputs = llm.tokenizer.apply_chat_template(
        DIALOGUES[0], add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    expected = llm.model.generate(**inputs, do_sample=False, max_new_tokens=12, pad_token_id=0)
    text = llm.tokenizer.decode(expected[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert llm.reply(DIALOGUES[:1], [7]) == [text]


@pytest.mark.parametrize("quantization", ["8bit", "4bit"])
def test_quantised_models_answer_on_a_cpu(tiny_llm: Path, quantization: str) -> None:
    llm = llm_of(tiny_llm, quantization=quantization)
    replies = llm.reply(DIALOGUES, [1, 2, 3])
    assert len(replies) == 3
    assert replies == llm.reply(DIALOGUES, [1, 2, 3])
    assert any("bitsandbytes" in type(module).__module__ for module in llm.model.modules())


def test_4bit_computes_in_bfloat16_nf4(tiny_llm: Path) -> None:
    config = llm_of(tiny_llm, quantization="4bit").model.config.quantization_config
    assert (config.bnb_4bit_quant_type, config.bnb_4bit_compute_dtype) == ("nf4", torch.bfloat16)


def test_widths_that_4bit_cannot_pack_on_a_cpu_are_refused_at_load_time(tiny_llm: Path, tmp_path: Path) -> None:
    from transformers import LlamaConfig, LlamaForCausalLM

    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    config = LlamaConfig.from_pretrained(folder, intermediate_size=96)
    LlamaForCausalLM(config).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"96 wide.*quantization: none or 8bit"):
        llm_of(folder, quantization="4bit")


@pytest.mark.parametrize("kind", ["rotary", "learned"])
def test_a_context_too_short_for_dialogue_and_reply_is_refused_before_a_reply_is_written(
    tiny_llm: Path, tmp_path: Path, kind: str
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    num_tokens = len(llm_of(folder).tokens.encode(DIALOGUES[1]))
    if kind == "rotary":  # would write on, ever worse
        LlamaForCausalLM(LlamaConfig.from_pretrained(folder, max_position_embeddings=num_tokens + 12)).save_pretrained(
            folder
        )
    else:  # would fail in the middle
        sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 257, "n_positions": num_tokens + 12}
        GPT2LMHeadModel(GPT2Config(**sizes, bos_token_id=None, eos_token_id=0)).save_pretrained(folder)
    assert len(llm_of(folder).reply(DIALOGUES[:2], [1, 2])) == 2
    with pytest.raises(ValueError, match=rf"context of {num_tokens + 12} .* max_new_tokens 13: lower write_prompts"):
        llm_of(folder, max_new_tokens=13).reply(DIALOGUES[:2], [1, 2])


def test_replies_that_fill_the_context_are_found_without_reading_weights(tiny_llm: Path) -> None:
    context = json.loads((tiny_llm / "config.json").read_text())["max_position_embeddings"]
    assert Config(model=str(tiny_llm), max_new_tokens=context - 1).misfit(tiny_llm) == ""
    problem = Config(model=str(tiny_llm), max_new_tokens=context).misfit(tiny_llm)
    assert f"context of {context} tokens, too few for a dialogue and max_new_tokens {context}: lower" in problem


def test_a_model_without_a_cache_to_continue_from_is_refused(tiny_llm: Path, tmp_path: Path) -> None:
    from transformers import OpenAIGPTConfig, OpenAIGPTLMHeadModel

    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    sizes = {"n_embd": 8, "n_layer": 1, "n_head": 1, "vocab_size": 257, "n_positions": 1024}
    OpenAIGPTLMHeadModel(OpenAIGPTConfig(**sizes)).save_pretrained(folder)
    with pytest.raises(ValueError, match=r"OpenAIGPTLMHeadModel does not return past_key_values.*llm\.model"):
        llm_of(folder).reply(DIALOGUES, [1, 2, 3])


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop_a_tensor(path: Path) -> None:
    from safetensors.torch import load_file, save_file

    tensors = load_file(path)
    del tensors["model.layers.0.mlp.up_proj.weight"]
    save_file(tensors, path, metadata={"format": "pt"})


@pytest.mark.parametrize("damage", [truncate, drop_a_tensor, Path.unlink])
def test_incomplete_weights_are_refused_with_a_remedy(tiny_llm: Path, tmp_path: Path, damage: object) -> None:
    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    damage(folder / "model.safetensors")  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"cannot be loaded(.|\n)*git checkout"):
        llm_of(folder)


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be loaded"):
        llm_of(tmp_path / "nothing")


def test_pickled_weights_are_not_read(tiny_llm: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")
    with pytest.raises(ValueError, match="cannot be loaded"):
        llm_of(folder)


@pytest.fixture
def base_model(tiny_llm: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(tiny_llm, tmp_path / "llm")
    (folder / "chat_template.jinja").unlink()
    return folder


def test_a_model_without_chat_template_continues_examples(base_model: Path, caplog: pytest.LogCaptureFixture) -> None:
    llm = llm_of(base_model, batch_size=3)
    assert "no chat template" in caplog.text
    text = llm.tokenizer.decode(llm.tokens.encode(DIALOGUES[1]))
    assert text.endswith("\n\nKeywords: computer keyboard; wall clock\nPhrase:")
    assert text.count("Phrase: a ") == 3
    replies = llm.reply(DIALOGUES, [1, 2, 3])
    assert replies == [llm_of(base_model).reply([d], [s])[0] for d, s in zip(DIALOGUES, [1, 2, 3], strict=True)]
    assert all("\n" not in reply for reply in replies)


def test_a_base_model_stops_at_the_end_of_its_phrase(base_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    llm = llm_of(base_model)
    ids = llm.tokenizer(" a red cup\nKeyword: hat\n")["input_ids"]
    steps = iter(ids)
    drawn = lambda logits, *others: torch.full((len(logits),), next(steps))  # noqa: E731
    monkeypatch.setattr("tailorset.llms.transformers.sample_nucleus", drawn)
    assert llm.reply(DIALOGUES[:1], [1]) == ["a red cup"]
    assert len(list(steps)) == len(ids) - len(" a red cup\n")


Change = Callable[[Path], object]


def configured(file: str, **values: object) -> Change:
    """A change of values in a JSON file of the folder."""
    return lambda folder: (folder / file).write_text(json.dumps(json.loads((folder / file).read_text()) | values))


def with_template(template: str) -> Change:
    return lambda folder: (folder / "chat_template.jinja").write_text(template)


@pytest.fixture
def changed(tiny_llm: Path, tmp_path: Path) -> Callable[..., Path]:
    """A copy of the model with changes."""

    def copy(*changes: Change) -> Path:
        folder = shutil.copytree(tiny_llm, tmp_path / "changed")
        for change in changes:
            change(folder)
        return folder

    return copy


NO_STOPS = configured("tokenizer_config.json", eos_token=None)
NO_STOPS_OF_MODEL = (
    configured("generation_config.json", eos_token_id=None),
    configured("config.json", eos_token_id=None),
)


def test_a_tokenizer_without_tokens_for_padding_and_end_serves(
    tiny_llm: Path, changed: Callable[..., Path], caplog: pytest.LogCaptureFixture
) -> None:
    expected = llm_of(tiny_llm).reply(DIALOGUES, [1, 2, 3])
    folder = changed(NO_STOPS)
    assert llm_of(folder).reply(DIALOGUES, [1, 2, 3]) == expected
    assert "no token that ends" not in caplog.text
    for change in NO_STOPS_OF_MODEL:
        change(folder)
    replies = llm_of(folder).reply(DIALOGUES, [1, 2, 3])
    assert replies[0] == expected[0]
    assert replies[2] != expected[2]  # that one had ended early
    assert "has no token that ends a reply: each takes all of max_new_tokens" in caplog.text


def test_the_token_that_ends_a_reply_is_no_part_of_it(
    changed: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = llm_of(changed(NO_STOPS, with_template("{{ messages[0]['content'] }}")))  # <|end|> is a token like any other
    said = [llm.tokenizer("a red cup<|end|>and")["input_ids"], llm.tokenizer("a blue hat on a table")["input_ids"]]
    steps = zip(*said, strict=False)
    drawn = lambda logits, *others: torch.tensor(next(steps))  # noqa: E731
    monkeypatch.setattr("tailorset.llms.transformers.sample_nucleus", drawn)
    assert llm.reply(DIALOGUES[:2], [1, 2]) == ["a red cup", "a blue hat o"]


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% for p in m['content'] %}{{ p['text'] }}{% endfor %}{% endfor %}<|end|>",
        "{% for m in messages %}{{ m['content'][0]['text'] + '' }}{% endfor %}<|end|>",  # fails on plain text
        "{% for m in messages %}{% if m['role'] == 'system' %}{{ raise_exception('System role not supported') }}"
        "{% endif %}{{ m['content'] }}{% endfor %}<|end|>",
    ],
)
def test_chat_templates_are_given_messages_in_the_form_they_want(
    tiny_llm: Path, changed: Callable[..., Path], template: str
) -> None:
    folder = changed(with_template(template))
    assert llm_of(folder).reply(DIALOGUES, [1, 2, 3]) == llm_of(tiny_llm).reply(DIALOGUES, [1, 2, 3])


@pytest.mark.parametrize(
    ("template", "fault"),
    [
        ("{{ raise_exception('Conversation roles must alternate') }}", "Conversation roles must alternate"),
        ("{% for m in %}", "TemplateSyntaxError"),
        ("{{ bos_token + messages[0]['content'] }}", "'bos_token' is undefined"),
        ("{{ 1 + messages[0]['content'] }}", "unsupported operand"),
        ("{{ messages[1]['content'] + '' }}", "UndefinedError"),
        ("hello", "the request is not among the tokens"),
    ],
)
def test_a_chat_template_that_cannot_be_used_is_refused_before_the_weights_are_read(
    changed: Callable[..., Path], template: str, fault: str
) -> None:
    folder = changed(with_template(template), lambda folder: (folder / "model.safetensors").unlink())
    with pytest.raises(ValueError, match=rf"changed': its chat template cannot be used .*{fault}.*or name another"):
        llm_of(folder)


def test_an_empty_chat_template_is_none(changed: Callable[..., Path], base_model: Path) -> None:
    replies = llm_of(changed(with_template(""))).reply(DIALOGUES, [1, 2, 3])
    assert replies == llm_of(base_model).reply(DIALOGUES, [1, 2, 3])


def of_llama(folder: Path) -> None:
    configured("tokenizer_config.json", tokenizer_class="LlamaTokenizer")(folder)
    (folder / "tokenizer.json").unlink()


def of_another_vocabulary(folder: Path) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens(["painter"])
    tokenizer.save_pretrained(folder)


def with_code(folder: Path) -> None:
    configured("tokenizer_config.json", tokenizer_class="Own", auto_map={"AutoTokenizer": ["own.Own", None]})(folder)
    (folder / "own.py").write_text("raise SystemExit('run')")


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda folder: (folder / "tokenizer.json").write_text("{"), "cannot be loaded: JSONDecodeError"),
        (
            lambda folder: (folder / "tokenizer.json").write_text('{"added_tokens": [], "model": {}}'),
            "cannot be loaded",
        ),
        (lambda folder: (folder / "config.json").write_text("[]"), "cannot be loaded: "),
        (of_llama, "the request is not among the tokens; files of the tokenizer may be missing"),
        (of_another_vocabulary, "its tokenizer makes token 257, and the model has 257: restore the tokenizer"),
        (with_code, "cannot be loaded: .*code in it is never run"),
    ],
)
def test_tokenizers_that_cannot_be_used_are_refused(
    changed: Callable[..., Path], change: Change, problem: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("builtins.input", lambda *text: pytest.fail("asked whether to run code"))
    with pytest.raises(ValueError, match=problem):
        llm_of(changed(change))


def test_finished_thoughts_are_removed_and_unfinished_ones_stay(
    tiny_llm: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    llm = llm_of(tiny_llm)
    said = ["<think>The user wants</think>\n\na red cup", "<think>The user"]
    monkeypatch.setattr(llm, "_sample", lambda dialogues, seeds: llm.tokenizer(said)["input_ids"])
    assert [reply.strip() for reply in llm.reply(DIALOGUES[:2], [1, 2])] == ["a red cup", "<think>The user"]


def test_nucleus_keeps_the_likeliest_tokens_that_hold_top_p() -> None:
    logits = torch.tensor([[0.1, 0.5, 0.15, 0.25]]).log()
    uniform = (torch.arange(100, dtype=torch.float64) + 0.5) / 100
    tokens = sample_nucleus(logits.expand(100, -1), uniform, temperature=1.0, top_p=0.7)
    counts = torch.bincount(tokens, minlength=4)
    assert counts.tolist() == [0, 67, 0, 33]  # 0.5 and 0.25 of 0.75


@pytest.mark.parametrize("top_p", [0.5, 0.9, 1.0])
@pytest.mark.parametrize("spread", [0.0, 0.3, 3.0, 8.0])  # from all tokens alike to a few likely ones
def test_sorting_the_likeliest_tokens_first_chooses_as_sorting_all(
    spread: float, top_p: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    generator = torch.Generator().manual_seed(0)
    logits = (torch.randn(64, 5000, generator=generator) * spread).bfloat16().float()  # with equal ones
    uniform = torch.rand(64, generator=generator, dtype=torch.float64)
    chosen = sample_nucleus(logits, uniform, 0.6, top_p)
    monkeypatch.setattr("tailorset.llms.transformers.LIKELIEST", 5000)
    assert torch.equal(chosen, sample_nucleus(logits, uniform, 0.6, top_p))


def test_all_tokens_are_sorted_only_for_rows_that_need_it(monkeypatch: pytest.MonkeyPatch) -> None:
    widths: list[tuple[int, ...]] = []
    sort = transformers._descending
    monkeypatch.setattr(transformers, "_descending", lambda values: [widths.append(values.shape), sort(values)][1])
    logits = torch.stack([torch.zeros(5000), torch.arange(5000.0), torch.arange(5000.0)])
    sample_nucleus(logits, torch.full((3,), 0.5, dtype=torch.float64), 1.0, 0.9)
    assert widths == [(3, 1024), (1, 5000)]


def test_temperature_sharpens() -> None:
    logits = torch.tensor([[0.2, 0.8]]).log().expand(1000, -1)
    uniform = (torch.arange(1000, dtype=torch.float64) + 0.5) / 1000
    warm = sample_nucleus(logits, uniform, temperature=1.0, top_p=1.0).sum()
    cold = sample_nucleus(logits, uniform, temperature=0.5, top_p=1.0).sum()
    assert (warm.item(), cold.item()) == (800, 941)  # 0.8^2 / (0.8^2 + 0.2^2)


def test_nan_logits_stop() -> None:
    with pytest.raises(ValueError, match="NaN"):
        sample_nucleus(torch.full((1, 3), torch.nan), torch.zeros(1, dtype=torch.float64), 1.0, 1.0)


def test_each_row_has_a_stream_of_its_own() -> None:
    assert torch.equal(uniform_streams([5, 6], 4)[1], uniform_streams([6], 4)[0])
    assert torch.equal(uniform_streams([2**63 - 1], 4), uniform_streams([2**63 - 1], 9)[:, :4])
