"""VirtualWeights: the wires that the weights alone suggest, E_out W D_in; a baseline, and a start for `SgdL1`."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.linear import Basis, basis_width, directions, encoder_directions
from ..codes.csr import blocks
from ..connectors import Connector
from ..errors import SolverError
from ..lazy import renamed
from ..models import there
from ..segments import ACTIVATIONS, MLPWeights, Segment
from .features import check_features
from .protocol import SolverDefaults


@renamed(mean_edges="mean_wires")
@dataclass(frozen=True)
class VirtualWeights(SolverDefaults):
    """Decoder of the input, weights of the MLP, encoder of the output; the largest products kept.

    The nonlinearity enters by its mean derivative over rows (for a segment that ends behind it, over its outputs that are
    on: the encoder sees those). Wires are ranked by |weight| times the input feature's root mean square.

    Attributes:
        mean_wires: wires per output feature, on average.
        cap: most wires into one output; None for no cap. place: set by `at`.

    Raises:
        SolverError: without the segment and its bases (`at`), or a segment that is not one ungated MLP.

    Source: "A Mathematical Framework for Transformer Circuits".

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> solver = gl.VirtualWeights(mean_wires=4).at(net.segment, *bases.values())
        >>> solver.fit(f_in, f_out).wires
        128
    """

    mean_wires: float = 16
    cap: int | None = None
    place: tuple[Segment, Basis, Basis] | None = None

    def with_budget(self, mean_wires: float, signed: bool) -> VirtualWeights:
        return replace(self, mean_wires=mean_wires, cap=None)

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> VirtualWeights:
        """The solver for one segment: it needs the weights and both bases."""
        return replace(self, place=(segment, basis_in, basis_out))

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """A connector from the weights; of features over the same rows, [rows, m] and [rows, n], come its biases alone."""
        if self.place is None:
            raise SolverError(
                "VirtualWeights needs the segment and its bases: call `.at(segment, basis_in, basis_out)` first, as build_circuit does"
            )
        check_features(f_in, f_out)
        weight = virtual_weights(*self.place, f_in)
        square = mean_of(f_in, squared=True)
        weight = keep_largest(weight, square.sqrt().float(), round(self.mean_wires * len(weight)), self.cap)
        connector = Connector.from_dense(
            weight, torch.zeros(len(weight)), solver=f"VirtualWeights(mean_wires={self.mean_wires:g})"
        )
        mean_in, mean_out = mean_of(f_in), mean_of(f_out)
        return replace(connector, bias=(mean_out - (connector.weight.double() @ mean_in)).float())


def mean_of(f: Tensor, squared: bool = False) -> Float[Tensor, " f"]:
    """The mean of each feature, or of its square, over rows, in float64."""
    total = torch.zeros(f.shape[1], dtype=torch.float64, device=f.device)
    for block in blocks(f, 8192):
        total += (block.double().square() if squared else block.double()).sum(0)
    return total / len(f)


def virtual_weights(segment: Segment, basis_in: Basis, basis_out: Basis, f_in: Tensor) -> Float[Tensor, "n m"]:
    """E_out W D_in of a segment that is one MLP, [outputs, inputs]; formed on its device, and handed out where the features lie.

    Raises:
        SolverError: when the segment's weights are not known, or the MLP is gated.
    """
    if segment.mlp is None or segment.mlp.W_gate is not None:
        raise SolverError(
            f"virtual weights need a segment that is one ungated MLP; {segment.name} is not. Use MeanJacobian"
        )
    basis_in, basis_out = there((basis_in, basis_out), segment.device)
    x = basis_in.decode(next(blocks(f_in, 4096)).to(segment.device))
    if segment.prenorm is not None:
        x = segment.prenorm(x)
    derivative = mean_derivative(segment.mlp, x)
    inner = directions(basis_in, basis_width(basis_in, segment.d_in)) @ segment.mlp.W_in
    if segment.mlp.W_out is None:
        outer = inner  # behind the nonlinearity the encoder sees the units that are on as they are
    else:
        outer = (inner * derivative) @ segment.mlp.W_out
    return (outer @ encoder_directions(basis_out)).T.contiguous().to(f_in.device)


def mean_derivative(mlp: MLPWeights, x: Float[Tensor, "rows d_in"]) -> Float[Tensor, " m"]:
    """E[act'(pre)] over rows."""
    pre = (x @ mlp.W_in + mlp.b_in).detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(ACTIVATIONS[mlp.act](pre).sum(), pre)
    return slope.mean(0)


def keep_largest(
    weight: Float[Tensor, "n m"], scale: Float[Tensor, " m"], budget: int, cap: int | None
) -> Float[Tensor, "n m"]:
    """The `budget` entries that are largest in |weight| * scale over the whole matrix; at most `cap` of any row."""
    worth = weight.abs() * scale
    if cap is not None and cap < worth.shape[1]:
        least = worth.topk(cap, dim=1).values[:, -1:]
        worth = torch.where(worth >= least, worth, 0.0)
    budget = min(budget, worth.numel())
    kept = torch.zeros_like(worth, dtype=torch.bool).flatten()
    kept[worth.flatten().topk(budget).indices] = True
    return torch.where(kept.view_as(worth) & (worth > 0), weight, 0.0)
