"""What came of a switch: plain values beside what was foreseen and what unrelated changes do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from jaxtyping import Float
from torch import Tensor

from ..lazy import shows_itself
from .firing import shown
from .scene import Scene


@dataclass(frozen=True)
class Step:
    """One feature at one position: IF_17 or OF_17 by name, its value before and after."""

    name: str
    kind: str
    feature: int
    position: int
    before: float
    after: float


@dataclass(frozen=True)
class Foreseen:
    """What somebody foresaw of a switch.

    Attributes:
        who: "gates" (the connector, or for an output the step along its own direction) or "local reading".
        r2: of the change of the segment's output at the changed positions; None where that is set by hand.
        direct: change of the target's logit on the direct way, the final norm taken anew, at the last changed position; None
            where there is no such way.
        carried: the same with the foreseen change put into the model and carried on by its later layers.
    """

    who: str
    r2: float | None
    direct: float | None
    carried: float


@dataclass(frozen=True)
class Moved:
    """An output feature that a switch changed: where, its value before and after, and what the connector made of it after."""

    segment: str
    position: int
    out: int
    name: str
    before: float
    after: float
    predicted: float | None

    @property
    def flipped(self) -> bool:
        """Whether it fires in one state only."""
        return (self.before > 0) != (self.after > 0)


@shows_itself
@dataclass(frozen=True, eq=False)
class Switched:
    """The model with features changed on a prompt.

    Attributes:
        steps: what was changed. place: the last changed position, at which the logit of `target` is followed.
        before, after: [positions, outputs] logits.
        foreseen: what gates and local reading said. controls: change of the target's logit under unrelated changes of equal norm
            (other features' directions at the same places).
        moved: other output features that changed, the largest change first.
        frozen: later blocks kept their attention.
    """

    reading: Scene
    steps: tuple[Step, ...]
    place: int
    target: int
    before: Float[Tensor, "positions outputs"]
    after: Float[Tensor, "positions outputs"]
    foreseen: tuple[Foreseen, ...]
    controls: tuple[float, ...]
    moved: tuple[Moved, ...]
    frozen: bool

    @property
    def change(self) -> float:
        """Change of the target's logit at `place`, the mean over all outputs taken out."""
        return float(logit(self.after, self.place, self.target) - logit(self.before, self.place, self.target))

    @property
    def control(self) -> float:
        """Mean size of what unrelated changes of equal norm do to the same logit."""
        return sum(map(abs, self.controls)) / max(len(self.controls), 1)

    def kl(self, position: int = -1) -> float:
        """How far the model's prediction moves at a position, in nats: KL of before from after."""
        p, q = (x[position].double().log_softmax(-1) for x in (self.before, self.after))
        return float((p.exp() * (p - q)).sum())

    def next_tokens(self, position: int = -1) -> list[tuple[str, float, float]]:
        """(token, probability before, after) of the five that change most at a position."""
        p, q = (x[position].softmax(-1) for x in (self.before, self.after))
        best = (q - p).abs().argsort(descending=True)[:5].tolist()
        return [(self.reading.text_of(i), float(p[i]), float(q[i])) for i in best]

    def __repr__(self) -> str:
        at = sorted({s.position for s in self.steps})
        done = ", ".join(dict.fromkeys(f"{s.name} {s.before:.3g} -> {s.after:.3g}" for s in self.steps[:4]))
        target = f"`{shown(self.reading.text_of(self.target))}`"
        lines = [
            f"Switched at {', '.join(map(str, at[:8]))}{' ...' if len(at) > 8 else ''}: {done}"
            + (f" and {len(self.steps) - 4} more" if len(self.steps) > 4 else ""),
            f"  logit of {target} at {self.place}: {self.change:+.3g}; unrelated changes of equal norm {self.control:.2g} "
            f"in size (mean of {len(self.controls)})" + ("; attention held" if self.frozen else ""),
        ]
        for said in self.foreseen:
            parts = [f"{said.carried:+.3g} carried on by the model"]
            parts += [] if said.direct is None else [f"{said.direct:+.3g} directly"]
            parts += [] if said.r2 is None else [f"R2 of the MLP's change {said.r2:.2f}"]
            lines.append(f"  {said.who} foresaw {', '.join(parts)}")
        tokens = ", ".join(f"`{shown(t)}` {a:.1%} -> {b:.1%}" for t, a, b in self.next_tokens(self.place))
        flips = sum(m.flipped for m in self.moved)
        lines.append(f"  next: {tokens}   (KL {self.kl(self.place):.2g} nats)")
        lines.append(f"  {len(self.moved)} other outputs change, {flips} go on or off")
        lines += [
            f"    {m.position} {m.name}: {m.before:.3g} -> {m.after:.3g}"
            + ("" if m.predicted is None else f" (wires say {m.predicted:.3g})")
            for m in self.moved[:5]
        ]
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return {
            "steps": [vars(s) for s in self.steps],
            "position": self.place,
            "target": self.reading.text_of(self.target),
            "change": self.change,
            "controls": list(self.controls),
            "foreseen": [vars(f) for f in self.foreseen],
            "kl": self.kl(self.place),
            "next": [{"token": t, "before": a, "after": b} for t, a, b in self.next_tokens(self.place)],
            "moved": [vars(m) | {"flipped": m.flipped} for m in self.moved],
            "frozen": self.frozen,
        }


def logit(logits: Tensor, position: int, target: int) -> float:
    """A logit less the mean over all outputs, which no softmax sees."""
    return float(logits[position, target].double() - logits[position].double().mean())
