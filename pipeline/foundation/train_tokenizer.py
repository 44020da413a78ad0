"""Train the CLIP tokenizer (byte-level BPE) that every text tower of the toybox world shares.

As in OpenAI's vocabulary the end-of-text token has the highest id, where CLIP's pooling looks for it.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterable

from foundation_settings import load_settings
from transformers import CLIPTokenizer
from web_images import all_captions

SPECIAL = ("<|startoftext|>", "<|endoftext|>")


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> CLIPTokenizer:
    learned = CLIPTokenizer().train_new_from_iterator(texts, vocab_size)
    model = json.loads(learned.backend_tokenizer.to_str())["model"]
    tokens = [token for token in sorted(model["vocab"], key=model["vocab"].get) if token not in SPECIAL]
    vocab = {token: index for index, token in enumerate((*tokens, *SPECIAL))}
    merges = [tuple(merge) for merge in model["merges"]]
    return CLIPTokenizer(vocab=vocab, merges=merges, model_max_length=max_length)


def main() -> None:
    settings = load_settings()
    texts = itertools.chain.from_iterable(all_captions()[:20000])
    tokenizer = train_tokenizer(texts, settings.train_tokenizer.vocab_size, settings.train_tokenizer.max_length)
    tokenizer.save_pretrained(settings.output / "diffusion" / "tokenizer")


if __name__ == "__main__":
    main()
