"""Before a switch: what the wires and the local reading foresee of it, and unrelated changes of equal norm."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional as F

from ..basis.linear import directions
from ..basis.output import decoded_output
from .firing import row_of
from .scene import Layer, Scene
from .switched import Step

#: unrelated changes beside one switch
CONTROLS = 4
#: share of the MLP's output that the local reading's few features reach
SHARE = 0.9


def feature_change(
    steps: Sequence[Step], kind: str, positions: Int[Tensor, " k"], width: int
) -> Float[Tensor, "k width"]:
    """By how much the features of one kind change at each position."""
    change = torch.zeros(len(positions), width)
    rows = {p: i for i, p in enumerate(positions.tolist())}
    for s in steps:
        if s.kind == kind:
            change[rows[s.position], s.feature] = s.after - s.before
    return change


def foreseen(
    reading: Scene,
    layer: Layer,
    steps: Sequence[Step],
    positions: Int[Tensor, " k"],
    inner: Float[Tensor, "k d_in"],
) -> dict[str, Float[Tensor, "k d_out"]]:
    """who -> the change of the segment's output that follows from changed input features; `inner`: their step at the input."""
    said = {}
    connector = reading.circuit.connectors.get(layer.segment.name)
    if connector is not None:
        basis = reading.circuit.bases[layer.segment.hook_out]
        f, x = layer.f_in[positions], layer.x[positions]
        new = f + feature_change(steps, "IF", positions, f.shape[1])
        with torch.no_grad():
            after = decoded_output(basis, connector(new), x + inner)
            said["gates"] = after - decoded_output(basis, connector(f), x)
    changed = {s.feature for s in steps if s.kind == "IF"}
    rows = zip(positions.tolist(), inner, strict=True)
    said["local reading"] = torch.stack([_locally(reading, layer, p, step, changed) for p, step in rows])
    return said


def _locally(
    reading: Scene, layer: Layer, position: int, step: Float[Tensor, " d_in"], changed: set[int]
) -> Float[Tensor, " d_out"]:
    """The model's own MLP on the row's few strongest features (and those that are changed), without and with the change."""
    row = row_of(reading, layer, position)
    q = row.few(SHARE)
    extra = [j for j in range(q, len(row)) if int(row.features[j]) in changed]
    few = row.strongest(q) + row.steps[extra].sum(0)
    with torch.no_grad():
        y = row.forward(torch.stack([few, few + step]))
    return y[1] - y[0]


def unrelated(
    reading: Scene,
    hook: str,
    f: Float[Tensor, "positions width"],
    positions: Int[Tensor, " k"],
    vectors: Float[Tensor, "k d"],
    seed: int = 0,
) -> Float[Tensor, "controls k d"]:
    """As many steps of the same norms along directions of features that are off at these positions.

    Args:
        f: features at the hook point on the prompt. vectors: what the switch adds there.
    """
    generator = torch.Generator().manual_seed(seed)
    width = f.shape[1]
    active = set((f[positions] != 0).any(0).nonzero()[:, 0].tolist())
    live = reading.ordinary.live(hook) or range(width)
    free = [i for i in live if i not in active] or list(range(width))
    drawn = [free[i] for i in torch.randint(len(free), (CONTROLS,), generator=generator).tolist()]
    signs = torch.randint(2, (CONTROLS, 1), generator=generator) * 2 - 1
    unit = F.normalize(directions(reading.circuit.bases[hook], width)[drawn].float().cpu(), dim=1) * signs
    return unit[:, None] * vectors.norm(dim=1)[None, :, None]
