"""Rows about dictionaries by whatever door they come: objects in Python, `use:` in a config, and inside another recipe."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from fault import Fault, Injected, config_values
from torch import Tensor

import gatelens as gl
from gatelens.errors import BasisError
from gatelens.pipeline import run
from gatelens.pipeline.config import check_config

GATES = {"fan_in": 2, "l0": 2, "samples": 300, "rounds": 1}


class Plain:
    """Neurons: what is good, and what the bad ones are made of."""

    def __init__(self, d: int):
        self.d = d

    def encode(self, x: Tensor) -> Tensor:
        return x.relu()

    def decode(self, f: Tensor) -> Tensor:
        return f


class Bent(Plain):
    def decode(self, f: Tensor) -> Tensor:
        return f.tanh()


class OverTheBatch(Plain):
    def encode(self, x: Tensor) -> Tensor:
        return (x - x.mean(0)).relu()


class Remembers(Plain):
    def encode(self, x: Tensor) -> Tensor:
        self.size = x.norm(dim=1, keepdim=True)[:1]
        return x.relu()

    def decode(self, f: Tensor) -> Tensor:
        return f * self.size


class NotANumber(Plain):
    def encode(self, x: Tensor) -> Tensor:
        return x * torch.nan


class Complex(Plain):
    def encode(self, x: Tensor) -> Tensor:
        return x.to(torch.complex64)


class Featureless(Plain):
    def encode(self, x: Tensor) -> Tensor:
        return x[:, :0]


class OneNumber(Plain):
    def encode(self, x: Tensor) -> Tensor:
        return x.sum(1)


class Lists(Plain):
    def encode(self, x: Tensor) -> Any:
        return x.tolist()


class NoDecode:
    def __init__(self, d: int):
        pass

    def encode(self, x: Tensor) -> Tensor:
        return x


class Saturates(Plain):
    """Affine where it is tried, bent at the scale of data that are a thousand times as large."""

    def decode(self, f: Tensor) -> Tensor:
        return f.clamp(max=2_000.0)


#: kind -> (what is given for a hook point of width d, what is said of it)
BAD: dict[str, tuple[Callable[[int], Any], str]] = {
    "bent": (Bent, "decodes by a function that is not affine"),
    "over the batch": (OverTheBatch, "encodes a row otherwise when it comes alone"),
    "remembers": (Remembers, "decodes the same features otherwise after other rows"),
    "not a number": (NotANumber, "encodes finite rows to NaN or infinity"),
    "complex": (Complex, "encodes to torch.complex64"),
    "featureless": (Featureless, "has no features"),
    "one number": (OneNumber, "a row for each row"),
    "lists": (Lists, "encodes [8, d] to list"),
    "no decode": (NoDecode, "without encode and decode"),
    "the class": (lambda d: Plain, "is the class Plain"),
    "a recipe": (lambda d: gl.Neurons(), "is a recipe"),
    "nothing": (lambda d: None, "got NoneType"),
}


class Given:
    """A recipe of a user's, whose dictionaries are of one of the kinds."""

    def __init__(self, kind: str = "bent"):
        self.kind = kind

    def fit(self, segments: Any, acts: Any) -> dict[str, Any]:
        made = BAD[self.kind][0]
        return {h: made(acts[h].shape[1]) for s in segments for h in (s.hook_in, s.hook_out)}


@functools.cache
def walked(size: float = 1.0) -> Any:
    """A small model, its segment and its activations; `size`: of what it computes."""
    model = gl.HookedMLP((64, 8, 8, 10))
    with torch.no_grad():
        model.layers[0].weight *= size
    segments = gl.mlp_segments(model)
    return model, segments, gl.collect(model, gl.image_batches("digits", rows=(60, 20))[0], segments)


def in_python(recipe: Any, size: float = 1.0) -> Any:
    model, segments, acts = walked(size)
    return gl.build_circuit(model, segments, recipe.fit(segments, acts), acts, gl.ReluOMP(max_fan_in=2), gates=False)


def in_a_recipe(recipe: Any, side: str) -> Any:
    _, segments, acts = walked()
    sides: dict[str, Any] = {"inputs": gl.Neurons(), "outputs": gl.Neurons(), side: recipe}
    return gl.GateDictionary(**GATES, **sides).fit(segments, acts)


def in_a_config(bases: Mapping[str, Any], folder: Path) -> Any:
    return run(check_config(config_values() | {"bases": bases}), folder, until="bases")


def at_every_door(kind: str) -> Any:
    """Refused in the same words wherever it comes in; what is said in Python is raised again."""

    def inject(folder: Path) -> Injected:
        use, neurons = {"use": "rows_doors:Given", "kind": kind}, {"use": "Neurons"}
        nested = GATES | {"use": "GateDictionary", "inputs": use, "outputs": neurons}
        doors = {
            "python": lambda: in_python(Given(kind)),
            "inputs": lambda: in_a_recipe(Given(kind), "inputs"),
            "outputs": lambda: in_a_recipe(Given(kind), "outputs"),
            "config": lambda: in_a_config(use, folder / "a"),
            "inputs in a config": lambda: in_a_config(nested, folder / "b"),
        }

        def act() -> None:
            raised = {}
            for door, through in doors.items():
                try:
                    through()
                except Exception as error:
                    raised[door] = error
            assert set(raised) == set(doors), f"{set(doors) - set(raised)} let it through"
            assert all(BAD[kind][1] in str(error) for error in raised.values()), raised
            raise raised["python"]

        return Injected(act)

    return inject


class Everywhere:
    """One kind of dictionary at every hook point."""

    def __init__(self, kind: Any):
        self.kind = kind

    def fit(self, segments: Any, acts: Any) -> dict[str, Any]:
        return {hook: self.kind(acts[hook].shape[1]) for hook in acts}


def beside_large_rows(kind: Any) -> Any:
    return lambda folder: Injected(lambda: in_python(Everywhere(kind), size=30_000.0))


ROWS = [
    *(Fault(45, f"a dictionary: {kind}", at_every_door(kind), BasisError, (says,)) for kind, (_, says) in BAD.items()),
    Fault(
        45,
        "a dictionary that saturates at the data's scale",
        beside_large_rows(Saturates),
        BasisError,
        ("on the data's own rows", "not affine"),
        guard={"gatelens.basis.trial._of_data": lambda *arguments: None},
    ),
    Fault(45, "a dictionary that does not", beside_large_rows(Plain)),
]
