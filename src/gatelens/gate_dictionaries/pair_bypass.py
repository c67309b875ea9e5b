"""PairBypass: a linear map of the input's features and a few thousand products of two of them, in closed form."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ..basis.linear import Basis, check_width
from ..basis.recipe import RecipeDefaults
from ..codes.csr import csr, spread
from ..codes.rows import Codes, beside, stacked
from ..connectors import Connector, ProductConnector
from ..edits.counterfactual import Counterfactual
from ..errors import BasisError
from ..errors.progress import bar
from ..models import host, there
from ..segments import Segment
from ..store.estimate import Estimate, in_all
from .doors import fitted, shape_of
from .gate_basis import GateBasis, check_finite_codes
from .products import Candidates, Products
from .rows import NormalEquations, Sample

#: rows that go into the normal equations at a time
_BLOCK = 65_536
#: rows whose residuals choose the pairs
_SCORED_ROWS = 60_000


@dataclass(frozen=True)
class PairBypass(RecipeDefaults):
    """y ~ V f_in + sum over pairs of v_p f_i f_j / (m_i m_j) + b: what is linear, and two features that do something together.

    Every product is a gate of two inputs, a weighted AND: it is on where both are, and weighs what their values weigh. The pairs are
    those that explain most of what the linear map leaves, of all that are on together often enough; all directions are one ridge.
    The second layer of a gated language model is nearly this; where the activation is a GELU it may be worth nothing: look at the null.

    Attributes:
        pairs: number of products.
        inputs: the input dictionaries: hook name -> basis, or a recipe that is fitted at hook_in. None: a `TrainedSAE` of the sparse
            trainer, k = 32 and eight features per dimension. As a `bypass` of a `GateDictionary` it takes that one's.
        counterfactual: how rows are edited, and how many pairs of a row and its edit are fitted; None: natural rows alone.
        lam: weight of the squared error of the difference of each pair of rows, relative to that of the rows.
        shrink: the ridge's penalty, in units of the terms' mean power.
        min_together: rows in which two features must be on together to be a candidate.
        shuffled: permute the partners of the chosen pairs: what as many products are worth by their number alone. A null.
        seed: of the permutation.
        progress: bars on standard error; None: where somebody watches.

    Raises:
        BasisError: settings out of range; from `fit`, fewer rows than products, fewer pairs that are on together than were asked for,
            features below zero, segments that meet.

    Examples:
        >>> few = gl.PairBypass(pairs=4, inputs=bases, counterfactual=gl.Counterfactual(pairs=4_000), min_together=5)
        >>> products = few.fit(segments, acts)["hook_mlp_out"]
        >>> products.connector.fan_in()
        tensor([2, 2, 2, 2])
    """

    pairs: int = 2_000
    inputs: Any = None
    counterfactual: Counterfactual | None = field(default_factory=lambda: Counterfactual(pairs=60_000))
    lam: float = 3.0
    shrink: float = 1e-2
    min_together: int = 30
    shuffled: bool = False
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        if min(self.pairs, self.min_together) < 1 or self.lam < 0 or self.shrink <= 0:
            raise BasisError(
                "pairs and min_together must be at least 1, lam not negative, shrink positive; got "
                f"pairs {self.pairs}, min_together {self.min_together}, lam {self.lam}, shrink {self.shrink}"
            )

    has_wires = True

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_in -> input dictionary, hook_out -> `GateBasis` whose features are the products, for each segment.

        Raises:
            BasisError: as said above.
        """
        return fitted(segments, acts, self.inputs, self.train)

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        """Either end: the input dictionary's features, or the products."""
        features, active = shape_of(self.inputs, hook, width, 32.0)
        return max(features, self.pairs), active

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """The rows, their edits and residuals; the normal equations and their factor."""
        features, _ = self.shape_at(hook, width)
        terms = features + self.pairs
        parts = {"rows, edits and residuals": 6 * 4 * rows * width, "normal equations": 3 * 8 * terms * terms}
        return in_all("bases", parts, disk=4 * width * terms)

    def train(
        self,
        segment: Segment,
        basis_in: Basis,
        x: Float[Tensor, "rows d_in"],
        y: Float[Tensor, "rows d_out"],
        codes: Codes | None = None,
    ) -> GateBasis:
        """The products of one segment, from rows of both its ends; `codes`: the input features of `x`, where they are at hand.

        Raises:
            BasisError: as for `fit`.
        """
        began = time.perf_counter()
        check_width(basis_in, segment.hook_in, segment.d_in)
        if codes is None:  # no more rows than are fitted: encoding all would be most of the work
            some = spread(len(x), len(x) if self.counterfactual is None else self.counterfactual.pairs)
            x, y = x[some], y[some]
        x, y, codes, basis_in = there((x, y, codes, basis_in), segment.device)
        codes = Codes.encode(basis_in, x) if codes is None else codes
        self._check(codes)
        sample = host(self._sample(segment, basis_in, x, y, codes))
        typical = codes.typical().cpu()
        steps = iter(bar(range(3), "products", self.progress))
        next(steps)
        linear = _Terms(typical, None)
        map_, offset = linear.solve(sample, self.lam, self.shrink)
        next(steps)
        few = sample.part(spread(len(sample.natural[1]), _SCORED_ROWS))
        left = few.each(lambda codes, y: (codes, y - linear.of(codes).times(map_.T) - offset))
        candidates = Candidates.of(left, typical, self.min_together, self.lam)
        chosen = candidates.best(self.pairs, self.min_together)
        if self.shuffled:
            chosen = candidates.shuffled(chosen, self.seed)
        next(steps)
        weights, constant = _Terms(typical, chosen).solve(sample, self.lam, self.shrink)
        info = {"candidates": len(candidates.score), "seconds": time.perf_counter() - began}
        return _basis(segment, host(basis_in), chosen, weights, constant, info)

    def _check(self, codes: Codes) -> None:
        check_finite_codes(codes.value)
        if len(codes.value) and float(codes.value.min()) < 0:
            raise BasisError(
                "products say that two features are on together: expected features that are never negative, got negative ones. "
                "Use a sparse autoencoder at the input, not a rotation or neurons with a sign"
            )
        rows = len(codes) if self.counterfactual is None else min(len(codes), self.counterfactual.pairs)
        if rows < self.pairs:
            raise BasisError(
                f"pairs = {self.pairs} products were asked for from {rows} rows: expected at least as many rows as products. "
                "Give more rows (counterfactual.pairs says how many of them are used), or ask for fewer pairs"
            )

    def _sample(self, segment: Segment, basis_in: Basis, x: Tensor, y: Tensor, codes: Codes) -> Sample:
        if self.counterfactual is None:
            return Sample((codes, y))
        found = list(self.counterfactual.pairs_of(segment, basis_in, x, _BLOCK, codes))
        natural = stacked([p.codes for p in found]), torch.cat([p.y for p in found])
        return Sample(natural, (stacked([p.edit.codes for p in found]), torch.cat([p.y_edited for p in found])))


