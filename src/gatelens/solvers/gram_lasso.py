"""GramLasso: connectors for small widths, from one pass of statistics; no gradient descent."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass, replace
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..codes.csr import csr, spread, take_rows
from ..connectors import Connector
from ..distributed import shared, team
from ..errors import GateLensWarning, SolverError
from ..errors.progress import bar
from ..lazy import renamed
from ..models import host
from ..store.estimate import Estimate, gram_fit
from ..store.shards import spans
from .calibration import calibrated
from .features import check_features
from .gram import Gram
from .one_sided import one_sided_fits
from .protocol import SolverDefaults
from .selection import forward_selection, lasso_path
from .sparse_rows import scipy_rows
from .where_on import fitted_where_on

#: share of the outputs' power below zero at which a warning is due: a GELU's dip stays far under it
_LOST = 0.05
#: outputs that are fitted together, by one of several processes
_BLOCK = 32


@renamed(mean_edges="mean_wires")
@dataclass(frozen=True)
class GramLasso(SolverDefaults):
    """Select wires on Gram statistics, allot them over all outputs by explained error, then fit what was selected.

    Attributes:
        mean_wires: wires per output feature, on average over all outputs.
        cap: most wires into one output; None for no cap.
        selection: "omp" (forward selection by explained error) or "lasso".
        refit: "newton" (one-sided, as behind a ReLU) or "least_squares".
        newton_rows: rows that the one-sided fit looks at.
        signed: features may be negative (rotations): linear outputs, least squares.
        calibrate: give each output a threshold (`calibrated`): "firing" (or True), over which it is on as often as its feature, or
            "error": thresholds of least squared error, and weights fitted over the rows where the output is on
            (`fitted_where_on`). Without, outputs are on several times too often.
        progress: bars on standard error; None: where somebody watches.

    Sources: "Orthogonal Least Squares Methods and Their Application to Non-linear System Identification" ("omp"), "A Fast Iterative
    Shrinkage-Thresholding Algorithm for Linear Inverse Problems" ("lasso").

    Raises:
        SolverError: settings out of range. NonFiniteError: NaN or infinity among the features.

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> gl.GramLasso(mean_wires=4).fit(f_in, f_out)
        Connector(96 -> 32, 128 wires, mean fan-in 4.00, ...)
    """

    mean_wires: float = 16
    cap: int | None = 64
    selection: Literal["omp", "lasso"] = "omp"
    refit: Literal["newton", "least_squares"] = "newton"
    newton_rows: int = 20_000
    signed: bool = False
    calibrate: bool | Literal["firing", "error"] = False
    progress: bool | None = None

    def __post_init__(self):
        if not 0 < self.mean_wires < math.inf or (self.cap is not None and self.cap < 1):
            raise SolverError(f"mean_wires and cap must be positive, got {self.mean_wires} and {self.cap}")
        for name, value, known in (
            ("selection", self.selection, ("omp", "lasso")),
            ("refit", self.refit, ("newton", "least_squares")),
            ("calibrate", self.calibrate, (False, True, "firing", "error")),
        ):
            if value not in known:
                raise SolverError(f"unknown {name} {value!r}: expected {' or '.join(map(str, known))}")

    on_device = True

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        """A connector from features over the same rows, [rows, m] and [rows, n], dense or sparse CSR.

        Statistics are formed, and wires selected, where the features lie; what is fitted to few of the rows, on the host.

        Warns:
            GateLensWarning: outputs that go well below zero, which a ReLU cannot give.
        """
        check_features(f_in, f_out)
        if not self.signed:
            _warn_of_signs(f_out)
        with bar(room="GramLasso", progress=self.progress):
            gram = Gram.of(f_in, f_out)
            support = self.select(gram)
        return self._fit_support(host(gram), support, f_in, f_out)

    def with_budget(self, mean_wires: float, signed: bool) -> GramLasso:
        return replace(self, mean_wires=mean_wires, cap=None, signed=self.signed or signed)

    def estimate(self, rows: int, m: int, n: int, active_in: float, active_out: float) -> Estimate:
        """Gram matrices in float64, their copies while they are added and solved, and rows of the one-sided fit."""
        return gram_fit(rows, m, n)

    def refit_on(self, connector: Connector, f_in: Tensor, f_out: Tensor) -> Connector:
        """The same wires, fitted again: to input features as another connector predicts them."""
        support = [torch.sort(connector.parents(i)[0]).values for i in range(len(connector.bias))]
        return self._fit_support(host(Gram.of(f_in, f_out)), support, f_in, f_out)

    def select(self, gram: Gram) -> list[Int[Tensor, " _"]]:
        """Each output's inputs."""
        covariance, products = gram.covariance
        n, m = products.shape[1], len(covariance)
        cap = min(self.cap or m, m)
        budget = round(self.mean_wires * n)
        chooser = forward_selection if self.selection == "omp" else lasso_path
        return host(chooser(covariance, products, budget, cap)).allot(budget)

    def _fit_support(self, gram: Gram, support: list[Int[Tensor, " _"]], f_in: Tensor, f_out: Tensor) -> Connector:
        weights, bias = self._fits(gram, support, f_in, f_out)
        activation = "identity" if self.signed else "relu"
        weight = _in_order(support, weights, f_in.shape[1])
        connector = Connector(weight, bias, activation=activation, solver=repr(self))
        if not self.calibrate or self.signed:
            return connector
        if self.calibrate != "error":
            return calibrated(connector, f_in, f_out, self.newton_rows)
        connector = calibrated(connector, f_in, f_out, self.newton_rows, "error")
        return fitted_where_on(connector, f_in, f_out, self.newton_rows)

    def _fits(
        self, gram: Gram, support: list[Int[Tensor, " _"]], f_in: Tensor, f_out: Tensor
    ) -> tuple[Float[Tensor, " wires"], Float[Tensor, " n"]]:
        """Each output on its inputs, blocks of outputs by each process: the weights, output after output, and biases."""
        one_sided = self.refit == "newton" and not self.signed
        rows = _thinned(f_in, f_out, self.newton_rows) if one_sided else ()
        columns = [scipy_rows(f).tocsc() for f in rows]
        blocks = spans(len(support), _BLOCK)
        total = sum(len(blocks[i]) for i in team().owned(len(blocks)))
        with bar(room="one-sided fit", progress=self.progress, total=total, unit="output") as shown:

            def fitted(i: int) -> tuple[Tensor, Tensor]:
                own = slice(blocks[i].start, blocks[i].stop)
                fits = [least_squares(gram, out, support[out]) for out in blocks[i]]
                if one_sided:
                    x, y = columns
                    fits = list(one_sided_fits(x, y[:, own], support[own], fits))
                shown.update(len(blocks[i]))
                return torch.cat([w for w, _ in fits]), torch.tensor([b for _, b in fits], dtype=torch.float64)

            found = shared(
                len(blocks), fitted
            )  # two tensors a block: one for each output would take longer to send than to fit
        weights, bias = (torch.cat([torch.empty(0), *(part[i] for part in found)]) for i in (0, 1))
        return weights.float(), bias.float()


