"""Effects: the second half of an output's reading. Where it is on, which outputs of the model it favours, and whether those come."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import scipy.sparse
import torch
from jaxtyping import Float, Int
from torch import Tensor

from .agreement import CLEAR, Rows, agreement
from .logit_effects import LogitEffects

#: outputs of the model, current and previous tokens that are named
_NAMED = 3
#: outputs of the model that are kept of each feature
_FAVOURED = 5
#: a token is among them if it comes next so many times, and in this share of the rows
_SEEN, _SHARE = 3, 5e-5
#: a token is named from this share of the rows where the output is on
_OFTEN = 0.1


@dataclass(frozen=True)
class Effect:
    """IF this output is on THEN these are favoured: tokens or classes, by number.

    Attributes:
        over: "tokens" or "classes". favoured: the most raised of those that are seen to come, the strongest first.
        at: the current tokens at which it is mostly on, the most frequent first; after: the ones before these.
        rows: on which it is on and something is known to come next.
        mean, t: agreement with what really comes next, and its t over documents; held, held_t: with the current token held fixed. None
            where too few rows say.
        null: the t that one in twenty of other outputs' favours exceeds on the same rows; None where there are too few others.
    """

    over: str
    favoured: tuple[int, ...]
    at: tuple[int, ...] = ()
    after: tuple[int, ...] = ()
    rows: int = 0
    mean: float | None = None
    t: float | None = None
    held: float | None = None
    held_t: float | None = None
    null: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether what it favours clearly comes more often where it is on."""
        return self.t is not None and self.t > CLEAR

    @property
    def over_null(self) -> bool:
        """Whether it does, and more than nineteen in twenty other outputs would on the same rows."""
        return self.agrees and self.null is not None and (self.t or 0.0) > self.null

    def to_json(self) -> dict[str, Any]:
        """Plain numbers, lists and strings; `from_json` reads them back to the same value."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Effect:
        plain: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in values.items()}
        return cls(**plain)

    def sentence(self, name: Callable[[int], str], of_rule: str = "") -> str:
        """`of (after all, one, well) -> us, them, her`.

        Args:
            name: what a token or class is called.
            of_rule: what to say before the arrow where no token stands for the rows; the rule in words.
        """
        where = ", ".join(map(name, self.at)) or of_rule or "many tokens"
        after = f" (after {', '.join(map(name, self.after))})" if self.after else ""
        return f"{where}{after} -> {', '.join(map(name, self.favoured[:_NAMED]))}"


@dataclass(frozen=True)
class _Noted(LogitEffects):
    """Effects that note what each block favours, among what is seen, while they are gone through: they are computed once."""

    seen: Tensor | None = None
    favourites: list[np.ndarray] = field(default_factory=list)

    def blocks(self) -> Iterator[tuple[int, Float[Tensor, "block outputs"]]]:
        for start, z in super().blocks():
            common = z if self.seen is None else z.masked_fill(~self.seen.to(z.device), -torch.inf)
            self.favourites.append(common.topk(min(_FAVOURED, z.shape[1])).indices.cpu().numpy())
            yield start, z


def output_effects(
    effects: LogitEffects, f_out: scipy.sparse.csr_matrix, levels: Float[np.ndarray, " n"], rows: Rows
) -> list[Effect]:
    """The effect of every output, in order, with its agreement on these rows.

    Raises:
        DataError: features of other rows, or no row of which it is known what comes next.
    """
    noted = _Noted(effects.directions, effects.readout, effects.over, _common(effects, rows))
    found = agreement(noted, f_out, levels, rows)
    favoured = np.concatenate(noted.favourites)
    columns, read = f_out.tocsc(), []
    for out in range(f_out.shape[1]):
        span = slice(columns.indptr[out], columns.indptr[out + 1])
        on = columns.indices[span][columns.data[span] > levels[out]]
        at, after = _where(rows, on) if effects.over == "tokens" else ((), ())
        figures = (found.mean, found.t, found.held, found.held_t, found.null)
        read.append(
            Effect(
                effects.over, tuple(favoured[out].tolist()), at, after, int(found.rows[out]), *(_known(f[out]) for f in figures)
            )
        )  # fmt: skip
    return read


def _common(effects: LogitEffects, rows: Rows) -> Tensor | None:
    """[outputs] tokens that come next now and then: vocabularies hold thousands that hardly ever do, and these lie furthest out.

    None where too few of them are seen to choose among, and for classes.
    """
    count = np.bincount(rows.target[rows.target >= 0], minlength=effects.readout.shape[1])
    seen = count >= max(_SEEN, _SHARE * count.sum())
    return torch.from_numpy(seen) if effects.over == "tokens" and seen.sum() >= _FAVOURED else None


def _where(rows: Rows, on: Int[np.ndarray, " on"]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens at which an output is mostly on, and the ones before these."""
    at = _frequent(rows.token[on], len(on))
    before = rows.before[on][np.isin(rows.token[on], at)]
    return at, _frequent(before[before >= 0], len(on)) if at else ()


def _frequent(tokens: np.ndarray, whole: int) -> tuple[int, ...]:
    found, count = np.unique(tokens, return_counts=True)
    order = np.argsort(-count, kind="stable")[:_NAMED]
    return tuple(int(found[i]) for i in order if count[i] >= _OFTEN * whole)


def _known(x: Any) -> float | None:
    return float(x) if isfinite(x) else None


def favourites(effects: Sequence[Effect | None]) -> dict[str, float | int | None]:
    """How many outputs were judged, and of these the shares that clearly agree and disagree, also with the token held.

    `agree_over_null`: those that agree more than nineteen in twenty others would on the same rows; None where no null was had.
    """
    judged = [e for e in effects if e is not None and e.t is not None]
    held = [e.held_t for e in judged if e.held_t is not None]

    def share(which: Sequence[bool]) -> float | None:
        return sum(which) / len(judged) if judged else None

    return {
        "outputs": len(judged),
        "agree": share([e.agrees for e in judged]),
        "agree_over_null": share([e.over_null for e in judged]) if any(e.null is not None for e in judged) else None,
        "disagree": share([(e.t or 0.0) < -CLEAR for e in judged]),
        "agree_held": share([t > CLEAR for t in held]),
        "disagree_held": share([t < -CLEAR for t in held]),
    }
