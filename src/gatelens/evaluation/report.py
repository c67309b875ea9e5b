"""Report: every figure of a run, as a plain value."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from ..errors.door import at_the_door
from ..lazy import shows_itself
from .rule_counts import rates_line, removal_line, rules_sentence


@at_the_door
@shows_itself
@dataclass(frozen=True)
class Report:
    """What `report.json` holds; the keys are fixed, a figure that is missing is None.

    Accuracies, FVU, R2, MCC and shares have no unit (1 is all); cross-entropies ("ce") are in nats a token, l0 in features a row, times
    in seconds.

    Attributes:
        model: name, metric ("accuracy" or "ce"), clean, ablated (all segments' outputs replaced by their means); missing: why its own
            predictions could not be had, None where they were.
        bases: hook name -> kind, d_in, features, fvu, l0, dead, spliced (the metric with this dictionary in place), bypassed (how many
            inputs a linear map carries past its features).
        connectors: segment name -> solver, wires, fan-in, median_r2, fvu, replaced, gap_closed.
        all_replaced: the metric with every segment replaced, and with every dictionary spliced in.
        coverage: what share of each segment the verified gates explain, in one sentence and in figures.
        curves: segment name -> ablation recipe -> faithfulness and completeness against the wires kept.
        ladder, gates, baselines, rotations, timing_s, versions, seed: as named.

    Examples:
        >>> report = gl.evaluate(model, circuit, held_out, acts=unseen)
        >>> sorted(report.to_dict())[:3]
        ['all_replaced', 'baselines', 'bases']
        >>> report.bases["hook_resid"]["features"]
        96
    """

    model: Mapping[str, Any]
    bases: Mapping[str, Any]
    connectors: Mapping[str, Any]
    all_replaced: Mapping[str, Any]
    gates: Mapping[str, Any]
    ladder: Mapping[str, Any] = field(default_factory=dict)
    baselines: Mapping[str, Any] = field(default_factory=dict)
    rotations: Mapping[str, Any] = field(default_factory=dict)
    coverage: Mapping[str, Any] = field(default_factory=dict)
    curves: Mapping[str, Any] = field(default_factory=dict)
    timing_s: Mapping[str, float] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    seed: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, floats to six significant digits; NaN becomes None."""
        return _plain(asdict(self))

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row a figure: the section, the dotted name within it, and the value; what is missing stays so."""
        import pandas

        rows = [(section, *pair) for section, value in self.to_dict().items() for pair in _flat(value)]
        return pandas.DataFrame(rows, columns=["section", "figure", "value"])

    def numbers(self) -> dict[str, float]:
        """Every figure that is a number, by its dotted name: what a tracker keeps."""
        flat = _flat(self.to_dict())
        return {name: value for name, value in flat if isinstance(value, (int, float)) and not isinstance(value, bool)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Report:
        return cls(**{name: values[name] for name in cls.__dataclass_fields__ if name in values})

    def summary(self) -> str:
        """What was read, beside its controls; then what was replaced by how much, and what that cost."""
        metric, clean = self.model["metric"], self.model["clean"]
        wires = sum(c["edges"] for c in self.connectors.values())
        bypassed = sum(b.get("bypassed", 0) for b in self.bases.values())
        past = f" and a linear map of {bypassed:,} inputs past them" if bypassed else ""
        rules = rules_sentence(self.gates)
        if self.model.get("missing"):
            return (
                f"{rules} " if rules else ""
            ) + f"{wires:,} wires; {metric} was not measured: {self.model['missing']}."
        return (f"{rules} " if rules else "") + (
            f"With {len(self.connectors)} MLP{'s' if len(self.connectors) > 1 else ''} replaced by {wires:,} wires{past}, {metric} is "
            f"{show(self.all_replaced.get(metric))}{self._give_or_take()} (the model's own {show(clean)}, with the mean in their place "
            f"{show(self.model['ablated'])})."
        )

    def _give_or_take(self) -> str:
        """The interval over documents of the metric with everything replaced, and the tokens that it was measured on."""
        interval, tokens = self.all_replaced.get("interval"), self.model.get("tokens")
        if not interval:
            return ""
        on = f"; {tokens:,} tokens" if tokens else ""
        return f" [{show(interval[0])} to {show(interval[1])}{on}]"

    def __repr__(self) -> str:
        m = self.model
        lines = [
            *([self.coverage["sentence"]] if self.coverage else []),
            self.summary(),
            *(line for line in (rates_line(self.gates), removal_line(self.gates)) if line),
            "",
            f"{'dictionary':<32}{'features':>9}{'FVU':>8}{'L0':>8}{'dead':>7}{'spliced':>9}",
            *(
                f"{hook:<32}{show(b['features']):>9}{show(b['fvu']):>8}{show(b['l0']):>8}{show(b['dead']):>7}{show(b['spliced']):>9}"
                for hook, b in self.bases.items()
            ),
            "",
            f"{'connector':<32}{'wires':>9}{'max in':>8}{'R2':>8}{'FVU':>8}{m['metric'][:8]:>9}{'gap closed':>12}",
            *(
                f"{name:<32}{show(c['edges']):>9}{show(c['max_fan_in']):>8}{show(c['median_r2']):>8}{show(c['fvu']):>8}"
                f"{show(c['replaced']):>9}{show(c['gap_closed']):>12}"
                for name, c in self.connectors.items()
            ),
        ]
        if self.baselines:
            lines += [
                "",
                f"{'all replaced':<32}{'wires':>9}{'R2':>8}{m['metric'][:8]:>9}{'rules':>13}{'verified':>13}",
            ]
            lines.append(self._beside("this circuit", self._own()))
            lines += [self._beside(name, b) for name, b in self.baselines.items() if b]
        if self.rotations:
            lines += ["", *(f"rotation at {hook}: {found['verdict']}" for hook, found in self.rotations.items())]
        return "\n".join(lines)

    def _own(self) -> dict[str, Any]:
        r2 = [c["median_r2"] for c in self.connectors.values() if c["median_r2"] is not None]
        return {
            "edges": sum(c["edges"] for c in self.connectors.values()),
            "median_r2": sorted(r2)[len(r2) // 2] if r2 else None,
            "replaced": self.all_replaced.get(self.model["metric"]),
            **{key: sum(g[key] for g in self.gates.values()) for key in ("logic", "verified", "tried", "outputs")},
        }

    def _beside(self, name: str, b: Mapping[str, Any]) -> str:
        figures = f"{show(b.get('edges')):>9}{show(b.get('median_r2')):>8}{show(b.get('replaced')):>9}"
        gates = f"{_of(b.get('logic'), b.get('outputs')):>13}{_of(b.get('verified'), b.get('tried')):>13}"
        return f"{name.replace('_', ' '):<32}{figures}{gates}"


def show(x: Any) -> str:
    """A figure for a table: counts whole, others to three digits, `-` for one that is missing."""
    if x is None:
        return "-"
    if isinstance(x, int):
        return f"{x:,}"
    return f"{x:.3f}" if abs(x) < 1000 else f"{x:.0f}"


def _of(count: int | None, among: int | None) -> str:
    """A count and what it is out of, which a sample of outputs makes another number for each circuit."""
    return show(count) if count is None or among is None else f"{count:,} of {among:,}"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(v) for v in value]
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value


def _flat(value: Any, name: str = "") -> list[tuple[str, Any]]:
    """(dotted name, value) of everything within a mapping; lists stay whole."""
    if not isinstance(value, Mapping):
        return [(name, value)]
    return [pair for key, part in value.items() for pair in _flat(part, f"{name}.{key}" if name else str(key))]
