"""Any chat or base model of the transformers library: full precision, quantised by bitsandbytes, or a GGUF file.

Shapes: B batch, P tokens of the longest dialogue, N max_new_tokens, V vocabulary.
"""

from __future__ import annotations

import json
import logging
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from tailorset.compute.memory import ShrinkingBatches
from tailorset.llms.parts import few_shot, gguf_files
from tailorset.llms.parts.dialogue_tokens import DialogueTokens
from tailorset.llms.parts.thinking import spoken
from tailorset.messages import first_line
from tailorset.prompts.wording import Dialogue
from tailorset.storage import checksums
from tailorset.storage.hub import NamedModel

WRITING_MEMORY_REMEDY = "set quantization: 4bit or name a smaller model"
CPU_BLOCK = 64  # bitsandbytes packs 4-bit weights for the CPU in rows of whole blocks
LIKELIEST = 1024  # tokens that are sorted first; all of them only if these do not hold top_p
log = logging.getLogger(__name__)


class Config(NamedModel):
    """model: with safetensors weights; one without a chat template continues a text of examples.

    gguf_file: a file of the folder or repository `model` to read instead; `model` may also be its whole path. Its
    weights are unpacked and take the memory of full precision.
    temperature and top_p: 0.6 and 0.9 are the published values; lower is more obedient and less diverse.
    """

    gguf_file: str | None = Field(default=None, pattern=r"\.gguf$")
    quantization: Literal["none", "8bit", "4bit"] = "none"
    temperature: float = Field(default=0.6, gt=0)
    top_p: float = Field(default=0.9, gt=0, le=1)
    max_new_tokens: int = Field(default=64, gt=0)
    batch_size: int = Field(default=16, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _split_path(cls, values: Any) -> Any:
        """Return folder and file for a `model` that is the path of a GGUF file."""
        path = Path(str(values.get("model"))) if isinstance(values, dict) else Path()
        is_file = path.suffix == gguf_files.SUFFIX and not values.get("gguf_file")
        return values | {"model": str(path.parent), "gguf_file": path.name} if is_file else values

    @model_validator(mode="after")
    def _quantised_once(self) -> Self:
        if self.gguf_file and self.quantization != "none":
            raise ValueError(
                f"quantization is {self.quantization}, and {self.gguf_file} is quantised already: set none"
            )
        return self

    @property
    def title(self) -> str:
        return f"{self.model}/{self.gguf_file}" if self.gguf_file else self.model

    @property
    def needed_files(self) -> tuple[str, ...]:
        return (self.gguf_file,) if self.gguf_file else super().needed_files

    def misfit(self, folder: Path) -> str:
        """Return what is wrong if replies alone fill the context; dialogues cannot be counted without the tokenizer."""
        try:
            config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
            context = config.get("text_config", config).get("max_position_embeddings")
        except (OSError, AttributeError, ValueError):  # a GGUF file alone, or one that is damaged
            return ""
        is_short = isinstance(context, int) and self.max_new_tokens >= context
        return self.too_short(context, "a dialogue") if is_short else ""

    def too_short(self, context: int, dialogue: str) -> str:
        """Return the error for a model whose context of `context` tokens is too short."""
        return (
            f"LLM {self.title!r} has a context of {context} tokens, too few for {dialogue} and max_new_tokens"
            f" {self.max_new_tokens}: lower write_prompts.llm.max_new_tokens, or choose a model with a longer context"
        )


class TransformersLLM:
    """Samples replies with one stream of random numbers per dialogue.

    A reply depends on its dialogue and seed. Batches change it only if padding changes the rounding of the logits just
    at the border between two tokens; with the same batches replies are the same on the same machine.
    """

    def __init__(self, config: Config, model: Any, tokens: DialogueTokens) -> None:
        self.config = config
        self.model = model
        self.tokens = tokens
        self.tokenizer = tokens.tokenizer
        self.batch_size = config.batch_size  # dialogues per call; `batches` may run them in smaller parts
        self.batches = ShrinkingBatches(config.batch_size, "writing prompts", WRITING_MEMORY_REMEDY)
        stops = model.generation_config.eos_token_id
        stops = stops if isinstance(stops, list) else [stops]
        self.is_base = tokens.is_base
        line_end = self.tokenizer("\n", add_special_tokens=False)["input_ids"][-1:] if self.is_base else []
        self.stop_ids = {i for i in (*stops, self.tokenizer.eos_token_id, *line_end) if i is not None}
        if not self.stop_ids:
            log.warning("LLM %r has no token that ends a reply: each takes all of max_new_tokens", config.title)

    def reply(self, dialogues: list[Dialogue], seeds: list[int]) -> list[str]:
        """Return one reply per dialogue, special tokens and thoughts removed.

        Raises:
            ValueError: dialogue and reply exceed the model's context, its logits are NaN, or it returns no cache.
        """
        replies: list[str] = []
        for _, rows in self.batches.over(len(dialogues), lambda part: self._sample(dialogues[part], seeds[part])):
            replies += self.tokenizer.batch_decode(rows, skip_special_tokens=True)
        return [spoken(few_shot.first_line(reply) if self.is_base else reply) for reply in replies]

    @torch.inference_mode()
    def _sample(self, dialogues: list[Dialogue], seeds: list[int]) -> list[list[int]]:
        """Return the token ids of each reply, up to N and without the one that ends it."""
        device = self.model.device
        ids, mask = (part.to(device) for part in self.tokens.batch(dialogues))  # (B, P), left-padded
        self._check_context(ids.shape[1])
        stops = torch.tensor(sorted(self.stop_ids), dtype=torch.long, device=device)
        uniform = uniform_streams(seeds, self.config.max_new_tokens).to(device)  # (B, N)
        ended = torch.zeros(len(seeds), dtype=torch.bool, device=device)
        cache, tokens = None, []
        for step in range(self.config.max_new_tokens):
            positions = (mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
            output = self.model(
                input_ids=ids,
                attention_mask=mask,
                position_ids=positions,
                past_key_values=cache,
                use_cache=True,
                logits_to_keep=1,
            )
            chosen = sample_nucleus(output.logits[:, -1], uniform[:, step], self.config.temperature, self.config.top_p)
            tokens.append(chosen)
            ended |= torch.isin(chosen, stops)
            if ended.all():
                break
            cache, ids = self._cache_of(output), chosen[:, None]
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        rows = torch.stack(tokens, dim=1).tolist()
        return [list(takewhile(lambda token: token not in self.stop_ids, row)) for row in rows]

    def _cache_of(self, output: Any) -> Any:
        """Return the state from which the model continues a text; a few architectures keep another one or none."""
        if getattr(output, "past_key_values", None) is None:
            raise ValueError(
                f"LLM {self.config.title!r}: a {type(self.model).__name__} does not return past_key_values, from which"
                " a reply is continued: name another model in write_prompts.llm.model"
            )
        return output.past_key_values

    def _check_context(self, num_tokens: int) -> None:
        context = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)  # None = no limit
        if context and num_tokens + self.config.max_new_tokens > context:
            raise ValueError(self.config.too_short(context, f"a dialogue of {num_tokens}"))


def uniform_streams(seeds: list[int], length: int) -> Tensor:
    """(B, length) uniform numbers in [0, 1), each row from its own seed, drawn on the CPU."""
    rows = [torch.rand(length, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) for seed in seeds]
    return torch.stack(rows)


def sample_nucleus(logits: Tensor, uniform: Tensor, temperature: float, top_p: float) -> Tensor:
    """Token ids (B,) by inverting the cumulative distribution of the likeliest tokens that hold top_p.

    logits: (B, V). uniform: (B,) in [0, 1).

    Raises:
        ValueError: a logit is NaN.
    """
    if logits.isnan().any():
        raise ValueError("the LLM's logits are NaN: choose another quantization (none, 8bit, 4bit) or model")
    probabilities = (logits.double() / temperature).softmax(dim=1)
    num_first = min(LIKELIEST, probabilities.shape[1])
    ids = probabilities.topk(num_first, dim=1).indices.sort(dim=1).values  # equal ones keep the order of their ids
    ordered, order = _descending(probabilities.gather(1, ids))
    tokens = _inverted(ordered, ids.gather(1, order), uniform, top_p)
    last = ordered == ordered[:, -1:]  # tokens as likely as these may be missing, so none of them may be needed
    is_cut = (last & (_before(ordered) < top_p)).any(dim=1)
    if is_cut.any():
        tokens[is_cut] = _inverted(*_descending(probabilities[is_cut]), uniform[is_cut], top_p)
    return tokens


def _descending(probabilities: Tensor) -> tuple[Tensor, Tensor]:
    return probabilities.sort(dim=1, descending=True, stable=True)


def _before(ordered: Tensor) -> Tensor:
    return ordered.cumsum(dim=1) - ordered


def _inverted(ordered: Tensor, ids: Tensor, uniform: Tensor, top_p: float) -> Tensor:
    cumulative = ordered.masked_fill(_before(ordered) >= top_p, 0).cumsum(dim=1)
    rank = (cumulative > uniform[:, None] * cumulative[:, -1:]).int().argmax(dim=1)
    return ids.gather(1, rank[:, None])[:, 0]


def build(config: Config, device: torch.device) -> TransformersLLM:
    """Load tokenizer and weights.

    Raises:
        ValueError: the model does not exist, its weights are missing, truncated or in another format, its chat
            template cannot be used, or a GGUF file is named without the package that reads it.
    """
    import transformers

    source: dict[str, Any] = {"revision": config.revision, "trust_remote_code": False}
    if config.gguf_file:
        gguf_files.check_reader()
        source["gguf_file"] = config.gguf_file
    try:
        checksums.check(Path(config.model))
        tokenizer = transformers.AutoTokenizer.from_pretrained(config.model, **source)
    except Exception as error:  # each tokenizer's library has errors of its own
        raise ValueError(_refusal(config, first_line(error))) from error
    tokens = DialogueTokens(tokenizer, config.title)
    if tokens.is_base:
        log.warning(
            "LLM %r has no chat template: it is given examples to continue; a chat model obeys better", config.title
        )
    try:
        model, info = transformers.AutoModelForCausalLM.from_pretrained(
            config.model,
            **source,
            use_safetensors=True,
            output_loading_info=True,
            **_precision(config, device),
        )
    except Exception as error:  # as above
        raise ValueError(_refusal(config, first_line(error))) from error
    if info["missing_keys"]:
        raise ValueError(_refusal(config, f"no weights for {sorted(info['missing_keys'])[:3]}"))
    _check_vocabulary(config, model, tokens.highest)
    _check_blocks(config, model, device)
    return TransformersLLM(config, model.eval(), tokens)


def _precision(config: Config, device: torch.device) -> dict[str, Any]:
    """Return arguments of from_pretrained; unquantised weights are float32 on a CPU, else bfloat16."""
    import transformers

    if config.quantization == "none":
        plain = {"dtype": torch.float32 if device.type == "cpu" else torch.bfloat16, "device_map": {"": device}}
        unpacked = {"quantization_config": transformers.GgufConfig(dequantize=True)} if config.gguf_file else {}
        return plain | unpacked
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it reports every cast of every layer
    if config.quantization == "8bit":
        options = transformers.BitsAndBytesConfig(load_in_8bit=True)
        return {"dtype": torch.float16, "quantization_config": options, "device_map": {"": device}}
    options = transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16
    )
    return {"dtype": torch.bfloat16, "quantization_config": options, "device_map": {"": device}}


