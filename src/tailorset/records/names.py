"""Names of labels and files: when two are the same, which labels a text names, and what files are called after them."""

from __future__ import annotations

import hashlib
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from itertools import groupby
from typing import NamedTuple

MAX_CHARS = 80
JOINERS = "-_\u2010"  # between two words they make one thing of another name: a cup-cake is not a cup

_IRREGULAR = {
    "child": "children",
    "die": "dice",
    "foot": "feet",
    "goose": "geese",
    "louse": "lice",
    "man": "men",
    "mouse": "mice",
    "ox": "oxen",
    "person": "people",
    "tooth": "teeth",
}


class Word(NamedTuple):
    """A word of a text, folded; `is_joined`: nothing but a hyphen or underscore is between it and the word before."""

    text: str
    is_joined: bool


def composed(name: str) -> str:
    """Return a name in one Unicode form: systems differ in how they compose letters with accents."""
    return unicodedata.normalize("NFC", name)


def fold(name: str) -> str:
    """Return the words of a name, equal for names that count as one: "T-Shirt" -> "t shirt"."""
    return " ".join(word.text for word in words(name))


def words(text: str) -> list[Word]:
    """Return the folded words of a text: runs of letters and digits of any script, without invisible characters."""
    folded = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", text).casefold())
    visible = "".join(char for char in folded if unicodedata.category(char) != "Cf")
    runs = [(is_word, "".join(run)) for is_word, run in groupby(visible, is_word_char)]
    return [
        Word(run, index >= 2 and runs[index - 1][1] in JOINERS) for index, (is_word, run) in enumerate(runs) if is_word
    ]


def is_word_char(char: str) -> bool:
    """Check that a character belongs to a word: letters, digits and marks on them."""
    return unicodedata.category(char)[0] in "LMN"


def name_problem(name: str) -> str | None:
    """Reason why this is not a valid label name, or None."""
    if odd := next((char for char in name if not is_word_char(char) and char not in " -_'’"), None):
        return (
            f"has {shown(odd)}: use letters, digits, blanks, hyphens, underscores and apostrophes; other wordings go to"
            " aliases"
        )
    if not name or not is_word_char(name[0]) or not is_word_char(name[-1]):
        return "has no letter or digit first and last"
    if len(name) > MAX_CHARS:
        return f"has {len(name)} characters: use up to {MAX_CHARS}; other wordings go to aliases"
    return "has two blanks in a row: write one" if "  " in name else None


def wording_problem(text: str) -> str | None:
    """Reason why prompts cannot name a label by this, or None."""
    if hidden := next((char for char in text if unicodedata.category(char)[0] == "C"), None):
        return f"has {shown(hidden)}, which no prompt may have: remove it"
    if not fold(text) or text != " ".join(text.split()):
        return "is not plain words: write words on one line, single blanks between them"
    return None


def shown(char: str) -> str:
    """Return a character with its code point and Unicode name, as many are invisible."""
    return f"{char!r} (U+{ord(char):04X} {unicodedata.name(char, 'without a name')})"


def safe_file_name(name: str) -> str:
    """Return a file name of a-z, 0-9, '-' and '_' that is unique for the name, even if case does not count."""
    ascii_only = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    plain = re.sub(r"[^a-z0-9_-]+", "-", ascii_only.lower()).strip("-")
    return plain if plain == name else f"{plain[:60] or 'name'}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def plain_path(name: str) -> str:
    """A file's name as this machine writes it: slashes, no `./`, accents composed."""
    return posixpath.normpath(composed(name.strip()).replace("\\", "/"))


class NameMatch(NamedTuple):
    """A label, or None if it could be two of them, that the words from `start` to before `end` name."""

    label: str | None
    start: int
    end: int


class NameFinder:
    """Finds which labels a text names: of names that overlap the longest one counts, so a hot dog is not a dog.

    wordings: label -> all names that count for it. Plurals count as well.
    """

    def __init__(self, wordings: Mapping[str, Sequence[str]]) -> None:
        exact = {tuple(fold(name).split()): label for label, names in wordings.items() for name in names}
        plurals = {(form, label) for name, label in exact.items() for form in plural(name)}
        singulars = {(form, label) for name, label in exact.items() for form in singular(name)}
        # A plural or singular form stands for a label unless it is a name itself; a form of two labels stands for none.
        self._label_of: dict[tuple[str, ...], str | None] = {form: None for form, _ in singulars}
        times = Counter(form for form, _ in plurals)
        self._label_of |= {form: label if times[form] == 1 else None for form, label in plurals} | exact
        self._longest = max(map(len, self._label_of), default=0)

    def named_in(self, text: str) -> frozenset[str]:
        """The labels that a text names, as whole words."""
        return frozenset(match.label for match in self._matches(words(text)) if match.label)

    def replaced(self, text: str, by: str) -> tuple[str, list[str]]:
        """Return the words of a text, folded, with another one for each name; and the labels that were named.

        Parts of hyphenated words count here, and so do names that could be two labels.
        """
        found = [Word(word.text, is_joined=False) for word in words(text)]
        matches = list(self._matches(found))
        texts: list[str | None] = [word.text for word in found]
        for match in matches:
            texts[match.start : match.end] = [by, *[None] * (match.end - match.start - 1)]
        return " ".join(word for word in texts if word), [match.label for match in matches if match.label]

    def _matches(self, found: Sequence[Word]) -> Iterator[NameMatch]:
        start = 0
        while start < len(found):
            for end in range(min(len(found), start + self._longest), start, -1):
                name = tuple(word.text for word in found[start:end])
                is_part = found[start].is_joined or (end < len(found) and found[end].is_joined)
                if name in self._label_of and not is_part:
                    yield NameMatch(self._label_of[name], start, end)
                    start = end
                    break
            else:
                start += 1


def plural(name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield all likely plurals of a name: a wrong one is not a word and does no harm."""
    *others, last = name
    ends = {last + "s", last + "es"} if last.endswith(("o", "s", "x", "z", "ch", "sh")) else {last + "s"}
    if last.endswith("y") and last[-2:-1] not in tuple("aeiou"):
        ends = {last[:-1] + "ies"}
    if last.endswith(("f", "fe")):
        ends.add(last.removesuffix("e").removesuffix("f") + "ves")
    ends |= {last.removesuffix(one) + many for one, many in _IRREGULAR.items() if last.endswith(one)}
    return ((*others, end) for end in sorted(ends))


def singular(name: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Yield the likely singulars of a name."""
    *others, last = name
    ends = {last.removesuffix(many) + one for one, many in _IRREGULAR.items() if last.endswith(many)}
    for many, one in (("s", ""), ("es", ""), ("ies", "y"), ("ves", "f"), ("ves", "fe")):
        if last.endswith(many) and len(last) > len(many) + 1:
            ends.add(last.removesuffix(many) + one)
    return ((*others, end) for end in sorted(ends))
