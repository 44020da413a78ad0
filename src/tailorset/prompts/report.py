"""Report on the prompts: figures of a complete ledger, prompts per pair, and the cause of refused replies."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import pandas as pd

from tailorset.prompts.captions import CAPTIONS
from tailorset.prompts.contract import REASONS, main_cause, refused_replies, words_of
from tailorset.prompts.token_limit import TokenLimit
from tailorset.prompts.writer import Ledger
from tailorset.records import ORIGINS, Prompt


def metrics(ledger: Ledger, limit: TokenLimit | None = None) -> dict[str, float]:
    """Return flat figures of a complete ledger; shares are in [0, 1], tokens those of the generator's text encoders."""
    texts = [prompt.text for prompt in ledger.prompts]
    origins = Counter(prompt.origin for prompt in ledger.prompts)
    first_replies = ledger.counts.get("first_replies", 0)
    return {
        "prompts/count": len(texts),
        **{f"prompts/origin/{origin}": origins[origin] for origin in ORIGINS},
        "prompts/raw_acceptance": ledger.counts.get("raw_accepted", 0) / max(1, first_replies),
        "prompts/distinct_1": distinct(texts, 1),
        "prompts/distinct_2": distinct(texts, 2),
        "prompts/distinct_texts": len({" ".join(words_of(text)) for text in texts}),
        **{f"prompts/rejected/{reason}": ledger.counts.get(f"rejected/{reason}", 0) for reason in REASONS},
        **{f"prompts/{key}": number for key, number in ledger.counts.items() if key.startswith(CAPTIONS)},
        **(_token_figures(texts, limit) if limit else {}),
    }


def distinct(texts: Sequence[str], n: int) -> float:
    """Distinct n-grams of words as a share of all n-grams, in [0, 1]; 0 for no text. Source: Li et al. 2016."""
    words = [words_of(text) for text in texts]
    ngrams = [tuple(w[i : i + n]) for w in words for i in range(len(w) - n + 1)]
    return len(set(ngrams)) / max(1, len(ngrams))


def pair_table(prompts: Sequence[Prompt]) -> pd.DataFrame:
    """Number of prompts of each origin, one row per pair."""
    counts = Counter((" + ".join(prompt.labels), prompt.origin) for prompt in prompts)
    pairs = dict.fromkeys(" + ".join(prompt.labels) for prompt in prompts)
    return pd.DataFrame([{"pair": pair, **{origin: counts[pair, origin] for origin in ORIGINS}} for pair in pairs])


def warning(figures: Mapping[str, float]) -> str:
    """Return the main cause of refused replies if more of them were refused than accepted, else ""."""
    refused = refused_replies(figures)
    accepted = figures["prompts/count"] - figures["prompts/origin/template"]
    return main_cause(refused) if sum(refused.values()) > accepted else ""


def _token_figures(texts: Sequence[str], limit: TokenLimit) -> dict[str, float]:
    """Tokens of the longest prompt, and number of prompts whose end no text encoder reads."""
    return {
        "prompts/tokens_max": max(map(limit.count, texts), default=0),
        "prompts/end_cut_off": sum(limit.excess(text) > 0 for text in texts),
    }
