"""What a solver or a basis of one's own must do, as checks that its author can run."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..connectors import Connector, Solver
from ..errors import BasisError, ConfigError, GateLensError, SolverError
from .features import PlantedFeatures
from .scores import score_wires
from .truth import Noise


def check_solver(solver: Solver, width: int = 64, rows: int = 4000, least_recall: float = 0.8) -> list[str]:
    """Check that a solver keeps the contract, on planted COPY and OR gates almost without noise.

    Args:
        solver: `fit(f_in, f_out) -> Connector`.
        width, rows: size of the planted data.
        least_recall: share of the planted wires that must be among the connector's wires, with their sign.

    Returns:
        The names of the checks, all passed.

    Raises:
        SolverError: naming the first check that failed, what was expected and what came. ConfigError: no rows.
    """
    if rows < 1:
        raise ConfigError(f"check_solver: expected rows to check on, got {rows}")
    planted = PlantedFeatures(
        width_in=width, width_out=width // 2, cluster=16, shadows=0.0, background_l0=1.0, active_clusters=1.0,
        mix={"copy": 0.5, "or": 0.5}, noise=Noise(0.0, 0.0, 0.0, 0.02),
    ).plant()  # fmt: skip
    sparse_in, sparse_out = planted.sample(rows)
    f_in, f_out = sparse_in.to_dense(), sparse_out.to_dense()
    before = f_in.clone(), f_out.clone()
    passed: list[str] = []

    def check(name: str, holds: bool, came: str) -> None:
        if not holds:
            raise SolverError(
                f"{type(solver).__name__} fails the check '{name}': {came}. Correct it before a circuit is built"
            )
        passed.append(name)

    check("has fit(f_in, f_out)", isinstance(solver, Solver), "it has no method `fit`")
    connector = solver.fit(f_in, f_out)
    check("returns a Connector", isinstance(connector, Connector), f"fit returned {type(connector).__name__}")
    n, m = connector.weight.shape
    check("weight is [outputs, inputs]", (n, m) == (width // 2, width), f"expected {(width // 2, width)}, got {(n, m)}")
    check("leaves its inputs alone", torch.equal(f_in, before[0]) and torch.equal(f_out, before[1]), "fit changed them")
    check("predicts for each row", connector(f_in).shape == f_out.shape, f"got shape {tuple(connector(f_in).shape)}")
    again = solver.fit(f_in, f_out)
    same = torch.equal(again.weight.to_dense(), connector.weight.to_dense()) and torch.equal(again.bias, connector.bias)
    check("gives the same for the same data", same, "a second fit differs; take a seed as a setting")
    from_sparse = solver.fit(sparse_in, sparse_out).weight.to_dense()
    close = torch.allclose(from_sparse, connector.weight.to_dense(), rtol=1e-3, atol=1e-4)
    check("reads sparse CSR as it reads dense", close, "the two fits differ")
    swapped = solver.fit(f_in, f_out.flip(1)).weight.to_dense().flip(0)
    close = torch.allclose(swapped, connector.weight.to_dense(), rtol=1e-2, atol=1e-3)
    check("treats outputs alike", close, "the wires depend on the order of the outputs")
    total = score_wires(planted.gates, connector).total
    recall = total.signed / total.true
    check("finds planted wires", recall >= least_recall, f"it found {recall:.0%} of them, expected {least_recall:.0%}")
    error = _raised(lambda: solver.fit(f_in, f_out[:-1]))
    came = "it fitted them" if error is None else f"{type(error).__name__} came: {error}"
    ours = isinstance(error, GateLensError)
    check("refuses unequal rows", ours, f"f_in and f_out over different rows: {came}; raise a SolverError that says so")
    return passed


def check_basis(basis: Any, width: int, rows: int = 256, seed: int = 0) -> list[str]:
    """Check that a basis keeps the contract at a hook point of some width, on normally distributed rows.

    Returns:
        The names of the checks, all passed.

    Raises:
        BasisError: naming the first check that failed, what was expected and what came. ConfigError: no rows, or no width.
    """
    if rows < 1 or width < 1:
        raise ConfigError(f"check_basis: expected rows of some width, got {rows} of {width}")
    x = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
    before, passed = x.clone(), []

    def check(name: str, holds: bool, came: str) -> None:
        if not holds:
            raise BasisError(f"{type(basis).__name__} fails the check '{name}': {came}. Correct it before it is used")
        passed.append(name)

    for method in ("encode", "decode"):
        check(f"has {method}", callable(getattr(basis, method, None)), f"it has no method `{method}`")
    with torch.no_grad():
        f = basis.encode(x)
        check("encodes to [rows, features]", f.ndim == 2 and len(f) == rows, f"got shape {tuple(f.shape)}")
        back = basis.decode(f)
        check("decodes to [rows, width]", back.shape == x.shape, f"expected {tuple(x.shape)}, got {tuple(back.shape)}")
        finite = bool(torch.isfinite(f).all() and torch.isfinite(back).all())
        check("finite", finite, "NaN or infinity came from finite rows")
        check("leaves its input alone", torch.equal(x, before), "encode changed the rows that it was given")
        check("gives the same for the same rows", torch.equal(basis.encode(x), f), "a second call differs")
        close = torch.allclose(basis.encode(x[: rows // 2]), f[: rows // 2], rtol=1e-3, atol=1e-4)
        check("reads each row by itself", close, "a row's features depend on the other rows of the call")
        rest = basis.decode(torch.zeros_like(f[:1]))
        pair = basis.decode(f[:1] + f[1:2])
        close = torch.allclose(pair - rest, (back[:1] - rest) + (back[1:2] - rest), rtol=1e-3, atol=1e-3)
        check("decodes linearly", close, "decode(a + b) - decode(0) is not the sum of the two parts")
    return passed


def _raised(call: Callable[[], Any]) -> Exception | None:
    try:
        call()
    except Exception as error:
        return error
    return None
