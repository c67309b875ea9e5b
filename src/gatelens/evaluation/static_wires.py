"""What static wires can carry at most: in how many fixed directions of y each input's effect goes over contexts.

A wire leads to an output that writes one fixed direction of y, however much of it. So an input with r wires can move y within r
directions; whatever else its removal does in one context or another is beyond any such form, trained or not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..basis import Basis, directions
from ..codes import Codes
from ..codes.csr import spread
from ..edits.counterfactual import Library
from ..segments import Segment

#: wires an input that are printed, and shares of the change that one may wish for
SHOWN, WISHED = (1, 2, 4, 8, 16, 32, 64), (0.5, 0.6, 0.8, 0.9)
#: inputs that are looked at, contexts of each, and the fewest of an input that counts
INPUTS, CONTEXTS, LEAST = 64, 128, 8
#: rows from which contexts are drawn
_ROWS = 8_192


@dataclass(frozen=True)
class Effects:
    """One kind of edit: how much of what it does lies in the best directions of each input.

    Attributes:
        inputs: which were drawn; weight: how often, among the edits that circuits are judged by.
        within: [inputs, r + 1] mean squared change in the best 0, 1, ... r directions of those very contexts: a ceiling.
        held_out: the same with directions found on one half of the contexts, over the other half.
        total: [inputs] mean squared change, over all contexts and over the other half.
    """

    inputs: Int[Tensor, " i"]
    weight: Float[Tensor, " i"]
    within: Float[Tensor, "i r"]
    held_out: Float[Tensor, "i r"]
    total: Float[Tensor, "i two"]

    def at_most(self, wires: int | Int[Tensor, " m"]) -> float | None:
        """The share of the change that so many wires from each input can carry; a tensor: as many as each input has."""
        return self._share(self.within, self.total[:, 0], wires)

    def found(self, wires: int) -> float | None:
        """The same with directions that were found in other contexts."""
        return self._share(self.held_out, self.total[:, 1], wires)

    def needed(self, share: float) -> int | None:
        """The fewest wires an input with which `share` can be reached at all; None: beyond what the contexts tell apart."""
        curve = (self.weight @ self.within) / (self.weight @ self.total[:, 0]).clamp_min(1e-30)
        enough = (curve >= share - 1e-9).nonzero()
        return int(enough[0]) if len(enough) else None

    def _share(self, curve: Tensor, total: Tensor, wires: int | Tensor) -> float | None:
        whole = float(self.weight @ total)
        each = torch.as_tensor(wires).expand(len(self.inputs)) if isinstance(wires, int) else wires[self.inputs]
        held = curve.gather(1, each.long().clamp(0, curve.shape[1] - 1)[:, None])[:, 0]
        return float(self.weight @ held) / whole if whole > 0 else None


@dataclass(frozen=True)
class StaticWires:
    """The rank curve of a segment's inputs.

    Attributes:
        removals: an active feature taken away. additions: one put in where it is off; None where no feature is ever off.
        contexts: rows of each input.
    """

    removals: Effects
    additions: Effects | None
    contexts: int

    def to_dict(self) -> dict[str, Any]:
        """Plain values: the curves at `SHOWN` wires an input, and how many each of `WISHED` takes."""
        found: dict[str, Any] = {"wires": list(SHOWN), "inputs": len(self.removals.inputs), "contexts": self.contexts}
        for name, effects in self._kinds():
            found[name] = [effects.at_most(r) for r in SHOWN]
            found[f"{name}_held_out"] = [effects.found(r) for r in SHOWN]
            found[f"{name}_needed"] = {f"{share:g}": effects.needed(share) for share in WISHED}
        return found

    def _kinds(self) -> list[tuple[str, Effects]]:
        both = (("removals", self.removals), ("additions", self.additions))
        return [(name, effects) for name, effects in both if effects is not None]

    def __repr__(self) -> str:
        lines = [
            f"Static wires carry at most so much of what an edit changes in y ({len(self.removals.inputs)} inputs, "
            f"{self.contexts} contexts each; in parentheses: directions found in other contexts):",
            f"{'wires an input':<16}" + "".join(f"{r:>12}" for r in SHOWN),
        ]
        for name, effects in self._kinds():
            cells = (f"{_two(effects.at_most(r))} ({_two(effects.found(r))})" for r in SHOWN)
            lines.append(f"{name:<16}" + "".join(f"{cell:>12}" for cell in cells))
        for name, effects in self._kinds():
            told = ", ".join(f"{share:g}: {_count(effects.needed(share))}" for share in WISHED)
            lines.append(f"wires an input that an R2 of {name} needs at least: {told}")
        return "\n".join(lines)


def static_wires(
    segment: Segment,
    basis_in: Basis,
    x: Float[Tensor, "rows d_in"],
    inputs: int = INPUTS,
    contexts: int = CONTEXTS,
    seed: int = 0,
) -> StaticWires | None:
    """Measure a segment's inputs; None where no feature is on in `LEAST` rows.

    Args:
        x: rows at the segment's input. inputs: drawn as edits draw them, so that shares compare with R2 of edits.
        contexts: rows of each input, at most.
    """
    x = x[spread(len(x), _ROWS)]
    codes = Codes.encode(basis_in, x)
    library, steps = Library.observed(codes), directions(basis_in, codes.width).to(x)
    generator, values = torch.Generator().manual_seed(seed), codes.columns()
    curves = _Curves(segment, x, steps, contexts, generator)
    on = values != 0
    removals = curves.of(_drawn(codes.frequency(), inputs, generator), on, lambda i, rows: -values[i, rows])
    additions = curves.of(
        _drawn(library.chances, inputs, generator), ~on, lambda i, rows: library.typical[i].expand(len(rows))
    )
    return None if removals is None else StaticWires(removals, additions, contexts)


def _drawn(chances: Float[Tensor, " m"], count: int, generator: torch.Generator) -> Int[Tensor, " count"]:
    if not chances.any():
        return torch.zeros(0, dtype=torch.long)
    return torch.multinomial(chances.double().cpu(), count, replacement=True, generator=generator)


@dataclass
class _Curves:
    segment: Segment
    x: Float[Tensor, "rows d_in"]
    steps: Float[Tensor, "m d_in"]
    contexts: int
    generator: torch.Generator

    def of(self, drawn: Tensor, where: Tensor, size: Callable[[int, Tensor], Tensor]) -> Effects | None:
        """The curves of the inputs that were drawn, each where `where` says so and by the step that `size` gives."""
        parts = []
        for i, weight in zip(*drawn.unique(return_counts=True), strict=True):
            rows = where[int(i)].nonzero()[:, 0].cpu()
            if len(rows) < LEAST:
                continue
            rows = rows[torch.randperm(len(rows), generator=self.generator)[: self.contexts]].to(self.x.device)
            step = size(int(i), rows)[:, None] * self.steps[int(i)]
            change = self.segment.outputs(self.x[rows] + step) - self.segment.outputs(self.x[rows])
            parts.append((i, weight, *_energies(change.double().cpu(), self.contexts)))
        if not parts:
            return None
        inputs, weight, within, held, total = zip(*parts, strict=True)
        return Effects(
            torch.stack(inputs),
            torch.stack(weight).double(),
            torch.stack(within),
            torch.stack(held),
            torch.stack(total),
        )


def _energies(change: Float[Tensor, "c d"], most: int) -> tuple[Tensor, Tensor, Tensor]:
    """Mean squared change within the best 0 .. `most` directions of these rows; of one half's in the other; and in all."""
    within = torch.linalg.svdvals(change).square() / len(change)
    known, others = change[::2], change[1::2]
    best = torch.linalg.svd(known, full_matrices=False)[2]
    held = (others @ best.T).square().mean(0)
    total = torch.stack([change.square().sum(1).mean(), others.square().sum(1).mean()])
    return _summed(within, most), _summed(held, most), total


def _summed(energy: Float[Tensor, " r"], most: int) -> Float[Tensor, " r_1"]:
    """0, then cumulative sums, the last one repeated up to `most`."""
    padded = torch.nn.functional.pad(energy[:most], (1, max(0, most - len(energy))))
    return padded.cumsum(0)


def _two(share: float | None) -> str:
    return "-" if share is None else f"{share:.2f}"


def _count(wires: int | None) -> str:
    return "more than the contexts tell apart" if wires is None else str(wires)
