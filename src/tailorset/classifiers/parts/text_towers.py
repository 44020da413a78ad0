"""Text sides of open_clip models through which prompts are learned.

Shapes: L labels, C contexts, M tokens of a context, T context length of the tower, S tokens of all labels,
W the tower's width, D joint width.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

Tokenizer = Callable[[list[str]], Tensor]  # texts -> (len, T) token ids


class TextTower:
    """An open_clip model's text side: CLIP and CustomTextCLIP keep the same parts in different places.

    Raises:
        ValueError: the tower is not a TextTransformer, does not read its end token, or lets tokens see later ones.
    """

    num_start = 1  # start tokens of a text
    labels_at_once = 64  # behind one context: the cost of attention is the square of their tokens

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        part: Any = getattr(model, "text", model)
        if not hasattr(part, "token_embedding"):
            raise ValueError(
                f"no prompt learning through a {type(part).__name__}: choose an open_clip backbone with a text tower"
            )
        self.part = part
        self.context_length = int(part.context_length)
        self.pool_type: str = getattr(model, "text_pool_type", None) or part.pool_type
        self.eos_id: int | None = getattr(model, "text_eos_id", None) or getattr(part, "eos_id", None)
        self._check()

    def _check(self) -> None:
        if self.pool_type not in ("argmax", "eos"):
            raise ValueError(f"the text tower pools by {self.pool_type!r}: choose a backbone that reads its end token")
        if self.part.attn_mask is None or getattr(self.part, "cls_emb", None) is not None:
            raise ValueError("the text tower lets tokens see later ones: choose a backbone with causal attention")

    def encode(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L, D), unit norm."""
        return F.normalize(self.model.encode_text(token_ids), dim=-1)

    def ends(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L,) position whose output is the text's feature, by the tower's own pooling."""
        from open_clip.transformer import text_global_pool

        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return text_global_pool(positions, token_ids, self.pool_type, eos_token_id=self.eos_id)

    def words(self, token_ids: Tensor) -> Tensor:
        """(1, T) -> ids of a text's own tokens, without start and end."""
        return token_ids[0, 1 : int(self.ends(token_ids)[0])]

    def encode_behind(self, contexts: Tensor, token_ids: Tensor) -> Tensor:
        """Encode the texts [start][context][label][end]: (C, L, D), unit norm; differentiable in the contexts.

        All labels are in one sequence behind their context. Each has the position it would have alone, and sees only
        the context and itself. No token sees later ones, so the features are those of separate texts, and a context is
        read once.

        contexts: (C, M, W). token_ids: (L, T) of [start][label][end].
        """
        tokens = self._embedded(contexts, token_ids, ends := self.ends(token_ids))
        mask = label_mask(ends, contexts.shape[1]).to(tokens.dtype)
        read = self.part.ln_final(self.part.transformer(tokens, attn_mask=mask))  # (C, 1 + M + S, W)
        return F.normalize(self._projected(read[:, contexts.shape[1] + ends.cumsum(0)]), dim=-1)

    def _embedded(self, contexts: Tensor, token_ids: Tensor, ends: Tensor) -> Tensor:
        """Return (C, 1 + M + S, W): start, context, and the tokens of all labels in turn."""
        part, num_context_tokens = self.part, contexts.shape[1]
        places = torch.arange(token_ids.shape[1], device=token_ids.device)
        of_labels = (places > 0) & (places <= ends[:, None])  # (L, T)
        embedded = part.token_embedding(torch.cat([token_ids[0, :1], token_ids[of_labels]]))  # (1 + S, W)
        start, labels = embedded[:1].expand(len(contexts), 1, -1), embedded[1:].expand(len(contexts), -1, -1)
        positions = torch.cat(
            [places[: 1 + num_context_tokens], places.expand_as(token_ids)[of_labels] + num_context_tokens]
        )
        tokens = torch.cat([start, contexts.to(embedded.dtype), labels], 1) + part.positional_embedding[positions]
        return tokens.to(part.transformer.get_cast_dtype())

    def _projected(self, features: Tensor) -> Tensor:
        projection = self.part.text_projection
        if projection is None:
            return features
        return projection(features) if isinstance(projection, nn.Linear) else features @ projection


