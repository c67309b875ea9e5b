"""Connector: a sparse signed map from the features of one hook point to those of another; and what makes one."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from . import store
from .codes.csr import blocks, csr, stack_csr, to_csr
from .errors import DataError, NonFiniteError, SolverError, unknown
from .errors.door import at_the_door
from .lazy import shows_itself
from .models import place_of
from .segments.segment import ACTIVATIONS

#: share of possible wires above which a product with dense features goes through a dense matrix: it is faster by then
_DENSE = 0.05


@at_the_door
@shows_itself
@dataclass(frozen=True)
class Connector:
    """f_out ~ act(W f_in + b), with few nonzeros in each row of W.

    Attributes:
        weight: [n, m] sparse CSR, row = target: weight[i, j] is the wire from input feature j to output feature i.
        bias: [n].
        threshold: [n] or None; with one, z is passed on where z > threshold and is zero elsewhere (JumpReLU).
        activation: "relu" for features that are never negative, "identity" for rotated coordinates; a gated model's own by its name.
        solver: how it was made, for reports.

    Raises:
        SolverError: a weight that is not sparse CSR, another number of biases than outputs, or an unknown activation.
        NonFiniteError: NaN or infinity in either.

    Examples:
        >>> import torch
        >>> or_not = gl.Connector.from_dense(torch.tensor([[1.0, 0.0, -2.0]]), torch.tensor([-0.5]))
        >>> or_not(torch.tensor([[2.0, 9.0, 0.0], [2.0, 9.0, 1.0]]))  # [rows, n]
        tensor([[1.5000],
                [0.0000]])
    """

    weight: Tensor
    bias: Float[Tensor, " n"]
    threshold: Float[Tensor, " n"] | None = None
    activation: str = "relu"
    solver: str = ""

    def __post_init__(self):
        if self.weight.layout != torch.sparse_csr:
            raise SolverError(
                f"a connector's weight is a sparse CSR matrix; got layout {self.weight.layout}. Use Connector.from_dense"
            )
        if self.weight.shape[0] != len(self.bias):
            raise SolverError(
                f"weight has {self.weight.shape[0]} rows (outputs) and bias {len(self.bias)} entries; give one bias per output"
            )
        if self.activation not in ACTIVATIONS:
            raise SolverError(unknown("activation", self.activation, ACTIVATIONS))
        if not (torch.isfinite(self.weight.values()).all() and torch.isfinite(self.bias).all()):
            raise NonFiniteError(
                "a connector's weights and bias must be finite; got NaN or infinity. Look at the features it was fitted on"
            )

    @classmethod
    def from_dense(cls, weight: Float[Tensor, "n m"], bias: Float[Tensor, " n"], **rest) -> Connector:
        """From a matrix of weights, whose zeros are no wires; `rest`: the other attributes.

        Raises:
            SolverError: a sparse matrix.
        """
        if weight.layout != torch.strided:
            raise SolverError(
                f"expected a dense matrix of weights, got layout {weight.layout}; weight.to_dense() makes it one"
            )
        return cls(to_csr(weight), bias, **rest)

    @classmethod
    def from_rows(cls, rows: Sequence[tuple[Tensor, Tensor]], bias: Float[Tensor, " n"], m: int, **rest) -> Connector:
        """From each output's parents and weights; parents may come in any order."""
        counts = torch.tensor([0, *(len(p) for p, _ in rows)], device=bias.device)
        order = [torch.argsort(p) for p, _ in rows]
        columns = torch.cat([p[o] for (p, _), o in zip(rows, order, strict=True)]) if rows else torch.empty(0)
        values = torch.cat([w[o] for (_, w), o in zip(rows, order, strict=True)]) if rows else torch.empty(0)
        weight = csr(counts.cumsum(0), columns.long(), values.to(bias.dtype), (len(rows), m), check=True)
        return cls(weight, bias, **rest)

    def pre(self, f_in: Float[Tensor, "rows m"]) -> Float[Tensor, "rows n"]:
        """W f_in + b, before the activation. `f_in` is dense or sparse CSR.

        Raises:
            DataError: another number of features than there are inputs.
        """
        n, m = self.weight.shape
        if f_in.shape[1] != m:
            raise DataError(
                f"this connector reads {m} features, got {f_in.shape[1]}: give the features of its own input"
            )
        f_in = f_in.to(self.weight.dtype)
        if f_in.layout == torch.sparse_csr or len(self.weight.values()) > _DENSE * n * m:
            return (f_in @ self.weight.to_dense().T) + self.bias
        return (self.weight @ f_in.T).T + self.bias

    def __call__(self, f_in: Tensor) -> Float[Tensor, "rows n"]:
        return self.activate(self.pre(f_in), self.threshold, self.activation)

    @staticmethod
    def activate(
        z: Float[Tensor, "rows n"], threshold: Float[Tensor, " n"] | None, activation: str
    ) -> Float[Tensor, "rows n"]:
        """What becomes of W f_in + b: JumpReLU with a threshold, else ReLU, else nothing."""
        if threshold is not None:
            return torch.where(z > threshold, z, 0.0)
        return ACTIVATIONS[activation](z)

    def partly(
        self, f_in: Float[Tensor, "rows m"], keep: Bool[Tensor, " wires"], absent: Float[Tensor, "*rows m"]
    ) -> Float[Tensor, "rows n"]:
        """What comes out when only the wires in `keep` (in CSR order) carry their inputs, and the others `absent` in their place."""
        return self.activate(self._partly(f_in, keep, absent), self.threshold, self.activation)

    def _partly(self, f_in: Tensor, keep: Tensor, absent: Tensor) -> Float[Tensor, "rows n"]:
        kept, dropped = self._only(keep), replace(self._only(~keep), bias=torch.zeros_like(self.bias))
        return kept.pre(f_in) + dropped.pre(absent[None] if absent.ndim == 1 else absent)

    def _only(self, keep: Bool[Tensor, " wires"]) -> Connector:
        weight = self.weight
        values = torch.where(keep.to(weight.device), weight.values(), 0.0)
        shape = (weight.shape[0], weight.shape[1])
        return replace(self, weight=csr(weight.crow_indices(), weight.col_indices(), values, shape))

    @property
    def sides(self) -> tuple[Connector, ...]:
        """The sums whose product it is: itself, where it is one sum."""
        return (self,)

    #: how far from zero a product must be to pass; a sum has a threshold instead
    least = None

    @property
    def wires(self) -> int:
        """The number of wires."""
        return int((self.weight.values() != 0).sum())

    @property
    def edges(self) -> int:
        """Old name of `wires`, for one version more."""
        warnings.warn("Connector.edges is called wires now", DeprecationWarning, 2)
        return self.wires

    def fan_in(self) -> Int[Tensor, " n"]:
        """The number of wires into each output."""
        return self.weight.crow_indices().diff()

    def parents(self, out: int) -> tuple[Int[Tensor, " k"], Float[Tensor, " k"]]:
        """Output `out`'s input features and weights, the strongest wire first.

        Raises:
            DataError: no such output.
        """
        if not 0 <= out < len(self.bias):
            raise DataError(f"there is no output {out}: they are 0..{len(self.bias) - 1}")
        start, stop = self.weight.crow_indices()[out : out + 2].tolist()
        columns, values = self.weight.col_indices()[start:stop], self.weight.values()[start:stop]
        order = torch.argsort(values.abs(), descending=True, stable=True)
        return columns[order], values[order]

    def padded(self) -> tuple[Int[Tensor, "n k"], Float[Tensor, "n k"]]:
        """Parents and weights as tables; outputs with fewer wires than k are filled up with wires of weight 0."""
        crow, counts = self.weight.crow_indices(), self.fan_in()
        row = torch.repeat_interleave(counts)
        place = torch.arange(len(row), device=row.device) - crow[row]
        shape = (len(counts), max(1, int(counts.max()) if len(counts) else 0))
        parents, weights = row.new_zeros(shape), self.bias.new_zeros(shape)
        parents[row, place], weights[row, place] = self.weight.col_indices(), self.weight.values()
        return parents, weights

    def save(self, folder: str | Path) -> None:
        """Write `connector.safetensors` and `connector.json` with their hashes; an earlier connector stays until all is written."""
        with store.writing(folder, "connector") as out:
            self.save_into(out)

    def save_into(self, out: store.Writing) -> None:
        """The same, as a part of something that is being written."""
        tensors = {
            "crow": self.weight.crow_indices(),
            "col": self.weight.col_indices(),
            "values": self.weight.values(),
            "bias": self.bias,
        }
        if self.threshold is not None:
            tensors["threshold"] = self.threshold
        out.tensors("connector.safetensors", tensors)
        out.json(
            "connector.json", {"shape": list(self.weight.shape), "activation": self.activation, "solver": self.solver}
        )

    @classmethod
    def load(cls, folder: str | Path) -> Connector:
        return cls.load_from(store.reading(folder, "connector"))

    @classmethod
    def load_from(cls, stored: store.Reading) -> Connector:
        """What `save_into` wrote, of whichever sort."""
        about = stored.json("connector.json")
        with store.understood(stored.place):
            if "sides" in about:
                first, second = (Connector.load_from(stored.part(name, "connector")) for name in _SIDES)
                least = stored.tensors("connector.safetensors")["least"] if about["least"] else None
                return ProductConnector.of(first, second, least)
            n, m = about["shape"]
            tensors = stored.tensors("connector.safetensors")
            crow, col, values = tensors["crow"], tensors["col"], tensors["values"]
            weight = csr(crow, col, values, (n, m), check=True)
            return cls(weight, tensors["bias"], tensors.get("threshold"), about["activation"], about["solver"])

    def __repr__(self) -> str:
        n, m = self.weight.shape
        fan_in = self.fan_in()
        return (
            f"Connector({m} -> {n}, {self.wires} wires, mean fan-in {self.wires / max(n, 1):.2f}, max {int(fan_in.max()) if n else 0}, "
            f"{int((fan_in == 0).sum())} outputs without a wire{', ' + self.solver if self.solver else ''})"
        )


