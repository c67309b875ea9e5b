"""What the rooms of a run will take, from the config, the data and the model's shapes; no forward pass is made."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..activations import hook_names
from ..bases.sae import TrainedSAE
from ..estimate import ALLOCATOR, Estimate, by_column, collecting, features, gram_fit, greedy_fit, reading, training
from ..evaluation.passes import KEPT_BYTES
from ..features import SPARSE_WIDTH
from ..segments import Segment
from ..solvers.relu_omp import ReluOMP
from .building import build

if TYPE_CHECKING:
    from .walk import Walk

#: positions in a shard of a run's activations
SHARD_ROWS = 32_768
#: rows that a page encodes at once
CONTEXT_ROWS = 4_096
#: fitting rows that a ladder's rivals are fitted to
LADDER_ROWS = 60_000


def estimates(walk: Walk, until: str, rooms: tuple[str, ...]) -> list[Estimate]:
    """One estimate a room up to `until`, of memory on top of model and data, and of disk."""
    shapes = _Shapes.of(walk)
    made = {
        "collect": _collect,
        "bases": _bases,
        "connect": _connect,
        "gates": _gates,
        "evaluate": _evaluate,
        "view": _view,
    }
    return [made[room](walk, shapes) for room in rooms[: rooms.index(until) + 1]]


@dataclass(frozen=True)
class _Shapes:
    """What memory depends on.

    Attributes:
        widths: hook name -> width of the activations.
        wide: hook name -> (features, how many are active in a row); what the config does not say counts as dense.
        fit, held_out: rows of both parts.
        batch: positions in a batch.
    """

    model: Any
    segments: list[Segment]
    widths: dict[str, int]
    wide: dict[str, tuple[int, float]]
    fit: int
    held_out: int
    batch: int

    @classmethod
    def of(cls, walk: Walk) -> _Shapes:
        model = _model(walk)
        section = {"use": "mlp_segments"} | walk.config.segments
        segments = list(build(section, "segments", given={"model": model}))
        widths = {hook: d for s in segments for hook, d in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))}
        fit, held_out = walk.batches
        batch = fit.keep[: fit.batch_size].numel()
        wide = {hook: _features_of(walk.recipes.get(hook, walk.recipes.get("")), d) for hook, d in widths.items()}
        return cls(model, segments, widths, wide, fit.rows, held_out.rows, batch)

    def neurons(self) -> _Shapes:
        """The same with the raw coordinates as features."""
        wide = {hook: (d, float(d)) for hook, d in self.widths.items()}
        return _Shapes(self.model, self.segments, self.widths, wide, self.fit, self.held_out, self.batch)

    def features(self, rows: int) -> int:
        """All hook points' features as `encode_rows` holds them."""
        wide = (self.wide[hook] for hook in hook_names(self.segments))
        return sum(features(rows, f, active if f > SPARSE_WIDTH else None) for f, active in wide)

    def reading(self, rows: int) -> int:
        """The activations at both ends of a segment, as they are encoded."""
        return max(reading(rows, [s.d_in, s.d_out]) for s in self.segments)

    def by_column(self, rows: int) -> int:
        """Both ends' features as gates are read from them."""
        return max(by_column(rows, self.wide[s.hook_in][1] + self.wide[s.hook_out][1]) for s in self.segments)

    def solving(self, solver: Any) -> int:
        """The fit of a segment's connector, without the features."""
        ends = [(self.wide[s.hook_in], self.wide[s.hook_out]) for s in self.segments]
        if isinstance(solver, ReluOMP):
            return max(greedy_fit(self.fit, m, n, a, b).memory for (m, a), (n, b) in ends)
        return max(gram_fit(self.fit, m, n).memory - features(self.fit, m + n) for (m, _), (n, _) in ends)

    def ladder(self) -> int:
        """A segment's held-out features as dense matrices, and the normal equations of its gate-free ridge in float64."""
        ends = [(self.wide[s.hook_in][0], self.wide[s.hook_out][0]) for s in self.segments]
        rows = 4 * (self.held_out + min(self.fit, LADDER_ROWS))
        return max(rows * (m + 2 * n) + 3 * 8 * m * (m + n) for m, n in ends)

    def residual_streams(self) -> int:
        """What enters the first block with a hook point, over the held-out rows: passes start there."""
        d_model = getattr(getattr(self.model, "cfg", None), "d_model", 0)
        kept = 4 * self.held_out * d_model
        return kept if kept <= KEPT_BYTES else 0

    def a_pass(self) -> int:
        """One forward pass over a batch, logits and the loss on them included."""
        config = getattr(self.model, "cfg", None)
        inner = sum(getattr(self.model, "sizes", ()))
        inner = inner or 8 * getattr(config, "d_model", 0) + 3 * (getattr(config, "d_mlp", 0) or 0)
        return 4 * self.batch * (inner + 3 * getattr(config, "d_vocab", 0))


