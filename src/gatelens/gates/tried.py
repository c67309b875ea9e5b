"""Tried: what a gate keeps of its verification, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .group_trials import Rates
from .verification import Verification


@dataclass(frozen=True)
class Tried:
    """A rule tried in the model.

    Attributes:
        rates: on_on (stays on), off_off, on_off, off_on: shares as the rule says, its literals set with their companions; control: the same
            of unrelated features; alone: of the literals without companions. None where nothing was tried.
        on_rows, off_rows: rows of either kind; passes: rows that went through the segment.
        companions: of each literal, the features set with it.
        interchange, placebo, shuffled: accuracy with the literals' part of another row swapped in, with random features swapped, and
            with donors dealt out at random; interval: of the first less the second.
        subsets, worst_subset: share of rows that stay as the rule says with random features outside it switched off, over all
            64 subsets and under the worst.
        left_out: what natural rows hold against the rule, and the model's answer, in words.
        detection, detection_tokens: balanced accuracy of the rule as a label, and of the output's top tokens.
    """

    rates: Mapping[str, float | None]
    control: Mapping[str, float | None]
    alone: Mapping[str, float | None]
    on_rows: int
    off_rows: int
    passes: int
    companions: tuple[tuple[int, ...], ...] = ()
    interchange: float | None = None
    placebo: float | None = None
    shuffled: float | None = None
    interval: tuple[float, float] = (-1.0, 1.0)
    subsets: float | None = None
    worst_subset: float | None = None
    left_out: tuple[str, ...] = ()
    detection: float | None = None
    detection_tokens: float | None = None

    @classmethod
    def of(cls, found: Verification) -> Tried:
        return cls(
            *(_shares(rates) for rates in (found.trial.rates, found.trial.control, found.trial.alone)),
            on_rows=found.trial.on_rows,
            off_rows=found.trial.off_rows,
            passes=found.passes,
            companions=found.companions,
            interchange=found.interchange.accuracy.share,
            placebo=found.interchange.placebo.share,
            shuffled=found.interchange.shuffled.share,
            interval=found.interchange.interval,
            subsets=found.subsets.every.share,
            worst_subset=found.subsets.worst.share,
            left_out=tuple(map(str, found.left_out)),
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; `from_json` reads them back to the same value."""
        values = dict(vars(self))
        values["companions"] = [list(c) for c in self.companions]
        return {
            k: list(v) if isinstance(v, tuple) else dict(v) if isinstance(v, Mapping) else v for k, v in values.items()
        }

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Tried:
        known: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        known["companions"] = tuple(tuple(c) for c in values.get("companions", ()))
        return cls(**known)


def _shares(rates: Rates) -> dict[str, float | None]:
    return {name: rate.share for name, rate in rates.items()}
