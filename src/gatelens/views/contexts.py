"""Contexts: on which rows a feature fires, strongest first and by interval; token windows around them."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse
import torch
from torch import Tensor

from ..basis.output import at_output
from ..gates.tables import Columns
from .document import visible

#: intervals of a feature's values, as shares of its largest, from which examples are shown below the top ones
INTERVALS = ((0.6, 0.8), (0.4, 0.6), (0.2, 0.4), (0.0, 0.2))
_ROWS = 4_096


@dataclass(frozen=True)
class FeatureRows:
    """Values of some features over all rows, zeros left out.

    Attributes:
        columns: the features that were kept.
        place: feature -> its column.
    """

    columns: Columns
    place: Mapping[int, int]

    @classmethod
    def read(cls, basis: Any, x: Tensor, features: Iterable[int]) -> FeatureRows:
        """Encode [rows, d] activations a few thousand rows at a time and keep the features asked for."""
        chosen = sorted(set(features))
        parts = [scipy.sparse.csr_matrix(_encode(basis, part)[:, chosen].numpy()) for part in x.split(_ROWS)]
        matrix = scipy.sparse.vstack(parts).tocsc()
        signed = bool((matrix.data < 0).any())
        columns = Columns(matrix.indptr, matrix.indices, matrix.data, matrix.shape[0], matrix.shape[1], signed)
        return cls(columns, {f: i for i, f in enumerate(chosen)})

    @classmethod
    def of(cls, f: Any) -> FeatureRows:
        """From features at hand, [rows, features]: a tensor, an array or nested lists."""
        values = torch.as_tensor(f)
        return cls(Columns.of(values, "features"), {i: i for i in range(values.shape[1])})

    @property
    def rows(self) -> int:
        return self.columns.rows

    def on(self, feature: int) -> tuple[np.ndarray, np.ndarray]:
        """Rows and values where the feature is positive."""
        return self.columns.on(self.place[feature])

    def value(self, feature: int, rows: Sequence[int] | np.ndarray) -> np.ndarray:
        """The feature's values on the given rows, zero where it is off."""
        where, values = self.columns.entries(self.place[feature])
        rows = np.asarray(rows).astype(where.dtype, copy=False)  # of another type, all of `where` would be copied
        if not len(where):
            return np.zeros(len(rows))
        at = np.minimum(where.searchsorted(rows), len(where) - 1)
        return np.where(where[at] == rows, values[at], 0.0)


