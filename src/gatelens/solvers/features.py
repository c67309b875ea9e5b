"""Features as every solver takes them: two matrices of real numbers over the same rows, dense or sparse CSR."""

from __future__ import annotations

import torch
from torch import Tensor

from ..errors import SolverError


def check_features(f_in: Tensor, f_out: Tensor) -> None:
    """Refuse what is no pair of feature matrices over the same rows, before any work.

    Raises:
        SolverError: another number of dimensions, another layout than dense or CSR, values that are no real numbers, no rows, or
            different ones.
    """
    for name, f in (("f_in", f_in), ("f_out", f_out)):
        if f.ndim != 2 or f.layout not in (torch.strided, torch.sparse_csr) or not f.is_floating_point():
            raise SolverError(
                f"{name} is {f.dtype} of shape {list(f.shape)} and layout {f.layout}: expected real numbers "
                "[rows, features], dense or sparse CSR. basis.encode(acts[hook]) gives them"
            )
    if len(f_in) != len(f_out) or len(f_in) == 0:
        raise SolverError(
            f"f_in has {len(f_in)} rows and f_out {len(f_out)}: expected the same rows, at least one. Read both from one "
            "collection of activations"
        )
