"""What the table of peers measures of every form alike: error, activity, edits foreseen, the model with it in place, its rules."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from statistics import fmean
from typing import Any

import numpy as np
import scipy.sparse
import torch
from _layers import csr, no_wires
from _peer_forms import Form
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from gatelens.basis.linear import directions
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Library
from gatelens.edits.kinds import removal, subset
from gatelens.evaluation.figures import fvu, gap_closed
from gatelens.evaluation.splicing import blended
from gatelens.gates import type_gates
from gatelens.gates.stage import sparse_rows
from gatelens.models import run_hooked

#: features of a row that are tried one by one until one is found without which an output closes
_TRIES = 6


@dataclass
class Edits:
    """Rows before and after an edit, their codes, and what the model makes of the step."""

    x: tuple[Tensor, Tensor]
    f: tuple[Tensor, Tensor]
    change: Float[Tensor, "rows d_out"]

    def r2(self, form: Form) -> float | None:
        """1 - |error|^2 / |change|^2 of what the form says of the same step."""
        total = float(self.change.double().square().sum())
        if total == 0:
            return None
        said = form.rows(self.x[1], self.f[1]) - form.rows(self.x[0], self.f[0])
        return 1 - float((self.change - said).double().square().sum()) / total


def edits_of(segment: Any, basis_in: Any, outputs: Any, x: Float[Tensor, "rows d_in"], seed: int) -> dict[str, Edits]:
    """Single removals, random subsets, and restoring, for one dictionary of the input: the same rows and draws for all forms.

    Args:
        outputs: a dictionary of y. Restoring starts where the model itself closes one of its features for lack of a single input
            feature, and puts that one back.
    """
    codes = Codes.encode(basis_in, x)
    library, steps = Library.observed(codes), directions(basis_in, codes.width).to(x)
    generator, f = torch.Generator().manual_seed(seed), codes.dense()
    found = {}
    for name, kind in (("removals", removal), ("subsets", subset)):
        change = kind(codes, library, generator).change.dense()
        found[name] = _made(segment, (x, x + change @ steps), (f, f + change))
    change, rows = _decisive(segment, outputs, x, codes, library, steps, generator)
    x, f, change = x[rows], f[rows], change[rows]
    found["restoring"] = _made(segment, (x + change @ steps, x), (f + change, f))
    return found


def _made(segment: Any, x: tuple[Tensor, Tensor], f: tuple[Tensor, Tensor]) -> Edits:
    return Edits(x, f, segment.outputs(x[1]) - segment.outputs(x[0]))


def _decisive(
    segment: Any, outputs: Any, x: Tensor, codes: Codes, library: Library, steps: Tensor, generator: torch.Generator
) -> tuple[Float[Tensor, "rows m"], Bool[Tensor, " rows"]]:
    """One removal a row without which some output closes in the model, and the rows in which one was found."""
    with torch.no_grad():
        was = outputs.encode(segment.outputs(x)) > 0
    found, done = torch.zeros(len(x), codes.width), torch.zeros(len(x), dtype=torch.bool)
    for _ in range(_TRIES):
        change = removal(codes, library, generator).change.dense()
        with torch.no_grad():
            now = outputs.encode(segment.outputs(x + change @ steps)) > 0
        closes = (was & ~now).any(1) & ~done
        found[closes], done = change[closes], done | closes
    return found, done


def explained(form: Form, x: Tensor, y: Tensor, f: Tensor) -> dict[str, float | None]:
    """FVU of y, and how many outputs are on in a row."""
    on = None
    if form.features is not None:
        with torch.no_grad():
            parts = [(form.features(a, b) != 0).sum() for a, b in zip(x.split(1_024), f.split(1_024), strict=True)]
        on = float(sum(parts)) / len(x)
    return {"fvu": fvu(y, form.rows(x, f)), "l0": on}


def seconds_a_row(form: Form, basis_in: Any, x: Tensor) -> float:
    """Of the processor, with the code that is read; the best of three."""
    best = float("inf")
    for _ in range(3):
        began = time.process_time()
        with torch.no_grad():
            form.rows(x, basis_in.encode(x))
        best = min(best, time.process_time() - began)
    return best / len(x)


# ---- the model with the form in place


@dataclass
class Judge:
    """A model's predictions on held-out batches with a segment replaced where `counts` says so, against its own.

    Attributes:
        counts: (batch, the segment's own output) -> where it is replaced; elsewhere (BOS, the first token, sinks) the model's stays.
        mean: of the output on fitting rows: what ablation puts there.
    """

    model: Any
    batches: Any
    segment: Any
    counts: Callable[[Any, Tensor], Bool[Tensor, "..."]]
    mean: Float[Tensor, " d_out"]
    metric: str = "ce"
    kept: float = 0.0

    @cached_property
    def clean(self) -> list[tuple[Tensor, Tensor]]:
        """(log-probabilities, targets) of each batch, where there is something to predict."""
        found = []
        with torch.no_grad():
            for batch in self.batches:
                known = batch.targets >= 0
                logits = run_hooked(self.model, batch.inputs, batch.mask)
                found.append((F.log_softmax(logits[known].float(), -1), batch.targets[known]))
        return found

    @cached_property
    def bounds(self) -> tuple[float, float]:
        """The metric of the model as it is, and with the output at its mean."""
        own = fmean(self._score(p, t) for p, t in self.clean)
        return own, self._replaced(lambda x: self.mean.expand(len(x), -1))["metric"]

    def of(self, form: Form, basis_in: Any) -> dict[str, float | None]:
        """The metric, the share of the gap that is closed, and KL in nats from the model's own predictions."""
        clean, ablated = self.bounds
        found = self._replaced(lambda x: form.rows(x, basis_in.encode(x)))
        return found | {"gap_closed": gap_closed(clean, ablated, found["metric"])}

    def _replaced(self, predict: Callable[[Tensor], Tensor]) -> dict[str, float]:
        score, kl, count, replaced = 0.0, 0.0, 0, []
        for batch, (clean, targets) in zip(self.batches, self.clean, strict=True):
            known, seen = batch.targets >= 0, []

            def read(value: Tensor, hook: Any = None, seen: list[Tensor] = seen) -> None:
                seen[:] = [value]

            def write(value: Tensor, hook: Any = None, batch: Any = batch, seen: list[Tensor] = seen) -> Tensor:
                keep = self.counts(batch, value)
                replaced.append(float(keep.float().mean()))
                return blended(predict(seen[0].reshape(-1, self.segment.d_in)), value, keep)

            hooks = [(self.segment.hook_in, read), (self.segment.hook_out, write)]
            with torch.no_grad():
                logits = run_hooked(self.model, batch.inputs, batch.mask, hooks)[known]
                now = F.log_softmax(logits.float(), -1)
            score, count = score + self._score(now, targets) * len(targets), count + len(targets)
            kl += float(F.kl_div(now, clean, reduction="sum", log_target=True))
        self.kept = 1 - fmean(replaced)
        return {"metric": score / count, "kl": kl / count}

    def _score(self, logp: Tensor, targets: Tensor) -> float:
        if self.metric == "accuracy":
            return float((logp.argmax(-1) == targets).float().mean())
        return float(F.nll_loss(logp, targets))


# ---- rules


@dataclass(frozen=True)
class Reading:
    """How much is read of a form: outputs drawn, rules of these set in the model, fitting and held-out rows."""

    outputs: int = 60
    tried: int = 12
    rows: tuple[int, int] = (20_000, 6_000)
    firings: tuple[int, int] = (40, 20)


def rules(
    form: Form, segment: Any, codes: Mapping[str, Tensor], x: Mapping[str, Tensor], reading: Reading, seed: int
) -> dict[str, float | None]:
    """Of outputs drawn at random: the share with a rule of held-out MCC over .5 at the median level; of rules set in the model the
    share that is verified, and the same for unrelated features.

    Args:
        codes, x: "fit" and "held": codes (dense) and rows.
    """
    f_in = {part: csr(sparse_rows(codes[part])) for part in codes}
    f_out = {part: _features(form, x[part], codes[part]) for part in codes}
    fitted, held = (np.bincount(f_out[p].indices, minlength=f_out[p].shape[1]) for p in ("fit", "held"))
    eligible = np.flatnonzero(
        (fitted >= reading.firings[0]) & (held >= reading.firings[1]) & (fitted < 0.2 * f_out["fit"].shape[0])
    )
    if not len(eligible):
        return {"rules": None, "verified": None, "control": None}
    outs = sorted(np.random.default_rng(seed).permutation(eligible)[: reading.outputs].tolist())
    y, z = (_only(f_out[part], outs) for part in ("fit", "held"))
    gates = type_gates(
        no_wires(f_in["fit"], y), f_in["fit"], y, held_out=(f_in["held"], z), levels="median", seed=seed, segment=segment,
        basis_in=form.basis_in, basis_out=form.basis_out, x=x["held"], x_fit=x["fit"], require_verified=False,
        tried_at_most=reading.tried, progress=False,
    )  # fmt: skip
    mcc = [gates[out].mcc for out in outs]
    tried = [t for out in outs if (t := gates[out].tried) is not None]
    judged = [gates[out].verified for out in outs if gates[out].verified is not None]
    return {
        "rules": fmean(m is not None and m > 0.5 for m in mcc),
        "verified": fmean(judged) if judged else None,
        "control": fmean(_by_chance(t) for t in tried) if tried else None,
    }


def _by_chance(tried: Any) -> bool:
    rates = [r for r in tried.control.values() if r is not None]
    return bool(rates) and all(r > 0.5 for r in rates)


def _features(form: Form, x: Tensor, f: Tensor) -> scipy.sparse.csr_matrix:
    if form.features is None:
        raise ValueError("a form without outputs has no rules")
    with torch.no_grad():
        parts = [sparse_rows(form.features(a, b)) for a, b in zip(x.split(1_024), f.split(1_024), strict=True)]
    return scipy.sparse.vstack(parts, format="csr")


def _only(f: scipy.sparse.csr_matrix, some: list[int]) -> Tensor:
    kept = f.copy()
    kept.data = kept.data * np.isin(kept.indices, some)
    kept.eliminate_zeros()
    return csr(kept)