#: what the two sums of a product are kept as
_SIDES = ("first", "second")


@shows_itself
@dataclass(frozen=True, repr=False)
class ProductConnector(Connector):
    """f_out ~ first(f_in) * (what second sums): two small sums multiplied, such as two features that must both be on.

    `weight` holds the wires of both sums, so that whoever asks what is wired to what need not know of the two; an input of both
    has its weight of the first. `bias`, `threshold` and `activation` are those of the first sum.

    Attributes:
        first, second: the sums. The first goes through its activation, the second as it is.
        least: [n] or None; with one, a product passes where it is further from zero than that.
    """

    first: Connector = field(kw_only=True)
    second: Connector = field(kw_only=True)
    least: Float[Tensor, " n"] | None = None

    @classmethod
    def of(cls, first: Connector, second: Connector, least: Float[Tensor, " n"] | None = None) -> ProductConnector:
        """The product of two connectors between the same features.

        Raises:
            SolverError: they are of other widths.
        """
        if first.weight.shape != second.weight.shape:
            raise SolverError(
                f"two sums that are multiplied have the same inputs and outputs; got weights of {list(first.weight.shape)} and "
                f"{list(second.weight.shape)}"
            )
        weight = _united(first.weight, second.weight)
        solver = first.solver or "product"
        whole = cls(weight, first.bias, first.threshold, first.activation, solver, first=first, second=second)
        return replace(whole, least=least)

    @classmethod
    def after(cls, plain: Connector, products: ProductConnector) -> ProductConnector:
        """The outputs of a connector of single sums and, after them, those of products; ReLU both, some with thresholds."""
        weight, (n, m) = plain.weight, plain.weight.shape
        none = csr(weight.crow_indices() * 0, weight.col_indices()[:0], weight.values()[:0], (n, m))
        second = _under(Connector(none, torch.ones_like(plain.bias)), products.second)
        return cls.of(_under(plain, products.first), second)

    def __call__(self, f_in: Tensor) -> Float[Tensor, "rows n"]:
        return self._passed(self.first(f_in) * self.second.pre(f_in))

    def _passed(self, value: Float[Tensor, "rows n"]) -> Float[Tensor, "rows n"]:
        return value if self.least is None else torch.where(value.abs() > self.least, value, 0.0)

    def partly(
        self, f_in: Float[Tensor, "rows m"], keep: Bool[Tensor, " wires"], absent: Float[Tensor, "*rows m"]
    ) -> Float[Tensor, "rows n"]:
        """As a connector's; a wire from an input of both sums is kept in both or in neither."""
        places = _places(self.weight)[keep.to(self.weight.device)]
        first, second = (torch.isin(_places(side.weight), places) for side in self.sides)
        return self._passed(self.first.partly(f_in, first, absent) * self.second._partly(f_in, second, absent))

    @property
    def sides(self) -> tuple[Connector, ...]:
        return self.first, self.second

    @property
    def wires(self) -> int:
        return self.first.wires + self.second.wires

    def save_into(self, out: store.Writing) -> None:
        out.json("connector.json", {"sides": list(_SIDES), "least": self.least is not None})
        if self.least is not None:
            out.tensors("connector.safetensors", {"least": self.least})
        for name, side in zip(_SIDES, self.sides, strict=True):
            side.save_into(out.part(name))


