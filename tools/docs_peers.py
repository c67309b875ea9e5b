"""The results page's part on `gatelens bench peers`: a table a model, and a plot of what few inputs cost, both from the JSON alone."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gatelens.views.ink import COLOURS, inked

#: heading -> key of a row, and digits behind the point where it has a fixed number of them
COLUMNS = {
    "FVU": "value", "spread": "FVU, largest less smallest over seeds",
    "metric": "metric", "gap closed": "gap closed", "KL": "KL", "L0": "L0", "inputs": "inputs an output",
    "weights": "weights", "removals": "removals", "subsets": "subsets", "restoring": "restoring", "rules": "rules",
    "verified": "verified", "control": "control", "s to fit": "seconds to fit", "ms a row": "seconds a token",
}  # fmt: skip
LEGEND = (
    "FVU: share of the variance of y that is left, the middle of the seeds; spread: its largest less its smallest value over them. "
    "Metric: cross-entropy in nats (accuracy for pictures) with the MLP replaced; gap "
    "closed: of what its mean in its place costs; KL from the model's own predictions. L0: outputs on a row. Inputs: of an output, in the "
    "mean. Removals, subsets, restoring: R2 of the predicted change in y when one feature goes, each goes with p = .4, one comes back "
    "where an output of the model was closed only for its lack. Rules: outputs with a rule of held-out MCC over .5 at the median level; "
    "verified: of those set in the model, and the same for unrelated features. Seconds are of one processor core. A dash was not "
    "measured; the note says why. In the plots gates are blue; a hollow mark has a dense linear "
    "map beside its outputs."
)


def parts(figures: Sequence[Mapping[str, Any]]) -> tuple[dict[str, list[Mapping[str, Any]]], list[Mapping[str, Any]]]:
    """model -> its rows, and the figures that are none: those with a bar, and models that could not be measured."""
    tables: dict[str, list[Mapping[str, Any]]] = {}
    rest = []
    for figure in figures:
        if "weights" not in figure["baselines"]:
            rest.append(figure)
            continue
        model = figure["name"].split(": ", 1)[0]
        tables.setdefault(model, []).append(figure)
    return tables, rest


def tables(found: Mapping[str, Sequence[Mapping[str, Any]]], models: Mapping[str, Any]) -> str:
    """Markdown of all models; `models`: what the JSON says of their rows, sinks and sizes."""
    return "\n\n".join([LEGEND, *(_model(name, rows, models.get(name, {})) for name, rows in found.items())])


def _about(model: Mapping[str, Any]) -> str:
    """Rows, sinks, sizes, learning rates, in a line."""
    sizes = model.get("sizes", {})
    rows = model.get("rows", ["?", "?"])
    rates = ", ".join(f"{name} {rate:g}" for name, rate in model.get("rates", {}).items())
    clean, ablated = model.get("as it is, ablated") or (None, None)
    parts = [
        f"{rows[0]:,} fitting and {rows[1]:,} held-out rows, {model.get('sinks', 0):.1%} of them left out as sinks, BOS or first token",
        "" if not model.get("left to the model") else f"{model['left to the model']:.1%} of positions keep the model's value",
        f"{sizes['d_sae']:,} outputs, {sizes['l0']} of them on; dictionaries see {sizes['samples']:,} rows, gates {sizes['pairs']:,} pairs",
        f"input dictionary {model.get('input dictionary', '?')}",
        f"learning rates chosen: {rates}" if rates else "",
        f"seeds: {model['seeds of most rows']}" if "seeds of most rows" in model else "",
        "" if clean is None else f"metric of the model {clean:.3f}, with the output at its mean {ablated:.3f}",
    ]  # fmt: skip
    return "; ".join(part for part in parts if part) + "."


def _model(name: str, rows: Sequence[Mapping[str, Any]], model: Mapping[str, Any]) -> str:
    if all(row["value"] is None for row in rows):
        return f"### {name}\n\nNot run yet: `gatelens bench peers --only {name}`."
    kept = {head: key for head, key in COLUMNS.items() if any(_value(row, key) is not None for row in rows)}
    lines = ["| | form | " + " | ".join(kept) + " |", "|---" * (len(kept) + 2) + "|"]
    for number, row in enumerate(rows, 1):
        form = row["name"].split(": ", 1)[1] + (f"<br><small>{row['note']}</small>" if row.get("note") else "")
        cells = [_shown(head, _value(row, key)) for head, key in kept.items()]
        lines.append(f"| {number} | {form.replace('|', chr(92) + '|')} | " + " | ".join(cells) + " |")
    return "\n\n".join([f"### {name}", _about(model) if model else "", "\n".join(lines), f"<div>{plot(rows)}</div>"])


def _value(row: Mapping[str, Any], key: str) -> float | None:
    return row["value"] if key == "value" else row["baselines"].get(key)


def _shown(head: str, value: float | None) -> str:
    if value is None:
        return "–"
    if head == "FVU":
        return f"**{value:.3g}**"
    if head == "spread":
        return f"{value:.2g}"
    if head == "ms a row":
        return f"{1e3 * value:.2g}"
    if head in ("weights", "s to fit", "inputs"):
        return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"
    return f"{value:.3g}"


def plot(rows: Sequence[Mapping[str, Any]]) -> str:
    """FVU against inputs an output, and removals against FVU: one mark a row, by its number in the table. One line of SVG."""
    with inked(7.6, 3.2) as (figure, result):
        left, right = figure.subplots(1, 2)
        for number, row in enumerate(rows, 1):
            inputs, removals = (row["baselines"].get(key) for key in ("inputs an output", "removals"))
            hollow = "a dense linear map" in row.get("note", "")
            colour = COLOURS[0] if row["name"].split(": ", 1)[1].startswith("gates") else COLOURS[1]
            if row["value"] is not None and inputs:
                _mark(left, inputs, row["value"], number, colour, hollow)
            if row["value"] is not None and removals is not None:
                _mark(right, row["value"], max(removals, -0.5), number, colour, hollow)
        left.set_xscale("log")
        left.set_xlabel("inputs an output")
        left.set_ylabel("FVU of y")
        right.set_xlabel("FVU of y")
        right.set_ylabel("R2 of removals (below -.5: at -.5)")
        for axes in (left, right):
            for side in ("top", "right"):
                axes.spines[side].set_visible(False)
    return re.sub(r"\s*\n\s*", " ", result[0])


def _mark(axes: Any, x: float, y: float, number: int, colour: str, hollow: bool) -> None:
    axes.plot([x], [y], marker="o", markersize=4, linestyle="", color=colour, fillstyle="none" if hollow else "full")
    axes.annotate(str(number), (x, y), xytext=(3, 3), textcoords="offset points", fontsize=7)
