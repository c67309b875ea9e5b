"""Interventional truth tables: parents are switched on and off in the real model, and the output is read again.

A natural table is correlational: features that fire together lend each other their effect. Here the input vector is
moved along the parents' decoder directions, everything else (the part that no feature explains included) is kept, the
real segment runs, and the output basis encodes what comes out. The features of a pair dictionary (a transcoder, a gate
dictionary) are functions of the input and would agree with themselves whatever the model did: whether such a feature is
there is read off the output.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ..basis import Basis, directions
from ..basis.features import encode_rows, output_features
from ..basis.pair import PairBasis
from ..codes.csr import stack_csr, to_csr
from ..errors import DataError
from ..segments import Segment
from .hypotheses import Rule
from .tables import Cells, Columns

#: rows encoded or run through the segment at once
_CHUNK = 4_096
#: a feature that is read off the output is there from this share of its mean value where on
READ_FROM = 0.5


@dataclass(frozen=True)
class SetTable:
    """An interventional table by where its rows came from: rows on which the output fired untouched, and the others."""

    was_on: Cells
    was_off: Cells

    @property
    def cells(self) -> Cells:
        return self.was_on + self.was_off


@dataclass(frozen=True)
class Job:
    """One output whose parents are to be set to each of some patterns (bit masks over `parents`)."""

    out: int
    parents: Sequence[int]
    codes: Sequence[int]


class Workbench:
    """Real rows at a segment's input, what both bases make of them, and the means to change them.

    Attributes:
        x: [rows, d_in]; f_in, f_out: their features at both ends, untouched.
        on_value: [m] the value that a feature is given where it is switched on: its mean where it is on by itself.
    """

    def __init__(
        self,
        segment: Segment,
        basis_in: Basis,
        basis_out: Basis,
        x: Float[Tensor, "rows d_in"],
        features: tuple[Columns, Columns] | None = None,
    ):
        """`features`: what the bases make of the rows at both ends, where that is known already."""
        if x.ndim != 2 or x.shape[1] != segment.d_in or not len(x):
            raise DataError(
                f"interventions need rows at {segment.hook_in}, [rows, {segment.d_in}]; got shape {tuple(x.shape)}. "
                "Give the collected activations of that hook point"
            )
        self.segment, self.basis_in, self.basis_out, self.x = segment, basis_in, basis_out, x
        self.f_in, self.f_out = features or self._encoded()
        self.on_value = self.f_in.mean_on()
        self.directions = directions(basis_in, self.f_in.features).to(x)

    def _encoded(self) -> tuple[Columns, Columns]:
        with torch.no_grad():
            y = torch.cat([self.segment.forward(part) for part in self.x.split(_CHUNK)])
        f_out = output_features(self.basis_out, self.x, y)
        return Columns.of(encode_rows(self.basis_in, self.x), "f_in"), Columns.of(f_out, "f_out")

    def features(self, x: Float[Tensor, "rows d_in"], outs: Int[Tensor, " k"]) -> Float[Tensor, "rows k"]:
        """Some output features of input vectors, as the real segment's output shows them."""
        return torch.cat([f[:, outs.to(f.device)].cpu() for f in self._shown_outputs(x)])

    def states(self, out: int) -> tuple[Bool[np.ndarray, " rows"], Bool[np.ndarray, " rows"]]:
        """The rows on which an output fires untouched, and those on which it is silent.

        Where features are read off the output, rows on which it shows something else than the dictionary says are neither.
        """
        on = self.f_out.dense(out) > 0
        shown = on if self._shown is None else self._shown.dense(out) > 0
        return on & shown, ~on & ~shown

    @cached_property
    def _shown(self) -> Columns | None:
        """What the untouched outputs show of a pair dictionary's features; None where features are encoded from them anyway."""
        if not isinstance(self.basis_out, PairBasis):
            return None
        return Columns.of(stack_csr([to_csr(f) for f in self._shown_outputs(self.x)]), "f_out")

    def _shown_outputs(self, x: Tensor) -> Iterator[Tensor]:
        """[chunk, n] all output features as the segment's output shows them, chunk by chunk."""
        pair = self.basis_out if isinstance(self.basis_out, PairBasis) else None
        level = None if pair is None else torch.from_numpy(READ_FROM * self.f_out.mean_on()).to(x)
        with torch.no_grad():
            for part in x.split(_CHUNK):
                y = self.segment.forward(part)
                if pair is None or level is None:
                    f = output_features(self.basis_out, part, y)
                    yield f.to_dense() if f.layout == torch.sparse_csr else f
                else:
                    f = pair.read_off(part, y)
                    yield torch.where(f > level, f, 0.0)

    def values(self, rows: np.ndarray, parents: Sequence[int]) -> np.ndarray:
        """[rows, k] the parents' values."""
        return np.stack([self.f_in.dense(p)[rows] for p in parents], 1) if len(parents) else np.zeros((len(rows), 0))

    def active(self, rows: np.ndarray) -> list[np.ndarray]:
        """The input features that are on in each of the rows."""
        starts, features = self._by_row
        return [features[starts[row] : starts[row + 1]] for row in rows]

    @cached_property
    def _by_row(self) -> tuple[np.ndarray, np.ndarray]:
        """Where each row's active features begin, and the features, row by row."""
        on = self.f_in.value > 0
        feature = np.repeat(np.arange(self.f_in.features), np.diff(self.f_in.starts))[on]
        row = self.f_in.row[on]
        starts = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=self.f_in.rows))])
        return starts, feature[np.argsort(row, kind="stable")]

    def moved(self, rows: np.ndarray, parents: Sequence[int], change: np.ndarray) -> Tensor:
        """[rows, d_in] the rows after the parents' values changed by `change` [rows, k], all else kept."""
        step = torch.from_numpy(change).to(self.x) @ self.directions[list(parents)]
        return self.x[torch.from_numpy(rows)] + step

    def tables(self, jobs: Sequence[Job], rows: int = 64, seed: int = 0) -> Iterator[SetTable]:
        """Each job's table, in order: half of `rows` rows where the output fires untouched, half where it does not.

        Rows where the output does not fire are taken beside its parents where possible: half of them with one on.
        """
        random = np.random.default_rng(seed)
        waiting: list[tuple[Job, np.ndarray, int, Tensor]] = []
        size = 0
        for job in jobs:
            chosen, was_on = self._rows(job, rows, random)
            x = torch.cat([self._set(job.parents, code, chosen) for code in job.codes])
            waiting.append((job, chosen, was_on, x))
            size += len(x)
            if size >= _CHUNK:
                yield from self._read(waiting)
                waiting, size = [], 0
        yield from self._read(waiting)

    def _rows(self, job: Job, rows: int, random: np.random.Generator) -> tuple[np.ndarray, int]:
        """Rows for a job, those on which the output fires first, and how many these are."""
        fires, silent = self.states(job.out)
        near = np.zeros(len(self.x), bool)
        for parent in job.parents:
            near[self.f_in.on(parent)[0]] = True
        on = _draw(np.flatnonzero(fires), rows // 2, random)
        beside = _draw(np.flatnonzero(silent & near), rows // 4, random)
        anywhere = _draw(np.flatnonzero(silent & ~near), rows // 2 - len(beside), random)
        return np.concatenate([on, beside, anywhere]), len(on)

    def _set(self, parents: Sequence[int], code: int, rows: np.ndarray) -> Tensor:
        """The rows with each parent switched to its bit of `code`; one that is as wanted keeps its value."""
        value = self.values(rows, parents)
        wanted_on = np.array([code >> j & 1 for j in range(len(parents))], bool)
        switched_on = np.where(value > 0, value, self.on_value[list(parents)])
        return self.moved(rows, parents, np.where(wanted_on, switched_on, np.minimum(value, 0)) - value)

    def _read(self, waiting: list[tuple[Job, np.ndarray, int, Tensor]]) -> Iterator[SetTable]:
        if not waiting:
            return
        x = torch.cat([x for *_, x in waiting])
        outs = torch.cat([torch.full((len(x),), job.out) for job, _, _, x in waiting])
        value = _picked(self._shown_outputs(x), outs).numpy()
        start = 0
        for job, rows, was_on, x_job in waiting:
            part = value[start : start + len(x_job)].reshape(len(job.codes), len(rows))
            start += len(x_job)
            yield SetTable(_cells(job, part[:, :was_on]), _cells(job, part[:, was_on:]))


def _picked(parts: Iterator[Tensor], outs: Int[Tensor, " rows"]) -> Float[Tensor, " rows"]:
    """One output feature of each row, from the features of all, a chunk at a time."""
    pairs = zip(parts, outs.split(_CHUNK), strict=True)
    return torch.cat([f.gather(1, out.to(f.device)[:, None])[:, 0].cpu() for f, out in pairs])


def _draw(rows: np.ndarray, count: int, random: np.random.Generator) -> np.ndarray:
    return rows if len(rows) <= count else random.choice(rows, count, replace=False)


def _cells(job: Job, value: np.ndarray) -> Cells:
    size = 1 << len(job.parents)
    count, fired, total = np.zeros(size), np.zeros(size), np.zeros(size)
    codes = list(job.codes)
    count[codes] = value.shape[1]
    fired[codes] = (value > 0).sum(1)
    total[codes] = np.maximum(value, 0).sum(1)
    return Cells(count, fired, total)


def patterns_to_set(rule: Rule, parents: int) -> list[int]:
    """All patterns of up to four parents; of more those that try the rule: none, each exciter alone, enough of them,
    one too few, all, each inhibitor beside enough, and each parent that the rule leaves out, alone and beside enough: that it
    does not matter is a claim too."""
    if parents <= 4:
        return list(range(1 << parents))
    exciters = [1 << j for j in rule.exciters]
    codes = {0, sum(exciters), *exciters}
    for first in range(len(exciters)):
        ring = exciters[first:] + exciters[:first]
        codes |= {sum(ring[: rule.at_least]), sum(ring[: rule.at_least - 1])}
    codes |= {sum(exciters[: rule.at_least]) | 1 << j for j in rule.inhibitors}
    codes |= {sum(exciters) | 1 << j for j in rule.inhibitors}
    left_out = [1 << j for j in range(parents) if not (rule.excite | rule.inhibit) >> j & 1]
    codes |= {beside | j for j in left_out for beside in (0, sum(exciters[: rule.at_least]))}
    return sorted(codes)
