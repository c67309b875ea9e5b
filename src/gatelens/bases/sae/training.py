"""The settings that every dictionary trained by gradient descent has, and what can be refused before any row is read."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ...errors import BasisError, NonFiniteError


@dataclass(frozen=True, kw_only=True)
class DictionaryTraining:
    """Settings shared by the recipes that train sparse dictionaries.

    Attributes:
        expansion: features per dimension; `d_sae` overrides it.
        k: mean or exact number of active features.
        samples: rows seen in training, with repetition. lr, batch_size: of Adam.
        seed: of the initial weights and of the order of rows.
        progress: show a bar on standard error.
    """

    expansion: int = 8
    d_sae: int | None = None
    k: float = 32
    samples: int = 1_000_000
    batch_size: int = 512
    lr: float = 2e-3
    seed: int = 0
    progress: bool = False

    def __post_init__(self):
        counts = {name: getattr(self, name) for name in ("expansion", "d_sae", "k", "samples", "batch_size")}
        wrong = {name: value for name, value in counts.items() if value is not None and value < 1}
        if wrong or self.lr <= 0:
            found = ", ".join(f"{name} = {value}" for name, value in (wrong or {"lr": self.lr}).items())
            raise BasisError(
                f"expansion, d_sae, k, samples and batch_size must be at least 1, and lr positive; got {found}"
            )

    def width_for(self, d: int, limited: bool = True) -> int:
        """The number of features for a hook point of width d.

        Raises:
            BasisError: more active features asked for than there are (where `limited`: the activation keeps k).
        """
        width = self.d_sae or self.expansion * d
        if limited and self.k > width:
            raise BasisError(
                f"k = {self.k} active features were asked of a dictionary of {width}; choose k <= {width}, or a larger d_sae"
            )
        return width


def check_rows(x: Float[Tensor, "rows d"], what: str) -> None:
    """Refuse rows from which nothing can be learned, before training.

    Raises:
        BasisError: no rows, or all of them equal. NonFiniteError: NaN or infinity, with the first row that holds one.
    """
    if len(x) == 0:
        raise BasisError(
            f"a dictionary of {what} needs rows: got none. Collect activations of at least a few thousand rows"
        )
    finite = torch.isfinite(x).all(dim=1)
    if not finite.all():
        raise NonFiniteError(
            f"{what} hold NaN or infinity in {int((~finite).sum())} rows, first in row {int((~finite).nonzero()[0])}: expected "
            "finite activations. Look at the model and its inputs"
        )
    if (x == x[0]).all():
        raise BasisError(f"{what} are the same in every row: there is nothing to explain. Collect more varied inputs")
