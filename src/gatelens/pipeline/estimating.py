"""What the rooms of a run will take, from the config, the data and the model's shapes; no forward pass is made."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..store.estimate import Estimate, collecting, features, in_all, only_the_largest
from .null_model import null_recipes
from .shapes import Shapes
from .state import State

#: positions in a shard of a run's activations
SHARD_ROWS = 32_768
#: rows that a page encodes at once
CONTEXT_ROWS = 4_096


def estimates(state: State, until: str, rooms: tuple[str, ...]) -> list[Estimate]:
    """One estimate a room up to `until`, of memory on top of model and data, and of disk."""
    shapes = Shapes.of(state)
    made = {
        "collect": _collect,
        "bases": _bases,
        "connect": _connect,
        "gates": _gates,
        "evaluate": _evaluate,
        "view": _view,
    }
    return [made[room](state, shapes) for room in rooms[: rooms.index(until) + 1]]


def _collect(state: State, shapes: Shapes) -> Estimate:
    parts = [
        collecting(rows, shapes.widths.values(), shard_rows=SHARD_ROWS, pass_bytes=shapes.a_pass())
        for rows in (shapes.fit, shapes.held_out)
    ]
    larger = _largest(parts)
    return Estimate("collect", larger.memory, sum(e.disk for e in parts), larger.parts)


def _bases(state: State, shapes: Shapes) -> Estimate:
    parts = shapes.fitting()
    return in_all("bases", _largest(parts).parts, sum(e.disk for e in parts))


def _connect(state: State, shapes: Shapes) -> Estimate:
    """The features are made from activations, then the wires from the features."""
    work = {"reading the activations": shapes.reading(shapes.fit), "the fit": shapes.solving(shapes.solver(state))}
    return in_all("connect", {"the features": shapes.features(shapes.fit)} | only_the_largest(work))


def _gates(state: State, shapes: Shapes) -> Estimate:
    return in_all("gates", {"the features": shapes.features(shapes.fit)} | _reading_gates(shapes))


def _evaluate(state: State, shapes: Shapes) -> Estimate:
    """Baselines one after the other, then the circuit; the features of the fit are at hand all the while."""
    wanted, neurons = set(state.source.evaluation.baselines), shapes.neurons()
    held = 2 * shapes.features(shapes.held_out)
    passes = shapes.residual_streams() + shapes.a_pass()
    work = {"replacing parts in the model": held + shapes.reading(shapes.held_out) + passes}
    again = shapes.features(shapes.fit)
    if "neurons" in wanted:
        work["the baseline of neurons"] = again + _refit(neurons, shapes.solver(state))
    if wanted & {"virtual_weights", "shuffled"}:
        work["the baselines of the same dictionaries"] = again + _refit(shapes, shapes.solver(state))
    if "random_weights" in wanted and null_recipes(shapes.recipes, shapes.widths, shapes.wide, state.seed) is not None:
        acts = 4 * (shapes.fit + shapes.held_out) * sum(shapes.widths.values())
        work["the baseline of random weights"] = acts + _refit(shapes, shapes.solver(state))
    if state.source.evaluation.ladder is not None:
        work["the ladder's gate-free rivals"] = shapes.ladder() + passes
    return in_all("evaluate", {"the features": again} | only_the_largest(work))


def _view(state: State, shapes: Shapes) -> Estimate:
    """Contexts are found in the held-out rows, which are encoded a few thousand at a time."""
    block = 2 * features(min(shapes.held_out, CONTEXT_ROWS), max(f for f, _ in shapes.wide.values()))
    contexts = shapes.reading(shapes.held_out) + block + shapes.by_column(shapes.held_out)
    return in_all("view", {"the features": shapes.features(shapes.fit), "contexts": contexts})


def _refit(shapes: Shapes, solver: Any) -> int:
    """Connectors and gates from other features, which are made from the activations."""
    steps = (shapes.reading(shapes.fit), shapes.solving(solver), sum(_reading_gates(shapes).values()))
    return shapes.features(shapes.fit) + max(steps)


def _reading_gates(shapes: Shapes) -> dict[str, int]:
    return {
        "held-out features": shapes.features(shapes.held_out) + shapes.reading(shapes.held_out),
        "the features by column": shapes.by_column(shapes.fit + shapes.held_out),
        "the features as they are cut at their levels": shapes.features(shapes.fit + shapes.held_out),
        "the rows in which rules are tried": shapes.by_column(shapes.fit) + shapes.reading(shapes.fit),
    }


def _largest(parts: Iterable[Estimate]) -> Estimate:
    return max(parts, key=lambda e: e.memory)