def _check_vocabulary(config: Config, model: Any, highest: int) -> None:
    if highest >= (known := model.get_input_embeddings().weight.shape[0]):
        raise ValueError(
            f"LLM {config.title!r}: its tokenizer makes token {highest}, and the model has {known}: restore the"
            " tokenizer that belongs to these weights, or resize and save the model"
        )


def _check_blocks(config: Config, model: Any, device: torch.device) -> None:
    if config.quantization != "4bit" or device.type != "cpu":
        return
    layers = {name: getattr(m, "in_features", 0) for name, m in model.named_modules() if "4bit" in type(m).__name__}
    for name, width in layers.items():
        if width % CPU_BLOCK:
            raise ValueError(
                f"LLM {config.model!r}: {name} is {width} wide, and 4bit on a CPU needs a multiple of {CPU_BLOCK}."
                " Choose quantization: none or 8bit, or device: cuda."
            )


def _refusal(config: Config, error: str) -> str:
    return (
        f"LLM {config.title!r} cannot be loaded: {error}. Give write_prompts.llm.model a folder with config.json,"
        " tokenizer and complete *.safetensors (restore a damaged one with `git checkout` or `dvc pull`; code in it is"
        " never run), the path of a GGUF file, or the name of a chat model on the Hugging Face hub (HF_HUB_OFFLINE=0"
        " lets it download); `llm: {name: template}` needs no model."
    )
