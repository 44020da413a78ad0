"""Tell texts in English from others, by their script and by the little words that sentences are made of.

Only sure cases count as foreign: English need not have such words, and may have names from other languages.
"""

from __future__ import annotations

import re

MIN_FOREIGN = 3  # different little words: "de la" and "Los" also occur in English
_ENGLISH = (
    "a above against among an and are around as at before behind below beneath beside between by down for from"
    " front has in inside into is its near next of off on one onto or out over showing shows some that the their there"
    " these this through to toward towards two under up upon which while with within without"
)
_OTHERS = (  # none that is an English word as well, such as the German die, the French pour, the Dutch met
    "auf aus bei dem der ein eine einem einen einer eines hinter ist mit nach neben oder sich sind und unter vom"
    " von vor wird zu zum zur zwischen über"  # German
    " au aux avec côté dans de derrière des deux devant du est et la le les près qui sous sur un une à"  # French
    " al del el en entre está junto las los que se sobre su una unas unos y"  # Spanish
    " accanto alla alle che da dal dei della delle di gli il nel nella sotto sul sulla uno è"  # Italian
    " ao com dos em lado na nas num numa os ou pela pelo sob um uma umas uns"  # Portuguese
    " achter bij boven een het naar naast onder op te tussen voor zijn"  # Dutch
    " av bredvid det ett med och og på som till ved"  # Swedish, Norwegian, Danish
    " jest obok oraz pod się w z ze"  # Polish
    " bir bu ile ve yanında üzerinde"  # Turkish
    " dengan sebuah yang"  # Indonesian
    " cạnh của một trên và với"  # Vietnamese
)
_LITTLE_ENGLISH, _LITTLE_OTHERS = frozenset(_ENGLISH.split()), frozenset(_OTHERS.split())
_LETTER = re.compile(r"[^\W\d_]")
_LATIN = re.compile("[A-Za-z\u00aa\u00ba\u00c0-\u024f\u1e00-\u1eff]")


def is_foreign(text: str) -> bool:
    """Check that folded words, without the names of labels, are mostly of another script or language.

    Little words of other languages must outnumber those of English; languages with few of them pass.
    """
    if 2 * len(_LATIN.findall(text)) < len(_LETTER.findall(text)):
        return True
    words = text.split()
    foreign = [word for word in words if word in _LITTLE_OTHERS]
    return len(set(foreign)) >= MIN_FOREIGN and len(foreign) > sum(word in _LITTLE_ENGLISH for word in words)