def _places(weight: Tensor) -> Int[Tensor, " wires"]:
    """A number for each wire by what it joins, in CSR order."""
    return torch.repeat_interleave(weight.crow_indices().diff()) * weight.shape[1] + weight.col_indices()


def _under(a: Connector, b: Connector) -> Connector:
    """The outputs of two connectors that read the same features, one after the other."""
    threshold = None
    if a.threshold is not None or b.threshold is not None:
        parts = (torch.zeros_like(c.bias) if c.threshold is None else c.threshold for c in (a, b))
        threshold = torch.cat(list(parts))
    weight = stack_csr([a.weight, b.weight])
    return Connector(weight, torch.cat([a.bias, b.bias]), threshold, a.activation, a.solver)


def _united(first: Tensor, second: Tensor) -> Tensor:
    """The wires of two CSR matrices of one shape; the first's weight where both have one."""
    place = torch.cat([_places(first), _places(second)])
    value = torch.cat([first.values(), second.values()])
    own, inverse = place.unique(return_inverse=True)
    kept = value.new_zeros(len(own))
    late = len(first.values())
    kept[inverse[late:]] = value[late:]
    kept[inverse[:late]] = value[:late]
    n, m = first.shape
    counts = torch.bincount(own // m, minlength=n)
    return csr(torch.cat([counts.new_zeros(1), counts.cumsum(0)]), own % m, kept, (n, m))


def through(wires: Callable[[Tensor], Tensor], f: Tensor, rows: int = 4_096) -> Iterator[Float[Tensor, "block n"]]:
    """What wires make of dense or CSR features, so many rows at a time: computed where the wires are, handed out where f lies."""
    device = place_of(wires, f.device)
    return (wires(block.to(device)).to(f.device) for block in blocks(f, rows))


@runtime_checkable
class Solver(Protocol):
    """Anything that makes a connector from features over the same rows, dense or sparse CSR."""

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector: ...
