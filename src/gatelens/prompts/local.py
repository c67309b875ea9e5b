"""The local reading of one output at one position: the model's own MLP on every subset of the few features that decide there."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError
from ..gates import Gate
from ..lazy import shows_itself
from .literals import grade_of, output_level, rule_of, says_on
from .local_rule import LocalRule, agreement
from .outputs import Output, slope
from .rows import Row
from .subsets import PairsFit, Terms, every_subset, fit_pairs, on_subsets

#: subsets of more features than these are not asked
MOST = 10
#: balanced agreement from which a local rule and a gate count as saying the same
AGREES = 0.8


@shows_itself
@dataclass(frozen=True, eq=False)
class LocalReading:
    """Why one output is on or off at one position, asked of the model's own MLP.

    Attributes:
        out, where: the output feature; the position in words. came: its value in the row; few: on the table's full subset.
        active, q, share: active features of the row; how many of the strongest are taken; what share of the MLP's output
            (as all features together give it) these reach alone, and `wanted` was asked for.
        keep_error: whether the part of the row that no feature explains stays in.
        features, names, amounts: [k] those that are varied, the most telling first, and their values in the row.
        held: whether the other q - k stay on: they do where the k alone do not give what the q give.
        values: [2^k] the output on every subset; bit j of the place: feature j is on.
        terms, fit: exact terms of that table; how far pairs go.
        slopes: [k] what each feature's share is by the local Jacobian: derivative at the row times its value.
        rule: what the table says. gate: the circuit's reading of the output. agreement: how often the gate's rule gives the
            table's answer (mean over open and closed subsets); None without a rule.
    """

    out: int
    where: str
    came: float
    few: float
    active: int
    q: int
    share: float
    wanted: float
    keep_error: bool
    features: tuple[int, ...]
    names: tuple[str, ...]
    amounts: tuple[float, ...]
    held: bool
    values: Float[np.ndarray, " subsets"]
    terms: Terms
    fit: PairsFit
    slopes: Float[np.ndarray, " k"]
    rule: LocalRule
    gate: Gate | None
    agreement: float | None

    @property
    def agrees(self) -> bool | None:
        """Whether the gate and the local rule say the same; None without a gate's rule."""
        return None if self.agreement is None else self.agreement >= AGREES

    @property
    def words(self) -> str:
        """The local rule in plain English."""
        return self.rule.words(self.names) if self.names else "no feature is active here"

    def __repr__(self) -> str:
        error = "what no feature explains kept" if self.keep_error else "what no feature explains left out"
        k = len(self.features)
        held = f", the other {self.q - k} stay {'on' if self.held else 'off'}" if self.q > k else ""
        alone = self.q if self.held else k
        lines = [
            f"OF_{self.out} at {self.where}: {self.came:.3g} came, {self.few:.3g} from {alone} features alone",
            f"  {self.q} of {self.active} active features reach {self.share:.0%} of what the MLP does here ({error}); "
            f"{k} varied{held}",
            f"  {self.words}",
            f"  (the model's own MLP on {len(self.values)} subsets: open on {self.rule.share:.0%})",
        ]
        lines += [
            f"    {name:<24} {amount:6.3g} on   Shapley {shapley:+.3g}   slope {slope:+.3g}"
            for name, amount, shapley, slope in zip(
                self.names, self.amounts, self.terms.shapley, self.slopes, strict=True
            )
        ]
        # terms of many features only mend what the threshold does to those of fewer
        together = [(s, t) for s, t in self.terms.strongest(len(self.values)) if len(s) == 2][:2]
        lines += [f"    {' and '.join(self.names[j] for j in s)} together {term:+.3g}" for s, term in together]
        return "\n".join([*lines, f"  {self._pairs()}", f"  {self._beside()}"])

    def _pairs(self) -> str:
        def shown(x: float | None) -> str:
            return "-" if x is None else f"{x:.2f}"

        f = self.fit
        return (
            f"pairs fitted on {f.calls} subsets: R2 {shown(f.r2)} (single features {shown(f.singles_r2)}, "
            f"exact terms cut at pairs {shown(f.exact_r2)}; the terms themselves {shown(f.terms_r2)})"
        )

    def _beside(self) -> str:
        rule = rule_of(self.gate)
        if rule is None or self.agreement is None:
            return "the circuit has no rule for this output"
        same = "they agree" if self.agrees else "they differ"
        return f"the gate says: {rule} ({grade_of(self.gate)}); same answer on {self.agreement:.0%}: {same}"

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words."""
        rule = rule_of(self.gate)
        return {
            "out": self.out,
            "where": self.where,
            "came": self.came,
            "from_few": self.few,
            "active": self.active,
            "q": self.q,
            "share": self.share,
            "error_kept": self.keep_error,
            "others_on": self.held,
            "features": [
                {"feature": f, "name": n, "value": v, "shapley": float(s), "slope": float(d)}
                for f, n, v, s, d in zip(
                    self.features, self.names, self.amounts, self.terms.shapley, self.slopes, strict=True
                )
            ],
            "table": [float(v) for v in self.values],
            "harsanyi": [float(v) for v in self.terms.harsanyi],
            "pairs": vars(self.fit),
            "words": self.words,
            "kind": None if self.rule.kind is None else str(self.rule.kind),
            "gate": None if rule is None else str(rule),
            "agreement": self.agreement,
            "agrees": self.agrees,
        }


def local_reading(
    row: Row,
    x: Float[Tensor, " d_in"],
    output: Output,
    out: int,
    came: float,
    *,
    where: str = "",
    name: Callable[[int], str] = "IF_{}".format,
    gate: Gate | None = None,
    width: int = 0,
    k: int = MOST,
    share: float = 0.9,
) -> LocalReading:
    """The reading of one output at one row.

    Args:
        row: the row taken apart. x: as it is. came: the output's value there.
        width: of the input's dictionary, for the gate's rule.
        k: features that are varied at most. share: of the MLP's output that the strongest features are to reach alone.

    Raises:
        ConfigError: k outside 1..10, a share outside 0..1.
    """
    if not 1 <= k <= MOST or not 0 < share <= 1:
        raise ConfigError(f"why: k must be 1..{MOST} and share over 0, at most 1; got k={k}, share={share:g}")
    q = row.few(share)

    def read(rows: Tensor) -> Tensor:
        return output.read(rows, row.forward(rows))

    telling = _telling(row, output, q)[:k]
    rest = torch.tensor([j for j in range(q) if j not in telling.tolist()], dtype=torch.long)
    held = len(rest) > 0 and _hold(row, read, telling, q, output_level(gate))
    rest = rest if held else rest[:0]
    base = row.base + row.steps[rest].sum(0)
    subsets = every_subset(len(telling))
    values = on_subsets(read, base, row.steps[telling], subsets)
    opened = values > output_level(gate)
    features, amounts = row.features[telling], row.values[telling]
    steps = (row.steps[telling] @ slope(row.forward, output, x)).double().cpu().numpy()
    return LocalReading(
        out=out,
        where=where,
        came=came,
        few=float(values[-1]),
        active=len(row),
        q=q,
        share=float(row.reached[q]),
        wanted=share,
        keep_error=row.keep_error,
        features=tuple(features.tolist()),
        names=tuple(name(f) for f in features.tolist()),
        amounts=tuple(amounts.tolist()),
        held=held,
        values=values,
        terms=Terms.of(values),
        fit=fit_pairs(values),
        slopes=steps,
        rule=LocalRule.of(opened),
        gate=gate,
        agreement=_beside(gate, row, telling, rest, subsets, opened, width),
    )


def _telling(row: Row, output: Output, q: int) -> Tensor:
    """The q strongest features in the order of how much each moves the output, taken from the q or put in alone."""
    whole, steps = row.strongest(q), row.steps[:q]
    rows = torch.cat([whole[None], whole - steps, row.base[None], row.base + steps])
    with torch.no_grad():
        y = row.forward(rows)
        moved = output.read(rows, y)
        # below its threshold the output shows nothing: its drive says what would move it
        drive = y @ output.drive.to(y) if output.drive is not None else moved
    size = torch.zeros(q, dtype=torch.float64)
    for value, weight in ((moved, 1.0), (drive, 1e-3)):
        value = value.double().cpu()
        one, two = value[1 : q + 1] - value[0], value[q + 2 :] - value[q + 1]
        size += weight * torch.maximum(one.abs(), two.abs())
    return torch.argsort(size, descending=True, stable=True)


def _hold(row: Row, read: Callable[[Tensor], Tensor], telling: Tensor, q: int, level: float) -> bool:
    """Whether the less telling of the q features are needed: the telling ones alone give another state, or under half the value."""
    with torch.no_grad():
        whole, alone = read(torch.stack([row.strongest(q), row.base + row.steps[telling].sum(0)])).tolist()
    return (alone > level) != (whole > level) or (whole > level and alone < whole / 2)


def _beside(
    gate: Gate | None, row: Row, varied: Tensor, held: Tensor, subsets: np.ndarray, opened: np.ndarray, width: int
) -> float | None:
    """How often the gate's rule gives the table's answer on the table's own subsets."""
    rule = rule_of(gate)
    if rule is None:
        return None
    f = torch.zeros(len(subsets), width)
    f[:, row.features[varied]] = torch.from_numpy(subsets).float() * row.values[varied].float().cpu()
    f[:, row.features[held]] = row.values[held].float().cpu()
    return agreement(opened, says_on(rule, f).numpy())