def _model(walk: Walk) -> Any:
    """The model's shapes; a network that the run would train is built without training."""
    if walk.config.model.get("use") != "HookedMLP":
        return walk.model
    section = {k: v for k, v in walk.config.model.items() if k not in ("train", "weights")}
    return build(section, "model", seed=walk.config.seed)


def _features_of(recipe: Any, d: int) -> tuple[int, float]:
    if isinstance(recipe, TrainedSAE):
        f = recipe.d_sae or recipe.expansion * d
        return f, float(recipe.k if "topk" in recipe.architecture else f)
    f = getattr(recipe, "d_sae", None) or getattr(recipe, "components", None) or d
    return f, float(f)


def _collect(walk: Walk, shapes: _Shapes) -> Estimate:
    parts = [
        collecting(rows, shapes.widths.values(), shard_rows=SHARD_ROWS, pass_bytes=shapes.a_pass())
        for rows in (shapes.fit, shapes.held_out)
    ]
    larger = _largest(parts)
    return Estimate("collect", larger.memory, sum(e.disk for e in parts), larger.parts)


def _bases(walk: Walk, shapes: _Shapes) -> Estimate:
    batch = getattr(walk.recipes.get(""), "batch_size", 512)
    parts = [training(shapes.fit, d, shapes.wide[hook][0], batch) for hook, d in shapes.widths.items()]
    return _of("bases", _largest(parts).parts, sum(e.disk for e in parts))


def _connect(walk: Walk, shapes: _Shapes) -> Estimate:
    """The features are made from activations, then the wires from the features."""
    work = {"reading the activations": shapes.reading(shapes.fit), "the fit": shapes.solving(walk.solver)}
    return _of("connect", {"the features": shapes.features(shapes.fit)} | _larger(work))


def _gates(walk: Walk, shapes: _Shapes) -> Estimate:
    return _of("gates", {"the features": shapes.features(shapes.fit)} | _reading_gates(shapes))


def _evaluate(walk: Walk, shapes: _Shapes) -> Estimate:
    """Baselines one after the other, then the circuit; the features of the fit are at hand all the while."""
    wanted, neurons = set(walk.config.evaluation.baselines), shapes.neurons()
    held = 2 * shapes.features(shapes.held_out)
    passes = shapes.residual_streams() + shapes.a_pass()
    work = {"replacing parts in the model": held + shapes.reading(shapes.held_out) + passes}
    again = shapes.features(shapes.fit)
    if "neurons" in wanted:
        work["the baseline of neurons"] = again + _refit(neurons, walk.solver)
    if wanted & {"virtual_weights", "shuffled"}:
        work["the baselines of the same dictionaries"] = again + _refit(shapes, walk.solver)
    if "random_weights" in wanted and all(isinstance(r, TrainedSAE) for r in walk.recipes.values()):
        acts = 4 * (shapes.fit + shapes.held_out) * sum(shapes.widths.values())
        work["the baseline of random weights"] = acts + _refit(shapes, walk.solver)
    if walk.config.evaluation.ladder is not None:
        work["the ladder's gate-free rivals"] = shapes.ladder() + passes
    return _of("evaluate", {"the features": again} | _larger(work))


def _view(walk: Walk, shapes: _Shapes) -> Estimate:
    """Contexts are found in the held-out rows, which are encoded a few thousand at a time."""
    block = 2 * features(min(shapes.held_out, CONTEXT_ROWS), max(f for f, _ in shapes.wide.values()))
    contexts = shapes.reading(shapes.held_out) + block + shapes.by_column(shapes.held_out)
    return _of("view", {"the features": shapes.features(shapes.fit), "contexts": contexts})


def _refit(shapes: _Shapes, solver: Any) -> int:
    """Connectors and gates from other features, which are made from the activations."""
    steps = (shapes.reading(shapes.fit), shapes.solving(solver), sum(_reading_gates(shapes).values()))
    return shapes.features(shapes.fit) + max(steps)


def _reading_gates(shapes: _Shapes) -> dict[str, int]:
    return {
        "held-out features": shapes.features(shapes.held_out) + shapes.reading(shapes.held_out),
        "the features by column": shapes.by_column(shapes.fit + shapes.held_out),
    }


def _larger(work: dict[str, int]) -> dict[str, int]:
    """The one of several works, done one after the other, that takes most."""
    name = max(work, key=lambda w: work[w])
    return {name: work[name]}


def _largest(parts: Iterable[Estimate]) -> Estimate:
    return max(parts, key=lambda e: e.memory)


def _of(room: str, parts: Mapping[str, int], disk: int = 0) -> Estimate:
    parts = dict(parts) | {"what libraries and the allocator keep": ALLOCATOR}
    return Estimate(room, sum(parts.values()), disk, parts)
