"""Steps of a fit: what the slider of a layer map needs of each recorded connector, kept small."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ..errors import DataError
from .wires import Wires

#: steps in a page at most; of more, evenly spaced ones
STEPS = 40
#: wires of one step at most, the strongest
STEP_WIRES = 600


def steps_of(trace: Sequence[Any], outs: Sequence[int], ins: Sequence[int], shape: tuple[int, int]) -> list[dict]:
    """For each step: its number, all its wires counted, those between the features given, and the strongest of these.

    Args:
        trace: connectors, or matrices [out, in], in the order of the fit.
        outs, ins: the features that the map shows.
        shape: of the circuit's own connector, which every step must have.

    Returns:
        `{"step", "all", "here", "cells"}` each; cells are [output, input, weight, output, input, ...] with feature ids.

    Raises:
        DataError: a step of another shape.
    """
    chosen = np.unique(np.linspace(0, len(trace) - 1, min(len(trace), STEPS)).astype(int)) if len(trace) else []
    return [_step(int(k), Wires.of(trace[k]), outs, ins, shape) for k in chosen]


def _step(number: int, wires: Wires, outs: Sequence[int], ins: Sequence[int], shape: tuple[int, int]) -> dict[str, Any]:
    if (wires.outputs, wires.inputs) != shape:
        raise DataError(
            f"step {number} of the trace is of shape [{wires.outputs}, {wires.inputs}], the connector of "
            f"[{shape[0]}, {shape[1]}]; give the steps of this connector's fit as [out, in]"
        )
    here = np.flatnonzero(np.isin(wires.out, list(outs)) & np.isin(wires.into, list(ins)))
    cells: list[float] = []
    for k in here[:STEP_WIRES]:
        cells += [int(wires.out[k]), int(wires.into[k]), float(f"{wires.weight[k]:.3g}")]
    return {"step": number + 1, "all": len(wires), "here": len(here), "cells": cells}


def trace_for(trace: Any, name: str, segments: int) -> Sequence[Any]:
    """A segment's part of what `page` was given: a mapping by segment name, or a list where there is one segment.

    Raises:
        DataError: a list for a circuit of several segments.
    """
    if trace is None:
        return ()
    if isinstance(trace, Mapping):
        return trace.get(name, ())
    if segments > 1:
        raise DataError(f"a trace of a circuit with {segments} segments is a mapping segment name -> steps; got a list")
    return list(trace)
