"""Ordinary text beside a prompt: how strong each feature is where it is on, and on which tokens it fires."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.sparse
from jaxtyping import Float

from ..circuits import Circuit, features_at
from ..errors import DataError
from ..gates.companions import Group, Together
from ..gates.rule import Literal
from ..gates.tables import Columns

#: rows that are looked at
ROWS = 40_000
#: a token names a feature with at least this share of its total; so many at most
LEAST, MOST = 0.15, 2


@dataclass(frozen=True, eq=False)
class Ordinary:
    """What a circuit's features do on rows that were collected elsewhere; encoded on first use.

    Attributes:
        acts: `Activations` at the circuit's hook points, or None: then nothing is known.
        text: token -> its text.
    """

    circuit: Circuit
    acts: Any
    text: Callable[[int], str]

    @cached_property
    def columns(self) -> Mapping[str, Columns]:
        """hook name -> the features of the rows, a feature at a time."""
        if self.acts is None:
            return {}
        wanted = {s.hook_in for s in self.circuit.segments} | {s.hook_out for s in self.circuit.segments}
        rows = {hook: self.acts[hook][:ROWS] for hook in wanted}
        found = features_at(self.circuit.segments, self.circuit.bases, rows)
        return {hook: Columns.of(f, hook) for hook, f in found.items()}

    def typical(self, hook: str, feature: int) -> float:
        """The mean of a feature where it is on.

        Raises:
            DataError: no rows are at hand, or none on which it fires.
        """
        if hook not in self.columns:
            raise DataError(
                f"the typical level of feature {feature} at {hook} is not known: expected acts, got none. "
                "Read the prompt with circuit.on(model, prompt, acts=collect(...)), or give a value"
            )
        level = float(self._typical[hook][feature])
        if level <= 0:
            raise DataError(
                f"feature {feature} at {hook} is on in none of {self.columns[hook].rows} rows, so that it has no typical "
                "level. Give a value"
            )
        return level

    @cached_property
    def _typical(self) -> dict[str, Float[np.ndarray, " f"]]:
        return {hook: columns.mean_on() for hook, columns in self.columns.items()}

    def group(self, hook: str, feature: int) -> Group:
        """A feature with those that come and go with it, and their means where it is on.

        Raises:
            DataError: no rows are at hand, or none on which it fires.
        """
        self.typical(hook, feature)
        return self._together[hook].groups([Literal(feature)])[Literal(feature)]

    @cached_property
    def _together(self) -> dict[str, Together]:
        found = {}
        for hook, c in self.columns.items():
            matrix = scipy.sparse.csc_matrix((np.maximum(c.value, 0), c.row, c.starts), shape=(c.rows, c.features))
            matrix.eliminate_zeros()
            found[hook] = Together(scipy.sparse.csr_matrix(matrix), matrix)
        return found

    def live(self, hook: str) -> list[int]:
        """The features that fire in some row; none where no rows are at hand."""
        return np.flatnonzero(self._typical[hook] > 0).tolist() if hook in self.columns else []

    def name(self, kind: str, hook: str, feature: int) -> str:
        """IF_17 or OF_17, with the tokens on which it fires where these are known: IF_17 ` late`."""
        if (hook, feature) not in self._tokens:
            self._tokens[hook, feature] = " ".join(f"`{text}`" for text in self._words(hook, feature))
        words = self._tokens[hook, feature]
        return f"{kind}_{feature} {words}" if words else f"{kind}_{feature}"

    @cached_property
    def _tokens(self) -> dict[tuple[str, int], str]:
        return {}

    def _words(self, hook: str, feature: int) -> list[str]:
        if hook not in self.columns:
            return []
        rows, values = self.columns[hook].on(feature)
        if not len(rows):
            return []
        ids, place = np.unique(self.acts.token[: self.columns[hook].rows].numpy()[rows], return_inverse=True)
        mass = np.bincount(place, values, len(ids))
        share = mass / max(mass.sum(), 1e-12)
        best = np.argsort(-share, kind="stable")[:MOST]
        return [self.text(int(ids[i])).strip() or repr(self.text(int(ids[i])))[1:-1] for i in best if share[i] >= LEAST]
