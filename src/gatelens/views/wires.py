"""Wires: a connector's weights as a list, the strongest first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..connectors import Connector
from ..errors import DataError
from ..errors.door import fits, found


@dataclass(frozen=True)
class Wires:
    """The wires of a connector as parallel arrays, the strongest first."""

    out: np.ndarray
    into: np.ndarray
    weight: np.ndarray
    outputs: int
    inputs: int

    @classmethod
    def of(cls, connector: Any) -> Wires:
        """From a `Connector`, or from a dense matrix [out, in] as array or nested lists.

        Raises:
            DataError: neither.
        """
        weight = connector.weight if isinstance(connector, Connector) else connector
        if isinstance(weight, torch.Tensor) and weight.layout == torch.sparse_csr:
            crow, col, value = (
                np.asarray(t) for t in (weight.crow_indices(), weight.col_indices(), weight.values().detach())
            )
            out, shape = np.repeat(np.arange(len(crow) - 1), np.diff(crow)), tuple(weight.shape)
        else:
            dense = _matrix(weight)
            out, col = np.nonzero(dense)
            value, shape = dense[out, col], dense.shape
        keep = np.flatnonzero((value != 0) & np.isfinite(value))
        order = keep[np.argsort(-np.abs(value[keep]), kind="stable")]
        return cls(out[order], col[order], value[order].astype(np.float64), *shape)

    def into_outputs(self, outs: Sequence[int]) -> Wires:
        """Only the wires into the given outputs."""
        keep = np.isin(self.out, list(outs))
        return Wires(self.out[keep], self.into[keep], self.weight[keep], self.outputs, self.inputs)

    def __len__(self) -> int:
        return len(self.weight)


def _matrix(weight: Any) -> np.ndarray:
    try:
        whole = weight.detach().double().cpu() if fits(weight, torch.Tensor) else weight
        dense = np.asarray(whole, dtype=np.float64)
    except (TypeError, ValueError):  # ragged, of texts, on no device
        dense = np.zeros(0)
    if dense.ndim != 2:
        raise DataError(f"expected a Connector or a matrix [out, in]; got {found(weight)}")
    return dense
