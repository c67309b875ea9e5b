"""Whether a dictionary fits the activations that it is used on: measured, with the likely cause when it does not.

An SAE that was trained on a model with other folding, centring, BOS or norm scale encodes and decodes without a word;
only its explained variance tells.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, GateLensWarning
from ...models.placing import place_of

LOW = 0.5  # explained variance that calls for a warning when nothing better is known
SHORTFALL = 0.1  # below what was expected
CLEARLY = 0.05  # more than the simpler cause
_ROWS = 1024  # on which a dictionary at hand is tried


@dataclass(frozen=True)
class Fitness:
    """How a basis does on rows of a hook point.

    Attributes:
        explained_variance: 1 - FVU over the rows, against their mean.
        l0: active features in a row.
        dead: share of features that fire on no row of the sample.
        rows: how many were looked at.
        cause: what would make it fit better; "" when nothing was found, or not looked for because it fits.
    """

    explained_variance: float
    l0: float
    dead: float
    rows: int
    cause: str = ""


def measure_fit(basis: Any, x: Float[Tensor, "rows d"]) -> Fitness:
    """Explained variance, L0 and, when less than `LOW` is explained, the likely cause.

    Raises:
        BasisError: fewer than two rows, or rows that do not vary.
    """
    if len(x) < 2 or not _variance(x) > 0:
        raise BasisError(
            f"expected rows that vary, got {len(x)} rows of variance 0: the fit of a basis cannot be measured"
        )
    explained, f = _explained(basis, x)
    l0, dead = ((f > 0).sum(-1).double().mean().item(), (~(f > 0).any(0)).double().mean().item())
    return Fitness(explained, l0, dead, len(x), _cause(basis, x, explained) if explained < LOW else "")


def check_fit(
    basis: Any,
    hook: str,
    x: Float[Tensor, "rows d"],
    expected_variance: float | None = None,
    expected_l0: float | None = None,
) -> Fitness:
    """Measure, warn when it disagrees with what is expected, refuse when the mean explains more.

    Args:
        expected_variance, expected_l0: as published; None for not known (then `LOW` is the limit).

    Raises:
        BasisError: explained variance below zero.
    """
    fit = measure_fit(basis, x)
    found = (
        f"the SAE for {hook} explains {fit.explained_variance:.3f} of the variance of {fit.rows} rows "
        f"at an L0 of {fit.l0:.1f}"
    )
    wanted = f", expected {expected_variance:.3f}" if expected_variance is not None else ""
    if not fit.cause and expected_variance is not None and fit.explained_variance < expected_variance - SHORTFALL:
        fit = replace(fit, cause=_cause(basis, x, fit.explained_variance))
    cause = f". Likely cause: {fit.cause}" if fit.cause else ""
    if not fit.explained_variance > 0:
        raise BasisError(
            f"{found}{wanted}: less than their mean does. It was made for another hook point or another loading "
            f"of the model{cause}. "
            "Load the model as the SAE's card says (load_model's options), or choose another SAE"
        )
    limit = LOW if expected_variance is None else expected_variance - SHORTFALL
    if fit.explained_variance < limit:
        advice = cause or ". Compare hook point, folding, centring, BOS and tokenizer with what it was trained on"
        warnings.warn(f"{found}{wanted}{advice}", GateLensWarning, stacklevel=2)
    elif expected_l0 is not None and not expected_l0 / 2 <= fit.l0 <= expected_l0 * 2:
        warnings.warn(f"{found}, expected an L0 of {expected_l0:.1f}{cause}", GateLensWarning, stacklevel=2)
    return fit


def warn_made_for(basis: Any, hook: str, name: str = "") -> None:
    """Say that a dictionary was trained at another hook point, where its settings tell."""
    made_for = _made_for(basis)
    if made_for and made_for != hook:
        message = f"the SAE {name or type(basis).__name__} was trained at {made_for}, it is used at {hook}"
        warnings.warn(message, GateLensWarning, stacklevel=3)


def check_at_hand(basis: Any, hook: str, x: Float[Tensor, "rows d"]) -> None:
    """A dictionary that a user gives is held against the rows that it is to encode, as one from a file is.

    Raises:
        BasisError: it says where it was made, and explains less than the mean here. Of one that does not say this is a warning.
    """
    if not hasattr(getattr(basis, "cfg", None), "d_sae") or not callable(getattr(basis, "encode", None)):
        return
    warn_made_for(basis, hook)
    x = x[:_ROWS].to(place_of(basis, x.device))
    if len(x) < 2 or not _variance(x) > 0 or _explained(basis, x)[0] > 0:
        return  # how much is in every report
    try:
        check_fit(basis, hook, x)
    except BasisError as error:
        if _made_for(basis):
            raise
        warnings.warn(str(error), GateLensWarning, stacklevel=2)


def _made_for(basis: Any) -> str | None:
    return getattr(getattr(basis.cfg, "metadata", None), "hook_name", None)


def _variance(x: Tensor) -> float:
    return (x - x.mean(0)).double().square().sum().item()


@torch.no_grad()
def _explained(basis: Any, x: Tensor) -> tuple[float, Tensor]:
    """The explained variance of rows that vary, and their features."""
    f = basis.encode(x)
    return 1 - (x - basis.decode(f)).double().square().sum().item() / _variance(x), f


def _cause(basis: Any, x: Tensor, explained: float) -> str:
    """Which loading the SAE seems to expect: the change of the rows that it explains clearly better, the simplest first."""
    rows = x - x.mean(-1, keepdim=True)
    rms = x.square().mean(-1, keepdim=True).sqrt().clamp_min(1e-12)
    norms = x.norm(dim=-1)
    ordinary = norms < 4 * norms.median()
    best, cause = explained, ""
    scale = (x.shape[-1] ** 0.5 / norms.mean()).item()
    changes = {
        "BOS or padding (it explains more without the rows of outlying norm: leave those positions out)": x[ordinary],
        "centring (it explains more once each row's own mean is taken off: center_writing_weights=True)": rows,
        "norm scale (it explains more once all rows are scaled to a mean norm of the root of the width)": x * scale,
        "LayerNorm (it explains more once each row is normalised: another hook point, or folding)": rows / rms,
    }
    for name, changed in changes.items():
        if len(changed) < 2 or (len(changed) == len(x) and torch.equal(changed, x)):
            continue
        value = _explained(basis, changed)[0] if _variance(changed) > 0 else -1.0
        if value > best + CLEARLY:
            best, cause = value, name
    return cause
