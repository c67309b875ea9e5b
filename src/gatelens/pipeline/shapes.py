"""What the memory of a run depends on: rows, widths, and how many features are active in a row; no forward pass is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..activations.collecting import hook_names
from ..basis.ends import completed
from ..basis.features import SPARSE_SHARE, SPARSE_WIDTH
from ..data.told import layer_sizes, setting
from ..evaluation.passes import KEPT_BYTES
from ..segments import Segment
from ..solvers.built_in import BuiltInWires
from ..solvers.protocol import as_solver
from ..solvers.size_rule import solver_for
from ..store.estimate import Estimate, by_column, features, reading
from .state import State

#: fitting rows that a ladder's rivals are fitted to
LADDER_ROWS = 60_000


@dataclass(frozen=True)
class Shapes:
    """What memory depends on.

    Attributes:
        widths: hook name -> width of the activations.
        wide: hook name -> (features, how many are active in a row); what the config does not say counts as dense.
        fit, held_out: rows of both parts.
        batch: positions in a batch.
    """

    model: Any
    segments: list[Segment]
    recipes: dict[str, Any]
    widths: dict[str, int]
    wide: dict[str, tuple[int, float]]
    fit: int
    held_out: int
    batch: int

    @classmethod
    def of(cls, state: State) -> Shapes:
        model = state.source.shapes_of_model()
        segments = state.source.segments_of(model)
        recipes = completed(state.source.recipes, segments)
        widths = {hook: d for s in segments for hook, d in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))}
        fit, held_out = state.batches
        batch = fit.keep[: fit.batch_size].numel()
        of = {hook: recipes.get(hook, recipes.get("")) for hook in widths}
        wide = {hook: of[hook].shape_at(hook, d) for hook, d in widths.items()}
        return cls(model, segments, recipes, widths, wide, fit.rows, held_out.rows, batch)

    def neurons(self) -> Shapes:
        """The same with the raw coordinates as features."""
        wide = {hook: (d, float(d)) for hook, d in self.widths.items()}
        return Shapes(self.model, self.segments, self.recipes, self.widths, wide, self.fit, self.held_out, self.batch)

    def features(self, rows: int) -> int:
        """All hook points' features as `encode_rows` holds them."""
        wide = (self.wide[hook] for hook in hook_names(self.segments))
        return sum(
            features(rows, f, active if f > SPARSE_WIDTH and active < SPARSE_SHARE * f else None) for f, active in wide
        )

    def reading(self, rows: int) -> int:
        """The activations at both ends of a segment, as they are encoded."""
        return max(reading(rows, [s.d_in, s.d_out]) for s in self.segments)

    def by_column(self, rows: int) -> int:
        """Both ends' features as gates are read from them."""
        return max(by_column(rows, self.wide[s.hook_in][1] + self.wide[s.hook_out][1]) for s in self.segments)

    def solver(self, state: State) -> Any:
        """The solver that is named, or the one that the bases will ask for."""
        if state.source.solver is not None:
            return state.source.solver
        if any(recipe.has_wires for recipe in self.recipes.values()):
            return BuiltInWires()
        return solver_for(max(f for f, _ in self.wide.values()), state.seed)

    def solving(self, solver: Any) -> int:
        """The fit of a segment's connector, without the features."""
        ends = [(self.wide[s.hook_in], self.wide[s.hook_out]) for s in self.segments]
        said = [as_solver(solver).estimate(self.fit, m, n, a, b) for (m, a), (n, b) in ends]
        return max(sum(size for part, size in e.parts.items() if part != "the features") for e in said)

    def fitting(self) -> list[Estimate]:
        """The fit of the basis at each hook point."""
        of = {hook: self.recipes.get(hook, self.recipes.get("")) for hook in self.widths}
        return [of[hook].estimate(hook, self.fit, d) for hook, d in self.widths.items()]

    def ladder(self) -> int:
        """A segment's held-out features as dense matrices, and the normal equations of its gate-free ridge in float64."""
        ends = [(self.wide[s.hook_in][0], self.wide[s.hook_out][0]) for s in self.segments]
        rows = 4 * (self.held_out + min(self.fit, LADDER_ROWS))
        return max(rows * (m + 2 * n) + 3 * 8 * m * (m + n) for m, n in ends)

    def residual_streams(self) -> int:
        """What enters the first block with a hook point, over the held-out rows: passes start there."""
        kept = 4 * self.held_out * setting(self.model, "d_model", 0)
        return kept if kept <= KEPT_BYTES else 0

    def a_pass(self) -> int:
        """One forward pass over a batch, logits and the loss on them included."""
        d_model, d_mlp, d_vocab = (setting(self.model, name) or 0 for name in ("d_model", "d_mlp", "d_vocab"))
        inner = sum(layer_sizes(self.model)) or 8 * d_model + 3 * d_mlp
        return 4 * self.batch * (inner + 3 * d_vocab)
