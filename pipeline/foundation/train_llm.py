"""Train the toybox's painter: a small Llama that answers the prompt-writing dialogue with phrases.

A share of its training answers are web captions, which often leave a keyword out or are too short. So it can make
mistakes, as real language models do: few at a low temperature, more the closer `caption_share` comes to a half.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import torch
from foundation_settings import TrainLlm, load_settings
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor
from training_loop import train
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tailorset.prompts.wording import dialogue
from tailorset.records import LabelSpace
from tailorset.seeding import numpy_rng
from tailorset.toybox.captions import MIN_PAINTER_WORDS, caption, painter_phrase
from tailorset.toybox.scenes import web_scene

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
CHAT_TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
IGNORED = -100  # target of tokens without loss

Example = tuple[list[dict[str, str]], str]


def example(label_space: LabelSpace, caption_share: float, rng: np.random.Generator) -> Example:
    """A dialogue about one label or two, seen or unseen, in random order and wording, and its answer."""
    count = 1 if rng.random() < 0.3 else 2
    labels = [str(name) for name in rng.choice(label_space.names, size=count, replace=False)]
    keywords = [str(rng.choice(label_space.prompt_names(label))) for label in labels]
    messages = dialogue(keywords, int(rng.integers(MIN_PAINTER_WORDS // 2, MIN_PAINTER_WORDS + 1)))
    if rng.random() < caption_share:
        wordings = {name: label_space.prompt_names(name) for name in label_space.names}
        return messages, caption(web_scene(rng, labels, count), rng, wordings)
    return messages, painter_phrase(keywords, rng)


def train_tokenizer(texts: list[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE, so that every label of a user can be spelled."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END, *ROLES],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=list(ROLES),
        chat_template=CHAT_TEMPLATE,
    )


def vocabulary_digest(tokenizer: PreTrainedTokenizerFast) -> str:
    """Name of the checkpoint: training must not continue from other token ids."""
    return hashlib.sha256(json.dumps(sorted(tokenizer.get_vocab().items())).encode()).hexdigest()[:8]


def build_model(options: TrainLlm, tokenizer: PreTrainedTokenizerFast) -> LlamaForCausalLM:
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=options.hidden_size,
        intermediate_size=options.intermediate_size,
        num_hidden_layers=options.num_layers,
        num_attention_heads=options.num_heads,
        max_position_embeddings=256,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return LlamaForCausalLM(config)


def encode(examples: list[Example], tokenizer: PreTrainedTokenizerFast) -> tuple[Tensor, Tensor]:
    """Token ids and targets, both (B, T), padded on the right; the dialogue and the padding carry no loss."""
    asked = [tokenizer.apply_chat_template(m, add_generation_prompt=True, tokenize=False) for m, _ in examples]
    questions = tokenizer(asked, add_special_tokens=False).input_ids
    answers = tokenizer([text + END for _, text in examples], add_special_tokens=False).input_ids
    length = max(len(q) + len(a) for q, a in zip(questions, answers, strict=True))
    ids = torch.full((len(examples), length), tokenizer.pad_token_id)
    targets = torch.full_like(ids, IGNORED)
    for row, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        end = len(question) + len(answer)
        ids[row, :end] = torch.tensor(question + answer)
        targets[row, len(question) : end] = torch.tensor(answer)
    return ids, targets


def train_llm(label_space: LabelSpace, options: TrainLlm, seed: int, folder: Path) -> None:
    """Train and write a transformers folder in fp16; resumes from the last checkpoint."""
    rng = numpy_rng("llm tokenizer", seed)
    corpus = [example(label_space, options.caption_share, rng) for _ in range(options.num_tokenizer_examples)]
    texts = [text for messages, answer in corpus for text in (messages[0]["content"], answer)]
    tokenizer = train_tokenizer(texts, options.vocab_size)
    torch.manual_seed(seed)
    model = build_model(options, tokenizer).train()

    def loss_at(step: int) -> Tensor:
        rng = numpy_rng("llm", seed, step)
        batch = [example(label_space, options.caption_share, rng) for _ in range(options.batch_size)]
        ids, targets = encode(batch, tokenizer)
        return model(input_ids=ids, labels=targets).loss

    name = f"llm-{vocabulary_digest(tokenizer)}"
    train(name, {"model": model}, loss_at, options.num_steps, options.learning_rate, weight_decay=0.05)
    model.half().save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def main() -> None:
    settings = load_settings()
    train_llm(LabelSpace.load(settings.label_space), settings.train_llm, settings.seed, settings.output / "llm")


if __name__ == "__main__":
    main()
