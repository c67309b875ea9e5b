"""What a basis is, and what the house asks of a recipe beyond `fit`, with the answers of one that has nothing to say.

A recipe is any object with `fit(segments, acts) -> dict[hook_name, Basis]`. Recipes of ours say more (how many features there
will be, what training takes, whether hook points are fitted apart); `as_recipe` gives anybody else's the answers below.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from ..errors import ConfigError, DataError
from ..errors.protocol import Foreign, completed
from ..models.placing import HOST, rows_there
from ..segments import Segment
from ..store.estimate import Estimate, in_all, reading


@runtime_checkable
class Basis(Protocol):
    """Coordinates at a hook point. sae-lens SAEs satisfy it as they are."""

    def encode(self, x: Float[Tensor, "rows d"]) -> Float[Tensor, "rows f"]: ...

    def decode(self, f: Float[Tensor, "rows f"]) -> Float[Tensor, "rows d"]: ...


@runtime_checkable
class BasisRecipe(Protocol):
    """Settings from which bases are fitted, all segments at once: rotations of neighbours are coupled."""

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]: ...


def check_there(acts: Mapping[str, Tensor], hooks: Iterable[str]) -> None:
    """Refuse a fit at hook points whose activations were not collected.

    Raises:
        DataError: the first hook point that is missing, and those that are there.
    """
    for hook in hooks:
        if hook not in acts:
            raise DataError(
                f"there are no activations at {hook}, but at {', '.join(acts) or 'no hook point'}: expected those at both ends of "
                "every segment. collect(model, batches, segments) gives them"
            )


class AtWork(Mapping[str, Tensor]):
    """The rows of every hook point, brought to the segments' device when they are asked for.

    Those that are too many for it stay in the host's memory: for training that draws batches from them.
    """

    def __init__(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]):
        self.acts = acts
        self.device = segments[0].device if segments else HOST

    def __getitem__(self, hook: str) -> Tensor:
        check_there(self.acts, [hook])
        return rows_there(self.acts[hook], self.device)

    def at(self, hooks: Iterable[str]) -> Iterator[tuple[str, Tensor]]:
        """Hook point after hook point, with its rows."""
        return ((hook, self[hook]) for hook in hooks)

    def __iter__(self) -> Iterator[str]:
        return iter(self.acts)

    def __len__(self) -> int:
        return len(self.acts)


class RecipeDefaults:
    """The optional parts of the protocol; a recipe overrides what it knows better."""

    #: whether each hook point's basis is fitted apart from the others', so that processes can share the hook points
    apart: bool = False
    #: whether all processes fit each basis together, a part of every batch each
    data_parallel: bool = False
    #: whether the wires to its output features are built in (a gate dictionary's are)
    has_wires: bool = False
    #: whether its bases are rotations, which a report sets beside their nulls
    is_rotation: bool = False

    def preflight(self, hook: str, width: int) -> None:
        """Refuse what can be refused without activations."""

    def fit_at(self, hook: str, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> Any:
        """The basis of one hook point alone.

        Raises:
            DataError: no end of these segments.
        """
        found = self.fit(segments, acts)  # pyright: ignore[reportAttributeAccessIssue]
        if hook not in found:
            raise DataError(f"{hook} is no end of these segments: expected one of {', '.join(found)}")
        return found[hook]

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        """How many features there will be, and how many of them are active in a row."""
        return width, float(width)

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """Memory of the fit at one hook point; on disk what its basis takes."""
        features, _ = self.shape_at(hook, width)
        parts = {"the activations": reading(rows, [width]), "directions and their copies": 4 * 4 * width * features}
        return in_all("bases", parts, disk=4 * width * features)

    def for_null(self, hook: str, width: int, features: int, active: float, seed: int) -> Any | None:
        """The recipe with which a model of random weights gets a dictionary of its own; None where none can be had in seconds.

        Args:
            features, active: of the basis at hand: a published one is answered with another as wide and as active.
        """
        return self

    def watched(self, progress: bool) -> Any:
        """The recipe with a progress bar, or without, where it has one."""
        own: Any = self
        return replace(own, progress=progress) if "progress" in getattr(own, "__dataclass_fields__", {}) else own


class ForeignRecipe(Foreign, RecipeDefaults):
    """Somebody else's recipe: `fit` is its own, and so is whatever else of the protocol it has."""

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Any]:
        """The user's own fit; what comes of it is still to be taken in."""
        return self.own.fit(segments, acts)


def is_recipe(thing: Any) -> bool:
    """Whether bases are yet to be fitted from it."""
    return callable(getattr(thing, "fit", None))


def as_recipe(recipe: Any) -> Any:
    """The recipe with the whole protocol.

    Raises:
        ConfigError: an object without `fit`, or the class instead of an object of it.
    """
    fit = (
        "fit(segments, acts) -> dict of bases: the BasisRecipe protocol asks for it. "
        "See gatelens.basis; a fitted basis goes into a mapping, hook name -> basis"
    )
    return completed(recipe, "recipe", RecipeDefaults, ForeignRecipe, ConfigError, fit)
