"""Everything about one segment that does not depend on coordinates, beside the same figures for a model of permuted weights."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from ..activations.collecting import collect
from ..data import Batches
from ..errors import DataError, GateLensWarning
from ..evaluation.baselines import random_weights
from ..evaluation.static_wires import StaticWires, static_wires
from ..segments import Segment
from .bottleneck import Bottleneck, Witness
from .principal_angles import Consistency, consistency
from .randomised import randomised_singular_values
from .rank import MAX_ENTRIES, Ranks, segment_jacobians, segment_ranks
from .sensitivity import output_sensitivity
from .subspaces import active_subspace, check_kept, oblique_subspace, principal_subspace, random_subspace
from .summary import SummaryCurve, summary_curve

#: inputs at which Jacobians are taken, and those of them whose leading directions are compared
INPUTS, COMPARED = 256, 128


@dataclass(frozen=True)
class RankReport:
    """One segment.

    Attributes:
        raw, whitened: ranks over inputs in the two metrics; whitened is None for a segment too large for whole Jacobians.
        shared: whether the leading directions are the same at every input; None likewise.
        curve: the model's metric when k dimensions of the segment's input are kept, by several choices of them.
        witness: y computed from r trained numbers.
        random: the same ranks for a model of permuted weights: the null.
        static: what wires from the features of a dictionary can carry at most; None without a dictionary.
        notes: what was regularised.
    """

    segment: str
    raw: Ranks
    whitened: Ranks | None
    shared: Consistency | None
    curve: SummaryCurve
    witness: Witness
    random: Ranks
    notes: tuple[str, ...]
    static: StaticWires | None = None

    @property
    def sentence(self) -> str:
        """How few dimensions do, by each choice of them: the first thing to read."""
        curve = self.curve
        least = {label: curve.smallest(label) for label in curve.values}
        loss = "a point of accuracy" if curve.metric == "accuracy" else "0.01 nats"
        said = "; ".join(f"{'more than measured' if k is None else k} by {label}" for label, k in least.items())
        return f"To keep the model within {loss} takes, in dimensions of {curve.hook}: {said}."

    def to_dict(self) -> dict[str, Any]:
        shared = self.shared
        return {
            "segment": self.segment,
            "sentence": self.sentence,
            "raw": self.raw.to_dict(),
            "whitened": None if self.whitened is None else self.whitened.to_dict(),
            "random_weights": self.random.to_dict(),
            "shared": None
            if shared is None
            else {
                "rank": shared.rank,
                "overlap": shared.overlap,
                "random_overlap": shared.random_overlap,
                "pooled": shared.pooled,
                "own": shared.own,
                "random_pooled": shared.random_pooled,
            },
            "curve": self.curve.to_dict(),
            "witness": {
                "r": self.witness.r,
                "fvu": self.witness.fvu,
                "random_encoder": self.witness.random_encoder,
                "linear": self.witness.linear,
                "unlimited": self.witness.unlimited,
            },
            "static_wires": None if self.static is None else self.static.to_dict(),
            "notes": list(self.notes),
        }

    def __repr__(self) -> str:
        parts = [
            self.segment,
            self.sentence,
            self.raw,
            self.whitened,
            f"random weights: {self.random}",
            self.shared,
            self.curve,
        ]
        return "\n".join(str(p) for p in [*parts, self.witness, self.static, *self.notes] if p is not None)


def rank_report(
    model: Any,
    segment: Segment,
    fit: Batches,
    held_out: Batches,
    ks: Sequence[int] | None = None,
    rank: int = 8,
    inputs: int = INPUTS,
    steps: int = 800,
    seed: int = 0,
    basis_in: Any = None,
) -> RankReport:
    """Measure one segment of a model.

    Args:
        ks: dimensions to keep of the segment's input; None for powers of two up to its width.
        rank: of the shared subspaces and of the witness. inputs: at which Jacobians are taken. steps: of the witness.
        basis_in: the dictionary at the segment's input whose features' wires are asked about (`static_wires`).

    Raises:
        BasisError: a k that the segment's input does not have, before anything is measured.
        DataError: fewer than 32 rows, or all Jacobians zero.
    """
    for k in ks or ():
        check_kept(k, segment.d_in)
    acts = collect(model, fit, [segment])
    x, y = acts[segment.hook_in], acts[segment.hook_out]
    if len(x) < 32:
        raise DataError(f"ranks over inputs need at least 32 rows, got {len(x)}. Take more examples")
    ks = tuple(ks or [k for k in (2**i for i in range(1, 20)) if k < segment.d_in] + [segment.d_in])
    rank = min(rank, segment.d_in, segment.d_out)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always", GateLensWarning)
        raw, whitened, shared = _ranks(segment, x, inputs, rank, seed)
        sensitivity = output_sensitivity(model, fit, segment.hook_in, seed=seed)
        subspaces = [
            active_subspace(sensitivity, x),
            oblique_subspace(sensitivity, x),
            principal_subspace(x),
            random_subspace(x, seed),
        ]
    curve = summary_curve(model, held_out, segment.hook_in, subspaces, ks)
    regularised = dict.fromkeys(str(w.message) for w in said if issubclass(w.category, GateLensWarning))
    return RankReport(
        segment.name,
        raw,
        whitened,
        shared,
        curve,
        Bottleneck(rank, steps=steps, seed=seed).fit(x, y),
        _null(model, segment, fit, inputs, rank, seed),
        tuple(note for note in regularised if note not in curve.notes),
        None if basis_in is None else static_wires(segment, basis_in, x, seed=seed),
    )


def _ranks(
    segment: Segment, x: Tensor, inputs: int, rank: int, seed: int
) -> tuple[Ranks, Ranks | None, Consistency | None]:
    """Raw, whitened and shared; of a large segment only a sketch of the leading singular values."""
    few = x[:inputs]
    if len(few) * segment.d_in * segment.d_out > MAX_ENTRIES:
        count = min(64, segment.d_in, segment.d_out)
        return randomised_singular_values(segment, few, count, seed=seed), None, None
    whitened = segment_ranks(segment, few, "whitened", covariance_of=x)
    shared = consistency(segment_jacobians(segment, few[:COMPARED]), rank, seed=seed)
    return segment_ranks(segment, few), whitened, shared


def _null(model: Any, segment: Segment, fit: Batches, inputs: int, rank: int, seed: int) -> Ranks:
    """Raw ranks of the same segment in a model whose weights were permuted."""
    null = random_weights(model, seed)
    there = _segment_of(null, segment)
    x = collect(null, fit, [there])[there.hook_in][:inputs]
    if len(x) * there.d_in * there.d_out > MAX_ENTRIES:
        return randomised_singular_values(there, x, min(64, there.d_in, there.d_out), seed=seed)
    return segment_ranks(there, x)


def _segment_of(model: Any, segment: Segment) -> Segment:
    """The segment of the same name in another model of the same shape.

    Raises:
        DataError: a segment that `mlp_segments` does not make, so that it cannot be found again in the null model.
    """
    from ..segments import mlp_segments

    for mlp_in in ("mlp_in", "resid_mid"):
        for found in mlp_segments(model, mlp_in=mlp_in):
            if found.name == segment.name:
                return found
    raise DataError(
        f"segment {segment.name} is none of the model's MLPs, so the null model's cannot be made. "
        "Use segment_ranks and summary_curve for segments of your own"
    )
