"""The layer map: gates that share inputs as one drawing, beside the connector's matrix."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from . import images
from .document import count, fragment
from .net import Net, drawn
from .steps import steps_of
from .wires import Wires

#: rows and columns that the matrix shows at most
SHOWN = 400
#: cells that the matrix holds as data, for the script to order and light; a fuller one stays a picture
CELLS = 8000
_STEPS = 40


def layer_map(
    connector: Any,
    outs: Sequence[int] | None = None,
    trace: Sequence[Any] = (),
    net: Net | None = None,
    targets: Mapping[int, str] | None = None,
) -> Markup:
    """Drawing and matrix of a connector, as a fragment.

    Args:
        connector: a `Connector`, or a matrix [out, in].
        outs: the matrix's outputs, in this order; None for all.
        trace: connectors or matrices [out, in], the steps of the fit in order, for a slider over them.
        net: gates to draw beside the matrix; None for the matrix alone.
        targets: output -> the anchor of its card, for links.
    """
    whole = Wires.of(connector)
    if not len(whole):
        return Markup('<p class="soft">This connector has no wires.</p>')
    outs = list(outs) if outs else sorted(set(whole.out.tolist()))
    part = whole.into_outputs(outs)
    matrix = _matrix(part, outs)
    return fragment(
        "map.html.j2",
        drawing=Markup(drawn(net, targets)) if net and net.gates else "",
        net=net,
        matrix=matrix,
        steps=steps_of(trace, matrix["outs"], matrix["ins"], (whole.outputs, whole.inputs)),
        recorded=len(trace),
        text=_text(whole, part, outs),
        left=_left(whole),
    )


def _text(whole: Wires, part: Wires, outs: Sequence[int]) -> str:
    all_of_them = f"{count(len(whole), 'wire')} between {count(whole.inputs, 'input feature')} and {count(whole.outputs, 'output feature')}"
    if len(part) == len(whole):
        return f"{all_of_them}."
    return f"{all_of_them}; {len(part):,} of them lead into {count(len(outs), 'output')} of the list above."


def _left(wires: Wires) -> list[tuple[float, int]]:
    """(threshold, wires at least as strong) at evenly spaced thresholds from 0 to the largest."""
    size = np.sort(np.abs(wires.weight))
    steps = np.linspace(0, size[-1], _STEPS + 1)
    return [(round(float(t), 5), int(len(size) - np.searchsorted(size, t - 1e-9))) for t in steps]


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
