"""What the memory of a run depends on: rows, widths, and how many features are active in a row; no forward pass is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..activations.collecting import hook_names
from ..bases.sae.pretrained import PretrainedSAE
from ..bases.sae.trained import TrainedSAE
from ..basis.features import SPARSE_WIDTH
from ..basis.linear import basis_width
from ..evaluation.passes import KEPT_BYTES
from ..segments import Segment
from ..solvers.relu_omp import ReluOMP
from ..store.estimate import by_column, features, gram_fit, greedy_fit, reading
from .building import build

if TYPE_CHECKING:
    from .walk import Walk

#: features of a published dictionary that are taken to be active in a row where its recipe does not say
ACTIVE = 64.0
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
    widths: dict[str, int]
    wide: dict[str, tuple[int, float]]
    fit: int
    held_out: int
    batch: int

    @classmethod
    def of(cls, walk: Walk) -> Shapes:
        model = _model(walk)
        section = {"use": "mlp_segments"} | walk.config.segments
        segments = list(build(section, "segments", given={"model": model}))
        widths = {hook: d for s in segments for hook, d in ((s.hook_in, s.d_in), (s.hook_out, s.d_out))}
        fit, held_out = walk.batches
        batch = fit.keep[: fit.batch_size].numel()
        wide = {hook: _features_of(walk.recipes.get(hook, walk.recipes.get("")), hook, d) for hook, d in widths.items()}
        return cls(model, segments, widths, wide, fit.rows, held_out.rows, batch)

    def neurons(self) -> Shapes:
        """The same with the raw coordinates as features."""
        wide = {hook: (d, float(d)) for hook, d in self.widths.items()}
        return Shapes(self.model, self.segments, self.widths, wide, self.fit, self.held_out, self.batch)

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


def _features_of(recipe: Any, hook: str, d: int) -> tuple[int, float]:
    if isinstance(recipe, TrainedSAE):
        f = recipe.d_sae or recipe.expansion * d
        return f, float(recipe.k if "topk" in recipe.architecture else f)
    if isinstance(recipe, PretrainedSAE):
        return basis_width(recipe.load(hook), d), recipe.expected_l0 or ACTIVE
    f = getattr(recipe, "d_sae", None) or getattr(recipe, "components", None) or d
    return f, float(f)
