"""SgdL1: Adam on squared error plus an L1 penalty, then a threshold on the weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from ..basis.linear import Basis
from ..connectors import Connector
from ..errors import SolverError
from ..errors.progress import bar
from ..lazy import renamed
from ..segments import Segment
from .features import check_features
from .protocol import SolverDefaults
from .virtual_weights import keep_largest, virtual_weights


@renamed(mean_edges="mean_wires")
@dataclass(frozen=True)
class SgdL1(SolverDefaults):
    """Minimise |relu(F_in W^T + b) - F_out|^2 + l1 |W|_1 by Adam, keep the largest weights.

    Attributes:
        l1: coefficient of the penalty (sum of |W| against squared error summed over outputs, mean over rows).
        start: "random", or "virtual": E_out W D_in.
        mean_wires: wires kept per output, on average, ranked by |weight|; None keeps all those over `threshold`.
        threshold: weights under it are dropped when `mean_wires` is None.
        epochs: passes over the rows. fine_tune: epochs of Adam without penalty on the wires that were kept.
        lr, batch_size: of Adam. seed: of the start and of the order of rows.
        progress: bars on standard error; None: where somebody watches. place: set by `at`.

    Source: "Finding Sparse Linear Connections between Features in LLMs".

    Raises:
        SolverError: `start="virtual"` without the segment and its bases (`at`).

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> gl.SgdL1(epochs=2, mean_wires=4).fit(f_in, f_out).wires
        128
    """

    l1: float = 1e-3
    start: Literal["random", "virtual"] = "random"
    epochs: int = 10
    fine_tune: int = 0
    mean_wires: float | None = 16
    threshold: float = 1e-2
    lr: float = 1e-3
    batch_size: int = 1024
    seed: int = 0
    progress: bool | None = None
    place: tuple[Segment, Basis, Basis] | None = None

    def with_budget(self, mean_wires: float, signed: bool) -> SgdL1:
        return replace(self, mean_wires=mean_wires)

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> SgdL1:
        return replace(self, place=(segment, basis_in, basis_out)) if self.start == "virtual" else self

    on_device = True

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """A connector from features over the same rows, [rows, m] and [rows, n], dense or sparse CSR."""
        return self.cut(*self.train(f_in, f_out), f_in, f_out)

    def train(self, f_in: Tensor, f_out: Tensor) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        """Dense weights and bias, before the threshold; one training serves several budgets."""
        check_features(f_in, f_out)
        return self._train(f_in, f_out)

    def trace(self, f_in: Tensor, f_out: Tensor) -> list[Connector]:
        """The connector as training goes: at the start and after each epoch, each cut to the budget, without fine-tuning.

        For `views.page(..., trace=...)`. The last one is what `fit` gives without `fine_tune`.
        """
        steps: list[Connector] = []
        plain = replace(self, fine_tune=0)
        self._train(f_in, f_out, lambda weight, bias: steps.append(plain.cut(weight, bias, f_in, f_out)))
        return steps

    def _train(
        self, f_in: Tensor, f_out: Tensor, seen: Callable[[Tensor, Tensor], None] | None = None
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        x, y = (f.to_dense() if f.layout == torch.sparse_csr else f for f in (f_in, f_out))
        weight = self._initial(x, y)
        return self._adam(x, y, weight, y.new_zeros(y.shape[1]), self.epochs, self.l1, None, seen)

    def cut(self, weight: Tensor, bias: Tensor, f_in: Tensor, f_out: Tensor) -> Connector:
        """Keep the largest weights; fine-tune those when asked."""
        if self.mean_wires is None:
            kept = torch.where(weight.abs() >= self.threshold, weight, 0.0)
        else:
            kept = keep_largest(weight, weight.new_ones(weight.shape[1]), round(self.mean_wires * len(weight)), None)
        if self.fine_tune:
            x, y = (f.to_dense() if f.layout == torch.sparse_csr else f for f in (f_in, f_out))
            kept, bias = self._adam(x, y, kept, bias, self.fine_tune, 0.0, kept != 0)
        return Connector.from_dense(
            kept, bias, solver=f"SgdL1(l1={self.l1:g}, start={self.start}, fine_tune={self.fine_tune})"
        )

    def _initial(self, x: Float[Tensor, "rows m"], y: Float[Tensor, "rows n"]) -> Float[Tensor, "n m"]:
        if self.start == "random":
            generator = torch.Generator().manual_seed(self.seed)
            start = torch.rand(y.shape[1], x.shape[1], generator=generator).to(x.device)
            return (start * 2 - 1) / x.shape[1] ** 0.5
        if self.place is None:
            raise SolverError(
                'SgdL1(start="virtual") needs the segment and its bases: call `.at(...)` first, as build_circuit does'
            )
        return virtual_weights(*self.place, x)

    def _adam(
        self,
        x: Float[Tensor, "rows m"],
        y: Float[Tensor, "rows n"],
        weight: Float[Tensor, "n m"],
        bias: Float[Tensor, " n"],
        epochs: int,
        l1: float,
        mask: Bool[Tensor, "n m"] | None,
        seen: Callable[[Tensor, Tensor], None] | None = None,
    ) -> tuple[Float[Tensor, "n m"], Float[Tensor, " n"]]:
        generator = torch.Generator().manual_seed(self.seed)
        W, b = nn.Parameter(weight.clone()), nn.Parameter(bias.clone())
        optimiser = torch.optim.Adam([W, b], lr=self.lr)
        for _ in bar(range(epochs), "Adam", self.progress):
            if seen is not None:
                seen(W.detach().clone(), b.detach().clone())
            for rows in torch.randperm(len(x), generator=generator).to(x.device).split(self.batch_size):
                error = torch.relu(x[rows] @ W.T + b) - y[rows]
                loss = error.square().sum(1).mean() + (l1 * W.abs().sum() if l1 else 0.0)
                optimiser.zero_grad(set_to_none=True)
                loss.backward()
                if mask is not None and W.grad is not None:
                    W.grad *= mask
                optimiser.step()
        if seen is not None:
            seen(W.detach().clone(), b.detach().clone())
        return W.detach(), b.detach()