def _in_order(support: list[Int[Tensor, " _"]], weights: Float[Tensor, " wires"], m: int) -> Tensor:
    """The wires as CSR rows, of inputs in any order."""
    counts = torch.tensor([len(parents) for parents in support], dtype=torch.long)
    inputs = host(torch.cat([counts[:0], *support]))
    order = torch.argsort(torch.repeat_interleave(counts) * m + inputs)
    crow = torch.cat([counts.new_zeros(1), counts.cumsum(0)])
    return csr(crow, inputs[order], weights[order], (len(support), m), check=True)


def least_squares(gram: Gram, out: int, parents: Int[Tensor, " k"]) -> tuple[Float[Tensor, " k"], float]:
    """Output `out` on its parents, with an intercept, from the statistics alone."""
    covariance, products = gram.covariance_of(out, parents)
    covariance = covariance + 1e-9 * covariance.diagonal().mean().clamp_min(1e-12) * torch.eye(
        len(parents), dtype=torch.float64
    )
    weights = torch.linalg.solve(covariance, products) if len(parents) else products
    return weights.float(), float(gram.intercept(out, parents, weights))


def lost_below_zero(f: Tensor) -> float:
    """The share of the features' power that lies below zero."""
    values = f.values() if f.layout == torch.sparse_csr else f
    return float(values.clamp_max(0).square().sum() / values.square().sum().clamp_min(1e-30))


def below_zero(f: Tensor) -> bool:
    """Whether the features have a sign, which a ReLU cannot give."""
    return lost_below_zero(f) > _LOST


def _warn_of_signs(f_out: Tensor) -> None:
    lost = lost_below_zero(f_out)
    if lost > _LOST:
        warnings.warn(
            f"{lost:.0%} of the output features' power lies below zero, and the wires end in a ReLU, which cannot give it: expected "
            "features that are on or off. For rotations and other coordinates with a sign use GramLasso(signed=True)",
            GateLensWarning,
            stacklevel=3,
        )


def _thinned(f_in: Tensor, f_out: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """At most `rows` evenly spaced rows."""
    keep = spread(len(f_in), rows)
    return take_rows(f_in, keep), take_rows(f_out, keep)
