"""Learnable positive and negative prompts for labels, read by CLIP's own frozen text tower.

Shapes: L labels, C contexts, M tokens of a context, T context length of the tower, S tokens of all labels,
W the tower's width, D joint width.
Source: DualCoOp, Sun et al. 2022, sec. 3.2.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tokenizers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from tailorset.classifiers.dual_prompt import Config
    from tailorset.clip.model import Clip

Tokenizer = Callable[[list[str]], Tensor]  # texts -> (len, T) token ids
LABELS_AT_ONCE = 64  # behind one context: the cost of attention is the square of their tokens


class TextTower:
    """An open_clip model's text side: CLIP and CustomTextCLIP keep the same parts in different places.

    Raises:
        ValueError: the tower is not a TextTransformer, does not read its end token, or lets tokens see later ones.
    """

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
        if self.pool_type not in ("argmax", "eos"):
            raise ValueError(f"the text tower pools by {self.pool_type!r}: choose a backbone that reads its end token")
        if part.attn_mask is None or getattr(part, "cls_emb", None) is not None:
            raise ValueError("the text tower lets tokens see later ones: choose a backbone with causal attention")
        self.eos_id: int | None = getattr(model, "text_eos_id", None) or getattr(part, "eos_id", None)

    def encode(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L, D), unit norm."""
        return F.normalize(self.model.encode_text(token_ids), dim=-1)

    def ends(self, token_ids: Tensor) -> Tensor:
        """(L, T) -> (L,) position whose output is the text's feature, by the tower's own pooling."""
        from open_clip.transformer import text_global_pool

        positions = torch.arange(token_ids.shape[1], device=token_ids.device).expand_as(token_ids)
        return text_global_pool(positions, token_ids, self.pool_type, eos_token_id=self.eos_id)

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


def label_mask(ends: Tensor, num_context_tokens: int) -> Tensor:
    """Return (1 + M + S, 1 + M + S): 0 where a token (row) sees another, else -inf. ends: tokens per label, (L,)."""
    labels = torch.arange(1, len(ends) + 1, device=ends.device).repeat_interleave(ends)
    owner = torch.cat([labels.new_zeros(1 + num_context_tokens), labels])  # 0 = start and context
    sees = ((owner == 0) | (owner == owner[:, None])).tril()
    return torch.zeros(sees.shape, device=ends.device).masked_fill(~sees, -torch.inf)