class WholeTextTower(TextTower):
    """A text side whose tokens all see each other, and which is read at its last position: SigLIP's.

    Each label is a separate text, [context][label][end][padding], of the tower's full length, since tokens see padding
    too. Start, end and padding tokens are found by comparing the tokens of a text with those of an empty one.
    """

    labels_at_once = 8  # in memory at once, with their padding

    def __init__(self, model: nn.Module, tokenizer: Tokenizer) -> None:
        super().__init__(model)
        empty, words = tokenizer(["", "a a a a"])
        self.pad_id = int(empty[-1])
        self.num_start = int(empty[0] == words[0] != empty[-1])
        self.num_special = int((empty != self.pad_id).sum())  # start and end tokens that are not padding

    def _check(self) -> None:
        if self.pool_type != "last" or self.part.use_pad_mask or self.part.cls_emb is not None:
            raise ValueError(
                f"the text tower lets tokens see later ones and pools by {self.pool_type!r}: choose a backbone with"
                " causal attention, or a SigLIP"
            )

    def ends(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L,) position of the first padding token, which may be the end token."""
        return (token_ids != self.pad_id).sum(1)

    def words(self, token_ids: Tensor) -> Tensor:
        """(1, T) -> ids of a text's own tokens, without start and end."""
        count = int(self.ends(token_ids)[0]) - self.num_special
        return token_ids[0, self.num_start : self.num_start + count]

    def encode_behind(self, contexts: Tensor, token_ids: Tensor) -> Tensor:
        """As in `TextTower`; layers are recomputed in the backward pass, since padded texts need much memory."""
        if torch.is_grad_enabled() and contexts.requires_grad:
            read: Tensor = checkpoint(self._read, contexts, token_ids, use_reentrant=False)
            return read
        return self._read(contexts, token_ids)

    def _read(self, contexts: Tensor, token_ids: Tensor) -> Tensor:
        (num_contexts, num_tokens, _), num_labels, part = contexts.shape, len(token_ids), self.part
        embedded = part.token_embedding(token_ids[:, : self.context_length - num_tokens])  # (L, T - M, W)
        embedded = embedded.expand(num_contexts, -1, -1, -1)
        behind = contexts.to(embedded.dtype).unsqueeze(1).expand(-1, num_labels, -1, -1)
        texts = torch.cat([embedded[:, :, : self.num_start], behind, embedded[:, :, self.num_start :]], 2)
        tokens = (texts + part.positional_embedding).to(part.transformer.get_cast_dtype())
        read = part.ln_final(part.transformer(tokens.flatten(0, 1)))[:, -1]
        return F.normalize(self._projected(read), dim=-1).unflatten(0, (num_contexts, num_labels))


def text_tower(model: nn.Module, tokenizer: Tokenizer) -> TextTower:
    """Return the text side of an open_clip model for learning prompts.

    Raises:
        ValueError: prompts cannot be learned through it, see the classes.
    """
    part: Any = getattr(model, "text", model)
    sees_all = hasattr(part, "token_embedding") and part.attn_mask is None
    return WholeTextTower(model, tokenizer) if sees_all else TextTower(model)


def label_mask(ends: Tensor, num_context_tokens: int) -> Tensor:
    """Return (1 + M + S, 1 + M + S): 0 where a token (row) sees another, else -inf. ends: tokens per label, (L,)."""
    labels = torch.arange(1, len(ends) + 1, device=ends.device).repeat_interleave(ends)
    owner = torch.cat([labels.new_zeros(1 + num_context_tokens), labels])  # 0 = start and context
    sees = ((owner == 0) | (owner == owner[:, None])).tril()
    return torch.zeros(sees.shape, device=ends.device).masked_fill(~sees, -torch.inf)
