"""Rules found again: the same rows, another seed of the output's dictionary."""

from __future__ import annotations

from collections.abc import Iterator
from statistics import fmean
from typing import Any

import numpy as np
from _layers import Layer

from gatelens.bench import Figure
from gatelens.gates import Gate

#: directions that are so alike are of the same output; rules that share so many of their features are the same
ALIKE, SHARED = 0.7, 0.5


def found_again(at: Layer, other: Layer) -> Iterator[Figure]:
    """Of outputs that have a counterpart in the other dictionary and a rule that holds: is the counterpart's the same rule?"""
    ours, theirs = (_directions(layer.basis_out) for layer in (at, other))
    gates = {at.sample[g.out]: g for g in at.read("median") if g.read and g.rule is not None}
    alike = ours[list(gates)] @ theirs.T
    alive = np.zeros(len(theirs), bool)
    alive[other.eligible] = True
    alike[:, ~alive] = -1.0
    best = alike.argmax(1)
    pairs = {out: int(b) for out, b, a in zip(gates, best, alike.max(1), strict=True) if a >= ALIKE}
    other.__dict__["sample"] = sorted(set(pairs.values()))
    found = {other.sample[g.out]: g for g in other.read("median")}
    same = [_same(gates[out], found[twin]) for out, twin in pairs.items()]
    turned = np.roll(list(pairs.values()), 1).tolist()
    by_chance = [_same(gates[out], found[twin]) for out, twin in zip(pairs, turned, strict=True)]
    yield Figure(
        f"layer {at.name}: rules found again with another seed of the output's dictionary", fmean(same) if same else None,
        baselines={"rules of other outputs": fmean(by_chance) if same else None,
                   "the counterpart's holds too": fmean(found[t].read for t in pairs.values()) if same else None,
                   "outputs that have a counterpart": len(pairs) / max(len(gates), 1)},
        note=f"{len(pairs)} outputs with a counterpart (cosine {ALIKE} or more) of {len(gates)} whose rule holds; the same where half "
        "of the features of both rules are shared; the input's dictionary is the same; median level",
    )  # fmt: skip


def _directions(basis: Any) -> np.ndarray:
    d = basis.W_dec.detach().cpu().float().numpy()
    return d / np.maximum(np.linalg.norm(d, axis=1, keepdims=True), 1e-9)


def _same(a: Gate, b: Gate) -> bool:
    if a.rule is None or b.rule is None:
        return False
    mine, other = set(a.rule.features), set(b.rule.features)
    return len(mine & other) >= SHARED * len(mine | other)
