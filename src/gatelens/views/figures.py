"""Figures beside the cards: the report's tables, and Jacobians before and after a change of coordinates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from markupsafe import Markup
from torch import Tensor

from ..basis.linear import Basis
from ..errors import DataError
from ..errors.door import fits, found
from ..segments import Segment
from . import images
from .document import figure, fragment, percent

#: Jacobian entries are shown for bases up to this width: wider ones cannot be seen cell by cell
WIDEST = 256
#: held-out rows over which a Jacobian is averaged
ROWS = 64
EPS = (0.03, 0.1, 0.3, 1.0)


def report_tables(report: Mapping[str, Any]) -> Markup:
    """Dictionaries, connectors, the circuit beside its baselines, and the ladder, as far as they were measured."""
    metric = (report.get("model") or {}).get("metric") or "metric"
    tables = [
        table(
            "Dictionaries",
            "Each hook point's features: what they leave unexplained (FVU), how many are on at a time (L0), and the model's "
            f"{metric} with the activation replaced by their reconstruction.",
            [
                ("hook point", None),
                ("kind", "kind"),
                ("features", "features"),
                ("FVU", "fvu"),
                ("L0", "l0"),
                ("never on", "dead"),
                (f"{metric}, spliced", "spliced"),
            ],
            report.get("bases"),
        ),
        table(
            "Connectors",
            f"Each segment's wires: median R² over output features, FVU of what they decode to, {metric} with the segment replaced, "
            "and the share of ablation's cost that is kept.",
            [
                ("segment", None),
                ("wires", "edges"),
                ("mean fan-in", "mean_fan_in"),
                ("max", "max_fan_in"),
                ("median R²", "median_r2"),
                ("FVU", "fvu"),
                (f"{metric}, replaced", "replaced"),
                ("kept", "gap_closed"),
            ],
            report.get("connectors"),
        ),
        table(
            "Beside its baselines",
            "The same figures for the baselines, with as many wires where that can be had. A reading is worth as much as it is better "
            "than these.",
            [
                ("circuit", None),
                ("wires", "edges"),
                ("median R²", "median_r2"),
                (f"{metric}, all replaced", "replaced"),
                ("rules that hold", "logic"),
                ("of outputs read", "outputs"),
                ("verified", "verified"),
                ("of those tried", "tried"),
            ],
            _with_own(report, metric),
        ),
        *(_removal(name, g["removal"]) for name, g in (report.get("gates") or {}).items() if g.get("removal")),
        *(_ladder(name, rungs) for name, rungs in (report.get("ladder") or {}).items()),
    ]
    shown = [t for t in tables if t]
    return fragment("tables.html.j2", tables=shown, heading="Figures") if shown else Markup("")


def _removal(segment: str, found: Mapping[str, Any]) -> dict[str, Any]:
    return table(
        f"Gates of {segment} removed",
        "Each output taken out where it is on: divergence of the predictions over the rest of the window (KL, nats a position), beside "
        "as long a step along another output's direction. Only what is above that is the gate's own doing.",
        [("output", None), ("removed", "own"), ("another direction", "other"), ("windows", "windows")],
        {f"OF_{out}": row for out, row in found["by_output"].items()},
    )


def _ladder(segment: str, rungs: Mapping[str, Any]) -> dict[str, Any]:
    from ..ladder.rungs import FIGURES, MEANING

    explained = "; ".join(f"{name}: {what}" for name, what in MEANING.items())
    columns = [("rung", None), *((name.replace("_", " "), name) for name in FIGURES)]
    return table(f"Ladder of {segment}", f"Held out, the circuit between its ceilings, rivals and null. {explained}.",
                 columns, rungs)  # fmt: skip


def _with_own(report: Mapping[str, Any], metric: str) -> dict[str, Any]:
    beside = {k.replace("_", " "): v for k, v in (report.get("baselines") or {}).items() if v}
    if not beside:
        return {}
    connectors = list((report.get("connectors") or {}).values())
    gates = list((report.get("gates") or {}).values())
    r2 = [c["median_r2"] for c in connectors if c.get("median_r2") is not None]
    own = {
        "edges": sum(c.get("edges") or 0 for c in connectors),
        "median_r2": float(np.median(r2)) if r2 else None,
        "replaced": (report.get("all_replaced") or {}).get(metric),
        "logic": sum(g.get("logic") or 0 for g in gates) if gates else None,
        "verified": sum(g.get("verified") or 0 for g in gates) if gates else None,
        "tried": sum(g.get("tried") or 0 for g in gates) if gates else None,
        "outputs": sum(g["outputs"] for g in gates) if gates else None,
    }
    return {"this circuit": own} | beside


def table(
    title: str, what: str, columns: Sequence[tuple[str, str | None]], rows: Mapping[str, Any] | None
) -> dict[str, Any]:
    """A table for a template: a row for each named mapping, columns (heading, key) without those that no row has.

    The key of the names' own column is None. Empty where there are no rows.
    """
    rows = {name: row for name, row in (rows or {}).items() if isinstance(row, Mapping)}
    if not rows:
        return {}
    used = [
        (head, key) for head, key in columns if key is None or any(row.get(key) is not None for row in rows.values())
    ]
    cells = [[name, *(_cell(row.get(key)) for _, key in used if key is not None)] for name, row in rows.items()]
    return {"title": title, "what": what, "head": [head for head, _ in used], "rows": cells}


def _cell(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(_cell(v) for v in value.values())
    return str(value) if isinstance(value, str) else figure(value, 3)


def heat_maps(matrices: Mapping[str, Any], what: str = "", size: int = 320) -> Markup:
    """Matrices [out, in] side by side on one shared scale, with the share of entries above several sizes under each.

    Args:
        matrices: name -> values; sizes are in units of the first one's root mean square, so that rescaling wins nothing.
        what: one line on what is shown.
    """
    for name, values in matrices.items():
        if np.ndim(values) != 2 or 0 in np.shape(values) or not fits(values, Tensor | np.ndarray | Sequence):
            raise DataError(f"heat_maps: {name!r} must be a matrix [out, in] that is not empty; got {found(values)}")
    arrays = {name: np.asarray(values, dtype=np.float64) for name, values in matrices.items()}
    clean = {name: np.where(np.isfinite(a), a, 0.0) for name, a in arrays.items()}
    top = max((float(np.abs(a).max()) for a in clean.values()), default=0.0)
    maps = []
    for name, values in arrays.items():
        url, _, bad = images.field(values, size=size, top=top)
        rms = float(np.sqrt((clean[name] ** 2).mean())) or 1.0
        shares = [percent(float((np.abs(clean[name]) > eps * rms).mean())) for eps in EPS]
        maps.append({"name": name, "url": url, "shape": values.shape, "bad": bad, "shares": shares})
    return fragment("heat.html.j2", maps=maps, top=top, eps=EPS, what=what)


def jacobian_maps(
    segment: Segment,
    basis_in: Basis,
    basis_out: Basis,
    held_out: Float[Tensor, "rows d_in"],
    fit: Float[Tensor, "others d_in"] | None = None,
) -> Markup:
    """A segment's Jacobian in the model's coordinates and in the bases', on held-out rows and, where given, fitting rows.

    Empty for bases too wide to be seen, and for a segment whose function is not at hand.
    """
    from ..basis.linear import basis_width
    from ..jacobians import feature_jacobian

    if (
        max(basis_width(basis_in, segment.d_in), basis_width(basis_out, segment.d_out), segment.d_in, segment.d_out)
        > WIDEST
    ):
        return Markup("")
    maps: dict[str, Any] = {}
    for part, x in (("held out", held_out), ("fitted on", fit)):
        if x is None:
            continue
        rows = x[torch.linspace(0, len(x) - 1, min(ROWS, len(x))).long()]
        maps[f"model's own coordinates, {part}"] = _rms(feature_jacobian(segment, rows))
        maps[f"these features, {part}"] = _rms(feature_jacobian(segment, rows, basis_in, basis_out))
    return heat_maps(
        maps,
        f"Root mean square of the Jacobian's entries over {min(ROWS, len(held_out))} rows; features that are off there count as zeros.",
    )


def _rms(jacobians: torch.Tensor) -> np.ndarray:
    """[rows, out, in] -> [out, in], rows and columns ordered by their total, the largest first."""
    matrix = jacobians.double().square().mean(0).sqrt()
    rows, columns = matrix.sum(1).argsort(descending=True), matrix.sum(0).argsort(descending=True)
    return matrix[rows][:, columns].numpy()