@dataclass(frozen=True)
class _Terms:
    """What y is a weighted sum of: all input features over their typical values and, after them, the products."""

    typical: Float[Tensor, " m"]
    products: Products | None

    def of(self, codes: Codes) -> Codes:
        f = codes.over(self.typical[codes.col])
        return f if self.products is None else beside(f, self.products.of(codes))

    def solve(self, sample: Sample, lam: float, shrink: float) -> tuple[Float[Tensor, "d terms"], Float[Tensor, " d"]]:
        """Weights and intercept of least squares, with the loss of gates."""
        normal = NormalEquations()
        for block in torch.arange(len(sample.natural[1])).split(_BLOCK):
            normal.add_edited(sample.part(block).each(lambda codes, y: (self.of(codes), y)), lam)
        return normal.solve(shrink)


def _basis(
    segment: Segment, basis_in: Basis, chosen: Products, weights: Tensor, offset: Tensor, info: dict[str, Any]
) -> GateBasis:
    m = len(chosen.typical)
    first, second = (_one_each(f, chosen.typical) for f in (chosen.first, chosen.second))
    linear = weights[:, :m].T / chosen.typical.clamp_min(1e-12)[:, None]
    linear[chosen.typical == 0] = 0
    wires, dictionary = ProductConnector.of(first, second), weights[:, m:].T.contiguous()
    ends = segment.hook_in, segment.hook_out
    return GateBasis(basis_in, wires, dictionary, offset, segment.d_in, linear, *ends, info)


def _one_each(feature: Tensor, typical: Float[Tensor, " m"]) -> Connector:
    """A wire from one feature to each output, whose weight makes a typical value 1."""
    weight = csr(torch.arange(len(feature) + 1), feature, 1 / typical[feature], (len(feature), len(typical)))
    return Connector(weight, torch.zeros(len(feature)), solver="products")
