"""Figures of what outputs favour: agreement with the tokens that come next, and whether that goes with a rule."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from _layers import Layer
from _smollm import rows_kept

from gatelens.bench import Figure
from gatelens.gates.agreement import CLEAR, Agreement, Rows, agreement
from gatelens.gates.logit_effects import logit_effects
from gatelens.gates.stage import sparse_rows

#: t > 4 over documents; the same with the current token held; a rule that holds and agreement, and the most of the null's
BARS, BOTH = (0.38, 0.15), 0.18


def agreements(at: Layer, null: Layer) -> Iterator[Figure]:
    """Outputs that agree with what really comes next, beside an MLP of shuffled weights with a dictionary of its own."""
    real, other = (judged(layer) for layer in (at, null))
    bars = BARS if at.layer >= 20 else (None, None)
    found, beside = real.figures(), other.figures()
    for key, words, bar in (("agree", "agreement, t > 4 over documents", bars[0]),
                            ("agree_held", "the same, current token held fixed", bars[1])):  # fmt: skip
        opposite = key.replace("agree", "disagree")
        own = {"over its own null too": "agree_over_null"} if key == "agree" else {}
        yield Figure(
            f"layer {at.name}: outputs with {words}", found[key], bar,
            baselines={"weights shuffled row by row": beside[key], "disagree as clearly": found[opposite],
                       "disagree, shuffled": beside[opposite]}
            | {name: found[k] for name, k in own.items()} | {f"{name}, shuffled": beside[k] for name, k in own.items()},
            note=f"{found['outputs']} outputs on in 60 held-out rows or more (shuffled {beside['outputs']})",
        )  # fmt: skip
        if bar is not None:
            share = (beside[key] or 0) / found[key] if found[key] else None
            yield Figure(f"layer {at.name}: {words}: the shuffled MLP's share of it", share, 0.25, "lower")
    both, null_both = (_with_a_rule(layer, a) for layer, a in ((at, real), (null, other)))
    yield Figure(f"layer {at.name}: a rule that holds and agreement", both, BOTH if at.layer >= 20 else None,
                 baselines={"weights shuffled row by row": null_both},
                 note=f"of {len(at.sample)} eligible outputs (shuffled {len(null.sample)}), median level")  # fmt: skip


def judged(at: Layer) -> Agreement:
    """Over the held-out rows, position 0 and sinks left out."""
    effects: Any = logit_effects(at.model, at.whole.hook_out, at.basis_out.W_dec)
    f = sparse_rows(at.features[1][1])
    return agreement(effects, f, np.zeros(f.shape[1]), held_rows(at))


def held_rows(at: Layer) -> Rows:
    """Where the held-out rows stand; what comes next is told from all rows, those left out as well."""
    every, kept = Rows.of(at.acts[1]), rows_kept(at.acts[1], at.whole).numpy().nonzero()[0][: at.sizes.rows[1]]
    return Rows(*(part[kept] for part in (every.token, every.before, every.target, every.document)))


def _with_a_rule(at: Layer, found: Agreement) -> float | None:
    holds = np.array([g.read for g in at.read("median")])
    with np.errstate(invalid="ignore"):
        agrees = found.t[at.sample] > CLEAR
    return float((holds & agrees).mean()) if len(holds) else None