def _encode(basis: Any, x: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([at_output(basis).read(part) for part in x.split(_ROWS)])


@dataclass(frozen=True)
class Group:
    """Rows of one kind.

    Attributes:
        name: "strongest", or the interval.
        rows, values: the examples, strongest first.
        population: how many rows the group stands for.
        note: what stands beside its name.
    """

    name: str
    rows: np.ndarray
    values: np.ndarray
    population: int
    note: str = ""


def groups(
    features: FeatureRows, feature: int, top: int = 6, each: int = 2, same: np.ndarray | None = None
) -> list[Group]:
    """The strongest rows, then evenly spaced ones of each interval of the feature's range.

    Args:
        same: [rows] equal numbers mark rows with the same context: only the strongest of them is shown.
    """
    rows, values = features.on(feature)
    if not len(rows):
        return []
    order = np.argsort(-values, kind="stable")
    rows, values = rows[order], values[order]
    every = values  # repeated contexts are shown once and counted as often as they are
    if same is not None:
        first = np.sort(np.unique(same[rows], return_index=True)[1])
        rows, values = rows[first], values[first]
    found = [Group("strongest", rows[:top], values[:top], len(every))]
    if each:
        rest, rest_values = rows[top:], values[top:]
        largest = float(values[0])
        ends, counted = _spans(rest_values, largest), _spans(every[top:], largest)
        for (low, high), (first, stop), (begin, end) in zip(INTERVALS, ends, counted, strict=True):
            if stop > first:
                chosen = np.linspace(first, stop - 1, min(each, stop - first)).astype(int)
                name = f"{low:.0%}–{high:.0%} of the largest"
                note = f"{len(chosen)} of {end - begin:,}"
                found.append(Group(name, rest[chosen], rest_values[chosen], end - begin, note))
    return found


def _spans(falling: np.ndarray, largest: float) -> list[tuple[int, int]]:
    """Of each interval, its first place among falling values and the one after its last: above its lower end, up to its upper."""
    at = (-falling).searchsorted([-share * largest for share in np.ravel(INTERVALS)]).reshape(-1, 2).tolist()
    return [(first, stop) for stop, first in at]


def histogram(values: np.ndarray, bins: int = 24) -> tuple[np.ndarray, float]:
    """Counts of the positive values in equal bins up to the largest, and the largest."""
    if not len(values):
        return np.zeros(bins, int), 0.0
    largest = float(values.max())
    return np.histogram(values, bins=bins, range=(0, largest))[0], largest


@cache
def shown_text(text: str) -> str:
    """A token's text with nothing hidden; white space alone is marked."""
    return visible(text, spaces=not text.strip(" "))


class Token(NamedTuple):
    """One token, or several that only together are text, as shown in a window."""

    text: str
    value: float
    centre: bool
    ids: tuple[int, ...] = ()

    @property
    def shown(self) -> str:
        """The text with nothing hidden; white space alone is marked."""
        return shown_text(self.text)

    @property
    def spelled(self) -> str:
        """The text in quotes, as a program would write it."""
        return json.dumps(self.text, ensure_ascii=False)

    def shade(self, largest: float) -> str:
        """Class names: nine shades by value, the middle, and white space, which is set apart from the next mark."""
        level = min(max(math.ceil(9 * self.value / largest), 1), 9) if largest > 0 and self.value > 0 else 0
        return f"t{f' a{level}' if level else ''}{' c' if self.centre else ''}{' ws' if self.blank else ''}"

    @property
    def blank(self) -> bool:
        return not self.text.strip()


class _Unlit(dict):
    """Token -> it as one on which the feature is off, the same wherever it stands; None where it is but a part of a character."""

    def __init__(self, text: Callable[[int], str]):
        super().__init__()
        self.text = text

    def __missing__(self, token: int) -> Token | None:
        text = self.text(token)
        self[token] = None if "\ufffd" in text else Token(text, 0.0, False, (token,))
        return self[token]


class Windows:
    """Token windows around rows; texts are decoded once a token."""

    def __init__(self, acts: Any, tokenizer: Any, reach: int = 5):
        self.document, self.position, self.token = map(np.asarray, (acts.document, acts.position, acts.token))
        self.tokenizer, self.reach = tokenizer, reach
        self.texts: dict[tuple[int, ...], str] = {}
        self._off = _Unlit(self.text)

    def text(self, *ids: int) -> str:
        if ids not in self.texts:
            self.texts[ids] = str(self.tokenizer.decode(list(ids)))
        return self.texts[ids]

    def rows(self, row: int) -> list[int]:
        """The neighbouring rows of the same text, in order."""
        first, stop = self._ends
        return list(range(int(first[row]), int(stop[row])))

    @cached_property
    def _ends(self) -> tuple[np.ndarray, np.ndarray]:
        """Of each row, the first of its window and the one after the last: neighbours of the same text, without a gap."""
        number = len(self.token)
        if not number:
            return np.zeros(0, int), np.zeros(0, int)
        breaks = (np.diff(self.document) != 0) | (np.diff(self.position) != 1)
        begins = np.concatenate([[0], np.flatnonzero(breaks) + 1])
        ends = np.concatenate([begins[1:], [number]])
        run = np.searchsorted(begins, np.arange(number), side="right") - 1
        first = np.maximum(np.arange(number) - self.reach, begins[run])
        return first, np.minimum(np.arange(number) + self.reach + 1, ends[run])

    def marks(self) -> np.ndarray:
        """[rows] a number for each distinct context (the token and the two before it)."""
        t = self.token.astype(np.int64)
        one, two = np.roll(t, 1), np.roll(t, 2)
        start = self.position
        one[start < 1], two[start < 2] = -1, -1
        return np.unique(np.stack([t, one, two]), axis=1, return_inverse=True)[1].reshape(-1)

    def window(self, row: int, features: FeatureRows, feature: int) -> list[Token]:
        """The row's token in the middle, up to `reach` on either side, each with the feature's value."""
        return self.around([row], features, feature)[0]

    def around(self, rows: Sequence[int] | np.ndarray, features: FeatureRows, feature: int) -> list[list[Token]]:
        """The windows around some rows, looked up together: a page has tens of thousands."""
        rows = np.asarray(rows, int)
        if not len(rows):
            return []
        low, high = self._ends[0][rows], self._ends[1][rows]
        stops = np.cumsum(high - low)
        every = np.repeat(high - stops, high - low) + np.arange(stops[-1])
        value, middles = features.value(feature, every), (rows - high + stops).tolist()
        ids, values = self.token[every].tolist(), value.tolist()
        shown = self._lit(ids, values, {*np.flatnonzero(value).tolist(), *middles}, set(middles))
        found, at = [], 0
        for middle, end in zip(middles, stops.tolist(), strict=True):
            whole = all(shown[at:end])
            found.append(shown[at:end] if whole else self._mended(ids[at:end], values[at:end], middle - at))
            at = end
        return found

    def _lit(self, ids: list[int], values: list[float], lit: set[int], middles: set[int]) -> list[Token | None]:
        """Tokens one by one, those with a value and those in the middle of their window of their own."""
        shown = list(map(self._off.__getitem__, ids))
        for at in lit:
            token = shown[at]
            shown[at] = token and Token(token.text, values[at], at in middles, token.ids)
        return shown

    def _mended(self, ids: list[int], values: list[float], middle: int) -> list[Token]:
        """A window with tokens that are but a part of a character: joined with their neighbours, cut at the window's ends."""
        shown, start = [], 0
        while start < len(ids):
            stop = self._whole(ids, start)
            value = values[start] if stop == start + 1 else max(values[start:stop], key=abs)
            part = tuple(ids[start:stop])
            shown.append(Token(self.text(*part), value, start <= middle < stop, part))
            start = stop
        while shown and "\ufffd" in shown[-1].text and not shown[-1].centre:
            shown.pop()  # a character that the window cuts through
        while shown and "\ufffd" in shown[0].text and not shown[0].centre:
            shown.pop(0)
        return shown

    def _whole(self, ids: list[int], start: int) -> int:
        """The end of the shortest run of tokens from `start` that decodes without a broken character."""
        if "\ufffd" not in self.text(ids[start]):
            return start + 1
        for stop in range(start + 1, min(start + 5, len(ids) + 1)):
            if "\ufffd" not in self.text(*ids[start:stop]):
                return stop
        return start + 1