class LabelPrompts(nn.Module):
    """Two contexts, positive and negative, shared by all labels: [start][context x M][label][end].

    text_l = normalise(anchor_l + residual_l + tower(context, label_l) - tower(initial context, label_l))

    Deviation: the anchors. DualCoOp starts from random contexts, which rank at chance. Here the positive anchor is raw
    CLIP's feature of the label and the negative one the mean of all labels' features, so training starts at
    zero-shot CLIP, for any M, and the contexts learn the change.

    separate_tokens: last tokens of the contexts that are learned apart for photos and for generated images. Photos have
    theirs in `contexts`, and so has prediction; for generated images `generated_tokens` take their place. None if 0.
    Source: SYNC-CLIP, Liu et al. 2023, which does the same to prompts of the visual tower.

    Deviation: the residuals (task residual, Yu et al. 2023), zero at the start. They learn from a label's own images
    alone, while shared contexts move all labels together.
    """

    anchors: Tensor  # (2, L, D)
    initial: Tensor  # (2, L, D)
    token_ids: Tensor  # (L, T)

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer,
        names: Sequence[str],
        num_context_tokens: int,
        template: str,
        separate_tokens: int = 0,
    ) -> None:
        super().__init__()
        self.tower = TextTower(model)
        embedding = self.tower.part.token_embedding
        device = embedding.weight.device
        token_ids = label_token_ids(self.tower, tokenizer, names, num_context_tokens).to(device)
        words = _context_words(self.tower, tokenizer, template).to(device)
        with torch.no_grad():
            start = embedding(words[torch.arange(num_context_tokens) % len(words)])  # (M, W)
            texts = tokenizer([template.format(name) for name in names]).to(device)
            positive = self.tower.encode(texts)
            negative = F.normalize(positive.mean(0, keepdim=True), dim=-1).expand_as(positive)
            initial = self._encoded(start.unsqueeze(0), token_ids)[0]
        self.contexts = nn.Parameter(torch.stack([start, start]))  # (2, M, W)
        own = self.contexts.detach()[:, num_context_tokens - separate_tokens :].clone()
        self.generated_tokens = nn.Parameter(own) if separate_tokens else None
        self.residual = nn.Parameter(torch.zeros_like(positive).expand(2, -1, -1).clone())  # (2, L, D)
        self.register_buffer("token_ids", token_ids, persistent=False)
        self.register_buffer("anchors", torch.stack([positive, negative]), persistent=False)
        self.register_buffer("initial", torch.stack([initial, initial]), persistent=False)

    @classmethod
    def of(cls, clip: Clip, names: Sequence[str], config: Config) -> LabelPrompts:
        """Return the prompts that a classifier's settings ask for, on its backbone."""
        sizes = (config.num_context_tokens, config.template, config.separate_tokens)
        return cls(clip.model, clip.tokenizer, names, *sizes)

    def forward(self, label_indices: Sequence[int]) -> Tensor:
        """Return positive and negative text features of these labels, (2, len, D), unit norm."""
        return self._features(self.contexts, label_indices)

    def of_sources(self, label_indices: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Return the same for photos and for generated images, both read at once."""
        if self.generated_tokens is None:
            return (features := self(label_indices)), features
        shared = self.contexts[:, : -self.generated_tokens.shape[1]]
        contexts = torch.stack([self.contexts, torch.cat([shared, self.generated_tokens], 1)])  # (2, 2, M, W)
        real, generated = self._features(contexts, label_indices)
        return real, generated

    def _features(self, contexts: Tensor, label_indices: Sequence[int]) -> Tensor:
        """Contexts (..., 2, M, W) -> (..., 2, len, D), unit norm."""
        columns = list(label_indices)
        texts = self._encoded(contexts.flatten(0, -3), self.token_ids[columns]).unflatten(0, contexts.shape[:-2])
        change = self.residual[:, columns] + texts - self.initial[:, columns]
        return F.normalize(self.anchors[:, columns] + change, dim=-1)

    def _encoded(self, contexts: Tensor, token_ids: Tensor) -> Tensor:
        return torch.cat([self.tower.encode_behind(contexts, some) for some in token_ids.split(LABELS_AT_ONCE)], 1)


def label_token_ids(tower: TextTower, tokenizer: Tokenizer, names: Sequence[str], num_context_tokens: int) -> Tensor:
    """Return (L, T) ids of [start][label][end][padding].

    Raises:
        ValueError: the contexts and a label's tokens do not fit the tower's context length.
    """
    ids = tokenizer(list(names))
    lengths = tower.ends(ids) + 1  # start, label, end
    if problem := misfit(names, lengths.tolist(), tower.context_length, num_context_tokens):
        raise ValueError(problem)
    return ids


def token_counts(folder: Path, texts: Sequence[str]) -> tuple[list[int], int] | None:
    """Return the number of tokens of each text, start and end included, and the context length of a CLIP in a folder.

    None if the folder has no tokenizer of its own. No weights are loaded.
    """
    files = [folder / name for name in ("tokenizer.json", "open_clip_config.json")]
    if not all(file.exists() for file in files):
        return None
    tokenizer = tokenizers.Tokenizer.from_file(str(files[0]))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    config = json.loads(files[1].read_text(encoding="utf-8"))["model_cfg"]
    return [len(tokenizer.encode(text).ids) for text in texts], int(config["text_cfg"]["context_length"])


def misfit(names: Sequence[str], lengths: Sequence[int], context_length: int, num_context_tokens: int) -> str:
    """Return why the contexts do not fit in front of the longest name; "" if they do.

    lengths: of the names in tokens, with start and end.
    """
    length, name = max(zip(lengths, names, strict=True))
    if num_context_tokens <= context_length - length:
        return ""
    return (
        f"num_context_tokens {num_context_tokens} is too many: {name!r} takes {length} of the backbone's"
        f" {context_length} tokens; choose 1 to {context_length - length}, or a shorter name with this one as an alias"
    )


def _context_words(tower: TextTower, tokenizer: Tokenizer, template: str) -> Tensor:
    """Return ids of the template's words before the label: the contexts start from them, repeated to M tokens."""
    ids = tokenizer([template.partition("{}")[0].strip() or "a photo of a"])
    return ids[0, 1 : int(tower.ends(ids)[0])]
