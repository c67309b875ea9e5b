"""Labels: the tokens or classes on which a feature is strong, with their share of it. What was seen, not what it means."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from .contexts import FeatureRows
from .document import percent, visible

#: at most so many texts stand in a label, each with at least this share of the feature's total
MOST, LEAST = 3, 0.1
#: when those named hold less than this together, the label ends in an ellipsis
NEARLY_ALL = 0.8
#: a feature with more than this share on punctuation and white space is one of marks
MARKS = 0.5


@dataclass(frozen=True)
class Label:
    """Texts that name a feature, and whether it fires on much else."""

    texts: tuple[str, ...] = ()
    more: bool = False

    @classmethod
    def of(cls, name: str | Label) -> Label:
        """A name that somebody gave stands by itself."""
        return name if isinstance(name, Label) else cls((name,) if name else ())

    @property
    def shown(self) -> list[str]:
        """Each text as it is drawn."""
        return [shown(text) for text in self.texts]

    def __bool__(self) -> bool:
        return bool(self.texts)

    def __str__(self) -> str:
        return " ".join(self.shown)


UNNAMED = Label()


class Labels:
    """Names features by the texts of the rows on which they fire.

    Args:
        token: [rows] a token or a class for each row.
        text: token -> its text.
    """

    def __init__(self, token: Any, text: Callable[[int], str]):
        self.token, self.text = np.asarray(token), text

    @cached_property
    def _texts(self) -> tuple[list[str], np.ndarray]:
        """The distinct texts, white space around words left out, and each row's place among them."""
        distinct, place = np.unique(self.token, return_inverse=True)
        shown = [self.text(int(t)) for t in distinct]
        names, group = np.unique([t.strip() or t for t in shown], return_inverse=True)
        return names.tolist(), group[place.reshape(-1)]

    def shares(self, features: FeatureRows, feature: int) -> list[tuple[str, float]]:
        """Texts and their shares of the sum of the feature's values, the largest first; what holds little is left out."""
        rows, values = features.on(feature)
        if not len(rows):
            return []
        names, place = self._texts
        seen, at = np.unique(place[rows], return_inverse=True)
        mass = np.bincount(at.reshape(-1), values, len(seen))
        mass /= mass.sum()
        best = np.argsort(-mass, kind="stable")[:MOST]
        return [(names[seen[i]], float(mass[i])) for i in best if mass[i] >= LEAST]

    def marks(self, features: FeatureRows, feature: int) -> bool:
        """Whether most of the feature's values fall on texts without a letter or a digit."""
        rows, values = features.on(feature)
        on_marks = self._marks[self._texts[1][rows]]
        return bool(len(rows)) and float(values[on_marks].sum()) > MARKS * float(values.sum())

    @cached_property
    def _marks(self) -> np.ndarray:
        """[texts] which hold neither a letter nor a digit."""
        return np.array([not any(c.isalnum() for c in name) for name in self._texts[0]], bool)

    def short(self, features: FeatureRows, feature: int) -> Label:
        """For an equation, where each text stands in a box: he she …; empty for a feature without a text of its own."""
        return short(self.shares(features, feature))


def short(shares: Sequence[tuple[str, float]]) -> Label:
    """Texts in boxes, an ellipsis where they leave much out."""
    return Label(tuple(text for text, _ in shares), bool(shares) and sum(s for _, s in shares) < NEARLY_ALL)


def full(shares: Sequence[tuple[str, float]]) -> str:
    """For a feature's own place: “he” 48 %, “she” 31 %."""
    return ", ".join(f"“{shown(text)}” {percent(share)}" for text, share in shares)


def shown(text: str) -> str:
    """The text with nothing hidden; where it is white space alone, that is marked."""
    return visible(text, spaces=not text.strip(" "))


def unspaced(name: str) -> str:
    """A token's name without the marks of the spaces around its word; white space alone stays marked."""
    return name.strip(" ·") or name
