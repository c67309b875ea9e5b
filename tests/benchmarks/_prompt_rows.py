"""Local readings over many rows: how well a row's q strongest features, put through the model's own MLP, foresee edits of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from gatelens.basis import directions
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Library
from gatelens.edits.kinds import addition, removal, subset
from gatelens.prompts.rows import Row
from gatelens.segments import MLPWeights, Segment

EDITS = {"single removals": removal, "random subsets": subset, "additions": addition}
ROWS = 1_000


@dataclass(frozen=True)
class LocalFigures:
    """R2 of the predicted change of y for each kind of edit, and FVU of y itself, by what is left of a row.

    Attributes:
        r2: (what is left, whether the error is kept) -> edit -> R2. fvu: of y, by the same keys.
        needed: q that reaches .9 of the MLP's output: the mean over rows. active: features of a row.
    """

    r2: Mapping[tuple[str, bool], Mapping[str, float]]
    fvu: Mapping[tuple[str, bool], float]
    needed: float
    active: float


def local_figures(
    forward: Callable[[Tensor], Tensor], basis: Any, x: Tensor, qs: tuple[int, ...] = (8, 16), seed: int = 0
) -> LocalFigures:
    """Edits of held-out rows; the model makes them on the whole row, error and all, the reading on what is left of its code."""
    codes = Codes.encode(basis, x)
    library = Library.of(codes)
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(x), generator=draw)[:ROWS]
    codes, x = codes.rows(rows), x[rows]
    table = directions(basis, codes.width).float()
    with torch.no_grad():
        bias = basis.decode(torch.zeros(1, codes.width))[0]
        y = forward(x)
    error = x - bias - codes.times(table)
    lefts = {"whole code": torch.ones(len(codes.col), dtype=torch.bool)}
    for q in qs:
        lefts[f"{q} strongest"] = _ranked(codes, table, None) < q
        lefts[f"{q} random"] = _ranked(codes, table, draw) < q
    edits = {name: edit(codes, library, draw) for name, edit in EDITS.items()}
    true = {name: forward(x + edit.change.times(table)).detach() - y for name, edit in edits.items()}
    r2, fvu = {}, {}
    for name, kept in lefts.items():
        few = _some(codes, kept)
        for keep in (False, True):
            base = bias + (error if keep else 0)
            with torch.no_grad():
                before = forward(base + few.times(table))
                fvu[name, keep] = float((before - y).square().sum() / (y - y.mean(0)).square().sum())
                r2[name, keep] = {}
                for edit_name, edit in edits.items():
                    change = _within(edit.change, few)
                    said = forward(base + few.times(table) + change.times(table)) - before
                    missed = (true[edit_name] - said).square().sum() / true[edit_name].square().sum()
                    r2[name, keep][edit_name] = float(1 - missed)
    needed = [_needed(forward, row, codes.rows(torch.tensor([i])), table, bias) for i, row in enumerate(x[:300])]
    return LocalFigures(r2, fvu, sum(needed) / len(needed), len(codes.col) / len(codes))


def shuffled_row_wise(segment: Segment, seed: int = 0) -> Segment:
    """The segment with the entries of each row of its MLP's matrices in another order: the scale of each input stays."""
    draw = torch.Generator().manual_seed(seed)

    def mixed(matrix: Tensor | None) -> Tensor | None:
        return None if matrix is None else matrix.gather(1, torch.rand(matrix.shape, generator=draw).argsort(1))

    mlp = segment.mlp
    assert mlp is not None
    weights = MLPWeights(mixed(mlp.W_in), mlp.b_in, mixed(mlp.W_out), mlp.b_out, mlp.act, mixed(mlp.W_gate))
    return replace(
        segment, mlp=weights, forward=weights if segment.prenorm is None else _behind(segment.prenorm, weights)
    )


def _behind(prenorm: Any, weights: MLPWeights) -> Callable[[Tensor], Tensor]:
    return lambda x: weights(prenorm(x))


def _ranked(codes: Codes, table: Tensor, draw: torch.Generator | None) -> Tensor:
    """The rank of each entry within its row: by the length of its step, or at random."""
    size = codes.value * table[codes.col].norm(dim=1) if draw is None else torch.rand(len(codes.col), generator=draw)
    order = torch.argsort(size, descending=True, stable=True)
    order = order[torch.argsort(codes.row[order], stable=True)]
    rank = torch.empty_like(order)
    rank[order] = torch.arange(len(order)) - codes.crow[:-1][codes.row[order]]
    return rank


def _some(codes: Codes, kept: Tensor) -> Codes:
    return Codes.from_entries(codes.row[kept], codes.col[kept], codes.value[kept], len(codes), codes.width)


def _within(change: Codes, few: Codes) -> Codes:
    """What an edit changes in the features that are left: a removal of one that is not there does nothing."""
    there = torch.isin(change.row * change.width + change.col, few.row * few.width + few.col)
    return _some(change, there | (change.value > 0))


def _needed(forward: Callable[[Tensor], Tensor], x: Tensor, code: Codes, table: Tensor, bias: Tensor) -> int:
    return Row.of(forward, x, code.dense()[0], table, bias, keep_error=False).few(0.9)
