"""Drawing gates: each kind's parents, weights and bias, from a world of inputs."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ..errors import ConfigError, unknown
from .inputs import InputWorld
from .truth import ACCEPTED, INHIBITED, PlantedGate


def draw_gates(world: InputWorld, count: int, mix: Mapping[str, float], rng: np.random.Generator) -> list[PlantedGate]:
    """`count` gates, kinds in the shares of `mix`, in random order over the outputs."""
    for kind in mix:
        if kind not in ACCEPTED:
            raise ConfigError(unknown("kind of planted gate", kind, ACCEPTED))
    share = np.array(list(mix.values()), float)
    if not len(share) or (share < 0).any() or share.sum() <= 0:
        raise ConfigError(
            f"a mix gives each kind a positive share; got {dict(mix)}. Give at least one share above zero"
        )
    wires = np.floor(np.cumsum(share / share.sum()) * count + 0.5).astype(int)
    kinds = np.repeat(np.array(list(mix), dtype=object), np.diff(wires, prepend=0))
    parents = _Parents(world, rng)
    return [_DRAW[kind](out, parents, rng) for out, kind in enumerate(rng.permutation(kinds))]


class _Parents:
    """Chooses parents: anywhere, or several of one cluster.

    Copies and shadows are never parents: they are the confounders.
    """

    def __init__(self, world: InputWorld, rng: np.random.Generator):
        self.world, self.rng = world, rng
        fit = (world.role == "") | (world.role == "subset")
        self.everywhere = np.concatenate([np.flatnonzero(fit), np.arange(world.host.size, world.width)])
        self.free = [np.flatnonzero(row == "") for row in world.role]
        self.subset_cluster, self.subset_slot = (world.role == "subset").nonzero()

    def anywhere(self, count: int) -> list[int]:
        return [int(i) for i in self.rng.choice(self.everywhere, count, replace=False)]

    def together(self, count: int) -> list[int]:
        """Free features of one cluster: independent of each other on the rows where the cluster is active."""
        cluster = self.rng.integers(self.world.clusters)
        slots = self.rng.choice(self.free[cluster], count, replace=False)
        return [int(cluster * self.world.size + slot) for slot in slots]

    def nested(self) -> list[int]:
        """A host and a feature that fires only inside it."""
        if not len(self.subset_slot):
            raise ConfigError(
                "and_not_subset gates need features inside others; this world has none. Raise `subsets`, or leave "
                "the kind out of the mix"
            )
        i = self.rng.integers(len(self.subset_slot))
        cluster, slot = int(self.subset_cluster[i]), int(self.subset_slot[i])
        base = cluster * self.world.size
        return [base + int(self.world.host[cluster, slot]), base + slot]


def _weights(count: int, rng: np.random.Generator) -> list[float]:
    return [float(w) for w in rng.uniform(0.5, 1.5, count)]


def _inhibitor(exciters: list[float], rng: np.random.Generator) -> float:
    """Strong enough to close the gate at usual magnitudes."""
    return -float(sum(exciters) * rng.uniform(1.3, 2.0))


def _copy(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    return PlantedGate(out, "copy", tuple(parents.anywhere(1)), tuple(_weights(1, rng)), (1,), low=1)


def _or(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    count = int(rng.integers(2, 5))
    chosen = parents.anywhere(count) if rng.random() < 0.5 else parents.together(count)
    return PlantedGate(out, "or", tuple(chosen), tuple(_weights(count, rng)), (1,) * count, low=1)


def _at_least(kind: str, count: int, needed: int) -> Callable[[int, _Parents, np.random.Generator], PlantedGate]:
    def draw(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
        weights = _weights(count, rng)
        bias = -(needed - 1) * float(np.mean(weights))
        return PlantedGate(
            out, kind, tuple(parents.together(count)), tuple(weights), (1,) * count, low=needed, bias=bias
        )

    return draw


def _and_not(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    weight = _weights(1, rng)
    weights = (*weight, _inhibitor(weight, rng))
    return PlantedGate(out, "and_not", tuple(parents.together(2)), weights, (1, INHIBITED), low=1)


def _and_not_subset(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    weight = _weights(1, rng)
    weights = (*weight, _inhibitor(weight, rng))
    return PlantedGate(out, "and_not_subset", tuple(parents.nested()), weights, (1, INHIBITED), low=1)


def _mixed(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    weights = _weights(2, rng)
    weights = (*weights, _inhibitor(weights, rng))
    return PlantedGate(out, "mixed", tuple(parents.together(3)), weights, (1, 1, INHIBITED), low=1)


def _xor(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    return PlantedGate(out, "xor", tuple(parents.together(2)), tuple(_weights(2, rng)), (1, 1), low=1, high=1)


def _and_or(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    weights = _weights(3, rng)
    return PlantedGate(out, "and_or", tuple(parents.together(3)), tuple(weights), (8, 1, 1), low=9, bias=-weights[0])


def _graded(out: int, parents: _Parents, rng: np.random.Generator) -> PlantedGate:
    """A sum with a threshold amid the values of its parents: which are on does not settle whether it fires."""
    weights = _weights(3, rng)
    bias = -float(np.mean(weights))
    return PlantedGate(out, "graded", tuple(parents.together(3)), tuple(weights), (1, 1, 1), low=1, bias=bias)


_DRAW: dict[str, Callable[[int, _Parents, np.random.Generator], PlantedGate]] = {
    "copy": _copy,
    "or": _or,
    "and": _at_least("and", 2, 2),
    "k_of_n": _at_least("k_of_n", 3, 2),
    "and_not": _and_not,
    "and_not_subset": _and_not_subset,
    "mixed": _mixed,
    "xor": _xor,
    "and_or": _and_or,
    "graded": _graded,
}
