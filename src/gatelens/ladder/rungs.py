"""The ladder as a value: its rungs, their figures, and how they are printed."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

FIGURES = (
    "fvu", "metric", "read", "median_r2", "over_half", "over_07", "removals", "subsets", "restoring", "patches", "on_off", "opened",
    "edges", "fan_in", "l0", "true_l0", "seconds",
)  # fmt: skip
#: what a short heading stands for
MEANING = {
    "fvu": "fraction of the variance of y that is left",
    "metric": "accuracy or CE with the MLP replaced",
    "read": "share of outputs whose truth table has a held-out MCC over .5",
    "median_r2": "median R2 of output features",
    "over_half": "share of outputs with R2 > .5",
    "over_07": "share of outputs with R2 > .7",
    "removals": "R2 of the predicted change in y, one active feature removed",
    "subsets": "the same, each active feature dropped with p = .4",
    "restoring": "the same, a removed feature put back into its own row, where an output was closed only for its lack",
    "additions": "the same, one feature put in at random",
    "patches": "the same, a quarter of the active features exchanged for another row's",
    "on_off": "share of predicted on -> off flips that the model makes (subsets)",
    "opened": "share of predicted off -> on flips that it makes (restoring)",
    "off_on": "the same for features put in at random",
    "l0": "predicted active outputs a row",
    "true_l0": "true ones",
}


@dataclass(frozen=True)
class Ladder:
    """rung -> figures; a figure that does not exist for a rung is None.

    Attributes:
        segment: its name. rungs: in the order in which they are shown. rows: held-out rows behind the figures.
    """

    segment: str
    rungs: Mapping[str, Mapping[str, float | None]]
    rows: int = 0

    def to_dict(self) -> dict[str, dict[str, float | None]]:
        """Plain JSON values, six significant digits."""
        return {name: {k: _plain(v) for k, v in figures.items()} for name, figures in self.rungs.items()}

    def beside(self, other: Ladder, prefix: str) -> Ladder:
        """This ladder with the rungs of another (a random-weight model's, say) under it."""
        return Ladder(self.segment, {**self.rungs, **{f"{prefix}: {n}": f for n, f in other.rungs.items()}}, self.rows)

    def __getitem__(self, rung: str) -> Mapping[str, float | None]:
        return self.rungs[rung]

    def __repr__(self) -> str:
        shown = [f for f in FIGURES if any(r.get(f) is not None for r in self.rungs.values())]
        wide = max((len(n) for n in self.rungs), default=4) + 2
        head = f"{'':<{wide}}" + "".join(f"{f:>{max(8, len(f) + 2)}}" for f in shown)
        lines = [
            f"{name:<{wide}}" + "".join(f"{_short(r.get(f)):>{max(8, len(f) + 2)}}" for f in shown)
            for name, r in self.rungs.items()
        ]
        return "\n".join([f"Ladder of {self.segment}, {self.rows:,} held-out rows", head, *lines])


def _plain(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else float(f"{value:.6g}")


def _short(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "-"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
