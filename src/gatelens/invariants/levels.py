"""Level sets: all the structure that a function between finite sets keeps under every relabelling of both sides.

When both sets may be relabelled freely, two functions are the same exactly when their level sets have the same sizes
(J. Wentworth, "Coordinate-Free Interpretability Theory", 2022, starts from this). A chain of functions keeps more: how
the level sets of one lie within those of the next.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..errors import DataError


@dataclass(frozen=True)
class LevelSets:
    """The level sets of one function on a finite domain.

    Attributes:
        sizes: how many inputs share each value, the largest first; inputs = sum(sizes).
        intermediate: the smallest set through which the function factors, F(G(x)): its number of distinct values.
    """

    sizes: tuple[int, ...]

    @property
    def intermediate(self) -> int:
        return len(self.sizes)

    def __repr__(self) -> str:
        return f"LevelSets({sum(self.sizes)} inputs -> {self.intermediate} values; sizes {', '.join(map(str, self.sizes))})"


def level_sets(
    function: Mapping[Any, Hashable] | Callable[[Any], Hashable], domain: Iterable[Hashable] | None = None
) -> LevelSets:
    """Sizes of the level sets of a function given as a mapping, or as a callable with its domain.

    Raises:
        DataError: an empty domain, or a callable without one.
    """
    values = list(_table(function, domain).values())
    return LevelSets(tuple(sorted(Counter(values).values(), reverse=True)))


def chain_form(functions: Sequence[Mapping[Any, Hashable]]) -> tuple:
    """A form that two chains f_1, f_2, .. share exactly when relabelling every set, ends included, turns one into the other.

    The chain is a forest whose roots are the last function's values; the form is its canonical bracketing: each node is
    the sorted tuple of its preimages' forms, an element of the first set is ().

    Raises:
        DataError: no function, or a value that the next function is not defined on.
    """
    if not functions:
        raise DataError("expected at least one function, got an empty chain. Give a list of mappings")
    forms: dict[Hashable, tuple] = dict.fromkeys(functions[0], ())
    for place, function in enumerate(functions):
        missing = set(forms) - set(function)
        if missing:
            raise DataError(
                f"function {place} of the chain is not defined on {sorted(map(repr, missing))[0]}, which the one before "
                "it yields. Give every function a value for each element that can reach it"
            )
        preimages: dict[Hashable, list[tuple]] = {y: [] for y in function.values()}
        for x, y in function.items():
            preimages[y].append(forms.get(x, ()))
        forms = {y: tuple(sorted(below)) for y, below in preimages.items()}
    return tuple(sorted(forms.values()))


def _table(
    function: Mapping[Any, Hashable] | Callable[[Any], Hashable], domain: Iterable[Hashable] | None
) -> dict[Any, Hashable]:
    if isinstance(function, Mapping):
        table = dict(function)
    elif domain is None:
        raise DataError("a callable needs its domain: expected a finite set of inputs, got none. Give `domain`")
    else:
        table = {x: function(x) for x in domain}
    if not table:
        raise DataError("the domain is empty: expected at least one input, got none")
    return table
