"""Learnable positive and negative prompts for labels, read by CLIP's own frozen text tower.

Letters: L labels, M context tokens, T context length of the tower, S tokens it is given, W its width, D joint width.
Source: DualCoOp, Sun et al. 2022, sec. 3.2.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

Tokenizer = Callable[[list[str]], Tensor]  # texts -> (len, T) token ids


class TextTower:
    """An open_clip model's text side: CLIP and CustomTextCLIP keep the same parts in different places.

    Raises:
        ValueError: a text tower that is no TextTransformer.
    """

    def __init__(self, model: nn.Module) -> None:
        part: Any = getattr(model, "text", model)
        if not hasattr(part, "token_embedding"):
            raise ValueError(
                f"no prompt learning through a {type(part).__name__}: choose an open_clip backbone with a text tower"
            )
        self.reader = _Reader(model)
        self.embedding: nn.Embedding = part.token_embedding
        self.context_length = int(part.context_length)
        self.pool_type: str = getattr(model, "text_pool_type", None) or part.pool_type
        if self.pool_type not in ("argmax", "eos"):
            raise ValueError(f"the text tower pools by {self.pool_type!r}: choose a backbone that reads its end token")
        self.part = part
        self.path = "model." if part is model else "model.text."
        self.eos_id: int | None = getattr(model, "text_eos_id", None) or getattr(part, "eos_id", None)

    @property
    def is_causal(self) -> bool:
        """Whether no position sees those after it, so that what follows a text's end can be left out.

        A class embedding (CoCa) stands after the last token and sees all.
        """
        return self.part.attn_mask is not None and getattr(self.part, "cls_emb", None) is None

    def encode(self, token_ids: Tensor) -> Tensor:
        """(L, S) -> (L, D), unit norm; S is T, or less where the tower is causal."""
        length = token_ids.shape[1]
        cut = {} if length == self.context_length else self._cut(length)
        return F.normalize(functional_call(self.reader, cut, (token_ids,)), dim=-1)

    def _cut(self, length: int) -> dict[str, Tensor]:
        return {
            f"{self.path}positional_embedding": self.part.positional_embedding[:length],
            f"{self.path}attn_mask": self.part.attn_mask[:length, :length],
        }

    def ends(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L,): the position whose output is the text's feature, by the tower's own pooling."""
        from open_clip.transformer import text_global_pool

        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return text_global_pool(positions, token_ids, self.pool_type, eos_token_id=self.eos_id)

    def encode_with_contexts(self, token_ids: Tensor, contexts: Tensor) -> Tensor:
        """As `encode`, with the embeddings at positions 1..M replaced by contexts (L, M, W); differentiable in them."""
        with _spliced(self.embedding, contexts):
            return self.encode(token_ids)


class _Reader(nn.Module):
    """`encode_text` as a forward, which functional_call asks for."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model: Any = model

    def forward(self, token_ids: Tensor) -> Tensor:
        features: Tensor = self.model.encode_text(token_ids)
        return features


@contextmanager
def _spliced(embedding: nn.Embedding, contexts: Tensor) -> Iterator[None]:
    """The tower runs unchanged, whatever its class; only its token embedding answers differently."""

    def splice(_: nn.Module, __: Any, output: Tensor) -> Tensor:
        return torch.cat([output[:, :1], contexts.to(output.dtype), output[:, 1 + contexts.shape[1] :]], 1)

    handle = embedding.register_forward_hook(splice)
    try:
        yield
    finally:
        handle.remove()


class LabelPrompts(nn.Module):
    """Two contexts, positive and negative, shared by all labels: [start][context x M][label][end].

    text_l = normalise(anchor_l + residual_l + tower(context, label_l) - tower(initial context, label_l))

    Deviation: the anchors. DualCoOp starts from random contexts, which rank at chance. Here the positive anchor is raw
    CLIP's feature of the label and the negative one the mean of all labels' features, so training starts at
    zero-shot CLIP, for any M, and the contexts learn the change.

    Deviation: the residuals (task residual, Yu et al. 2023), zero at the start: what a label's own images teach of it
    alone. Shared contexts move all labels together.
    """

    anchors: Tensor  # (2, L, D)
    initial: Tensor  # (2, L, D)
    token_ids: Tensor  # (L, S)

    def __init__(
        self, model: nn.Module, tokenizer: Tokenizer, names: Sequence[str], num_context_tokens: int, template: str
    ) -> None:
        super().__init__()
        self.tower = TextTower(model)
        device = self.tower.embedding.weight.device
        token_ids = prompt_token_ids(self.tower, tokenizer, names, num_context_tokens).to(device)
        words = _context_words(self.tower, tokenizer, template).to(device)
        with torch.no_grad():
            start = self.tower.embedding(words[torch.arange(num_context_tokens) % len(words)])  # (M, W)
            texts = tokenizer([template.format(name) for name in names]).to(device)
            positive = self.tower.encode(texts)
            negative = F.normalize(positive.mean(0, keepdim=True), dim=-1).expand_as(positive)
            initial = self.tower.encode_with_contexts(token_ids, start.expand(len(token_ids), -1, -1))
        self.contexts = nn.Parameter(torch.stack([start, start]))  # (2, M, W)
        self.residual = nn.Parameter(torch.zeros_like(positive).expand(2, -1, -1).clone())  # (2, L, D)
        self.register_buffer("token_ids", token_ids, persistent=False)
        self.register_buffer("anchors", torch.stack([positive, negative]), persistent=False)
        self.register_buffer("initial", torch.stack([initial, initial]), persistent=False)

    def forward(self, label_indices: Sequence[int]) -> Tensor:
        """Positive and negative text features of these labels, (2, len, D), unit norm."""
        columns = list(label_indices)
        tokens = self.token_ids[columns].repeat(2, 1)  # positive and negative prompts in one pass
        texts = self.tower.encode_with_contexts(tokens, self.contexts.repeat_interleave(len(columns), 0))
        change = self.residual[:, columns] + texts.unflatten(0, (2, -1)) - self.initial[:, columns]
        return F.normalize(self.anchors[:, columns] + change, dim=-1)


def prompt_token_ids(tower: TextTower, tokenizer: Tokenizer, names: Sequence[str], num_context_tokens: int) -> Tensor:
    """(L, S) ids of [start][M placeholders][label][end][padding], the longest without padding if the tower is causal.

    Raises:
        ValueError: the contexts and a label's tokens do not fit the tower's context length.
    """
    ids = tokenizer(list(names))
    lengths = tower.ends(ids) + 1  # start, label, end
    longest = int(lengths.argmax())
    room = tower.context_length - int(lengths[longest])
    if num_context_tokens > room:
        raise ValueError(
            f"num_context_tokens {num_context_tokens} is too many: {names[longest]!r} takes {int(lengths[longest])} of"
            f" the backbone's {tower.context_length} tokens; choose 1 to {room}"
        )
    placeholders = ids[:, 1:2].expand(-1, num_context_tokens)  # any id that is neither end nor padding
    longest_text = num_context_tokens + int(lengths[longest])
    length = longest_text if tower.is_causal else tower.context_length
    return torch.cat([ids[:, :1], placeholders, ids[:, 1:]], 1)[:, :length]


def _context_words(tower: TextTower, tokenizer: Tokenizer, template: str) -> Tensor:
    """Token ids of the template's words before the label: what the contexts start from, repeated to M."""
    ids = tokenizer([template.partition("{}")[0].strip() or "a photo of a"])
    return ids[0, 1 : int(tower.ends(ids)[0])]
