"""The layer map: wires drawn between two columns of features, beside the connector's matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from . import images
from .document import count, figure, fragment
from .steps import steps_of
from .wires import Wires

#: more wires than this cannot be told apart in a drawing: the strongest are drawn, the matrix comes first
DRAWN = 300
#: rows and columns that the matrix shows at most
SHOWN = 400
#: cells that the matrix holds as data, for the script to order and light; a fuller one stays a picture
CELLS = 8000
_STEPS = 40


def layer_map(
    connector: Any,
    outs: Sequence[int] | None = None,
    targets: dict[int, str] | None = None,
    trace: Sequence[Any] = (),
) -> Markup:
    """Drawing and matrix of a connector, as a fragment.

    Args:
        connector: a `Connector`, or a matrix [out, in].
        outs: outputs to draw, in this order; None for all.
        targets: output -> the anchor of its card, for links.
        trace: connectors or matrices [out, in], the steps of the fit in order, for a slider over them.
    """
    whole = Wires.of(connector)
    if not len(whole):
        return Markup('<p class="soft">This connector has no wires.</p>')
    outs = list(outs) if outs is not None else sorted(set(whole.out.tolist()))
    part = whole.into_outputs(outs)
    matrix = _matrix(part, outs)
    drawn = Wires(part.out[:DRAWN], part.into[:DRAWN], part.weight[:DRAWN], part.outputs, part.inputs)
    return fragment(
        "map.html.j2",
        drawing=bipartite(drawn, outs, targets or {}),
        matrix=matrix,
        steps=steps_of(trace, matrix["outs"], matrix["ins"], (whole.outputs, whole.inputs)),
        recorded=len(trace),
        matrix_first=len(part) > DRAWN,
        text=_text(whole, part, drawn, outs),
        largest=float(np.abs(whole.weight).max()),
        left=_left(whole),
    )


def _text(whole: Wires, part: Wires, drawn: Wires, outs: Sequence[int]) -> str:
    all_of_them = f"{count(len(whole), 'wire')} between {count(whole.inputs, 'input feature')} and {count(whole.outputs, 'output feature')}"
    if len(part) == len(whole) == len(drawn):
        return all_of_them + ", all drawn."
    into = f" into the {count(len(outs), 'output')} listed above" if len(part) < len(whole) else ""
    return f"{all_of_them}; drawn: the {len(drawn):,} strongest of {len(part):,}{into}."


def _left(wires: Wires) -> list[tuple[float, int]]:
    """(threshold, wires at least as strong) at evenly spaced thresholds from 0 to the largest."""
    size = np.sort(np.abs(wires.weight))
    steps = np.linspace(0, size[-1], _STEPS + 1)
    return [(round(float(t), 5), int(len(size) - np.searchsorted(size, t - 1e-9))) for t in steps]


def bipartite(wires: Wires, outs: Sequence[int], targets: dict[int, str], row: int = 15, width: int = 620) -> Markup:
    """Inputs on the left, outputs on the right; width is |weight|, dashes are negative weights."""
    present = set(wires.out.tolist())
    outs = [o for o in outs if o in present]
    place_out = {o: i for i, o in enumerate(outs)}
    ins = _by_barycentre(wires, place_out)
    place_in = {i: k for k, i in enumerate(ins)}
    height = max(len(outs), len(ins)) * row + 12
    y_in, y_out = _spread(len(ins), height), _spread(len(outs), height)
    x0, x1, middle, top = 74, width - 74, width // 2, float(np.abs(wires.weight).max())
    shapes = []
    for o, i, w in zip(wires.out.tolist(), wires.into.tolist(), wires.weight.tolist(), strict=True):
        a, b = y_in[place_in[i]], y_out[place_out[o]]
        stroke = 0.7 + 4.3 * abs(w) / top
        dash = f' stroke-dasharray="{3 + stroke:.0f} {2 + stroke / 2:.0f}"' if w < 0 else ""
        shapes.append(
            f'<path class="e {"minus" if w < 0 else "plus"}" data-i="{i}" data-o="{o}" data-w="{abs(w):.5g}" '
            f'stroke-width="{stroke:.1f}"{dash} d="M{x0} {a:.1f}C{middle} {a:.1f} {middle} {b:.1f} {x1} {b:.1f}">'
            f"<title>IF_{i} → OF_{o}: {figure(w, 3)}</title></path>"
        )
    for i, y in zip(ins, y_in, strict=True):
        shapes.append(
            f'<text class="i" data-i="{i}" x="{x0 - 6}" y="{y + 4:.1f}" text-anchor="end" tabindex="0">IF_{i}</text>'
        )
    for o, y in zip(outs, y_out, strict=True):
        focus = "" if o in targets else ' tabindex="0"'
        text = f'<text class="o" data-o="{o}" x="{x1 + 6}" y="{y + 4:.1f}"{focus}>OF_{o}</text>'
        shapes.append(f'<a href="#{targets[o]}">{text}</a>' if o in targets else text)
    box = f'viewBox="0 0 {width} {height}" width="{width}" height="{height}"'
    return Markup(
        f'<svg class="wires" {box} role="group" aria-label="wires from input to output features">{"".join(shapes)}</svg>'
    )


def _by_barycentre(wires: Wires, place_out: dict[int, int]) -> list[int]:
    """Inputs in the order of the weighted mean place of their outputs, so that few wires cross."""
    weight, moment = {}, {}
    for o, i, w in zip(wires.out.tolist(), wires.into.tolist(), np.abs(wires.weight).tolist(), strict=True):
        weight[i] = weight.get(i, 0.0) + w
        moment[i] = moment.get(i, 0.0) + w * place_out[o]
    return sorted(weight, key=lambda i: (moment[i] / weight[i], i))


def _spread(n: int, height: float) -> list[float]:
    return [(k + 0.5) * height / max(n, 1) for k in range(n)]


def _matrix(wires: Wires, outs: Sequence[int]) -> dict[str, Any]:
    """The matrix of the outputs given, columns by total weight; as a picture, and as data for sorting."""
    outs = list(outs)[:SHOWN]
    total = np.bincount(wires.into, weights=np.abs(wires.weight), minlength=wires.inputs)
    ins = [int(i) for i in np.argsort(-total, kind="stable") if total[i] > 0][:SHOWN]
    place_out, place_in = {o: k for k, o in enumerate(outs)}, {i: k for k, i in enumerate(ins)}
    dense = np.zeros((len(outs), len(ins)))
    for o, i, w in zip(wires.out.tolist(), wires.into.tolist(), wires.weight.tolist(), strict=True):
        if o in place_out and i in place_in:
            dense[place_out[o], place_in[i]] = w
    scale = int(np.clip(520 // max(dense.shape), 3, 14))
    url, top, _ = images.field(dense, size=scale * max(dense.shape))
    cells: list[float] = []
    for o, i in zip(*np.nonzero(dense), strict=True):
        cells += [int(o), int(i), float(f"{dense[o, i]:.3g}")]
    return {
        "outs": outs,
        "ins": ins,
        "scale": scale,
        "cells": cells if len(cells) <= 3 * CELLS else [],
        "url": url,
        "width": scale * len(ins),
        "height": scale * len(outs),
        "rows": len(outs),
        "columns": len(ins),
        "top": top,
    }
