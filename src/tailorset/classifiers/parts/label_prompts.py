"""Learnable positive and negative prompts for labels, read by CLIP's own frozen text tower.

Shapes: L labels, M tokens of a context, T context length of the tower, W the tower's width, D joint width.
Source: DualCoOp, Sun et al. 2022, sec. 3.2.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import tokenizers
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tailorset.classifiers.parts.text_towers import TextTower, Tokenizer, text_tower

if TYPE_CHECKING:
    from tailorset.classifiers.dual_prompt import Config
    from tailorset.clip.model import Clip


class LabelPrompts(nn.Module):
    """Two contexts, positive and negative, shared by all labels: [start][context x M][label][end].

    text_l = normalise(anchor_l + residual_l + tower(context, label_l) - tower(initial context, label_l))

    Deviation: the anchors. DualCoOp starts from random contexts, which rank at chance. Here the positive anchor is raw
    CLIP's feature of the label and the negative one the mean of all labels' features, so training starts at
    zero-shot CLIP, for any M, and the contexts learn the change.

    separate_tokens: number of last context tokens that are learned separately for photos and generated images. Those of
    photos, also used in prediction, are in `contexts`; generated images use `generated_tokens` (None if 0) instead.
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
        self.tower = text_tower(model, tokenizer)
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
        """Return these features for photos and for generated images, encoded in one pass."""
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
        return torch.cat(
            [self.tower.encode_behind(contexts, some) for some in token_ids.split(self.tower.labels_at_once)], 1
        )


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
    room = context_length - length
    if num_context_tokens <= room:
        return ""
    fewer = f"choose 1 to {room}, or" if room > 0 else "choose"
    return (
        f"num_context_tokens {num_context_tokens} is too many: {name!r} takes {length} of the backbone's"
        f" {context_length} tokens; {fewer} a shorter name with this one as an alias"
    )


def _context_words(tower: TextTower, tokenizer: Tokenizer, template: str) -> Tensor:
    """Return ids of the template's words before the label: the contexts start from them, repeated to M tokens."""
    return tower.words(tokenizer([template.partition("{}")[0].strip() or "a photo of a"]))
