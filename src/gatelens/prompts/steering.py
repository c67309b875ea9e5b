"""Steering: the model writes on while a gate's output is held, beside what holding it costs on ordinary text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..basis.features import dense_rows
from ..basis.linear import directions
from ..basis.output import output_features
from ..data.told import setting
from ..errors import ConfigError
from ..evaluation.passes import metric
from ..evaluation.splicing import Hook
from ..lazy import shows_itself
from ..models import device_of, run_hooked
from .scene import Layer, Scene

#: tokens of ordinary text on which the loss is taken
LOSS_TOKENS = 2_048


@shows_itself
@dataclass(frozen=True)
class Steered:
    """What the model writes with a gate held, and without.

    Attributes:
        name, strength, level: the gate; how many times its typical level it is held at, and that value.
        prompt, plain, held: the prompt, and what follows it untouched and with the gate held.
        losses: nats a token on ordinary text: "clean", "held", and "control" (another feature moved by the same norms); empty
            without any text at hand.
    """

    name: str
    strength: float
    level: float
    prompt: str
    plain: str
    held: str
    losses: dict[str, float]

    def __repr__(self) -> str:
        cost = ""
        if self.losses:
            extra = {k: self.losses[k] - self.losses["clean"] for k in ("held", "control")}
            cost = (
                f"\n  on ordinary text {self.losses['clean']:.3f} nats a token; held {extra['held']:+.3f}, "
                f"an unrelated feature by the same norms {extra['control']:+.3f}"
            )
        return (
            f"{self.name} held at {self.level:.3g}, {self.strength:g} times its typical level\n"
            f"  untouched: {self.prompt!r} {self.plain!r}\n  held:      {self.prompt!r} {self.held!r}{cost}"
        )

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return dict(vars(self))


def steered(reading: Scene, gate: int | str, strength: float, tokens: int, segment: str | None, seed: int) -> Steered:
    """See `PromptReading.steer`.

    Raises:
        ConfigError: images, which nothing is written after; a strength that is not finite; nothing to write, or no room for it.
    """
    layer = reading.layer(segment)
    out = reading.feature(gate, layer.f_out.shape[1], "OF")
    room = setting(reading.model, "n_ctx")
    if reading.prompt.images:
        raise ConfigError("steering writes text: expected a prompt of tokens, got images. Use switch")
    if not abs(strength) < float("inf"):
        raise ConfigError(f"strength is a finite multiple of the typical level, got {strength!r}")
    if tokens < 1 or (room is not None and len(reading) + tokens > room):
        raise ConfigError(f"tokens must be positive, and with the prompt's {len(reading)} at most {room}; got {tokens}")
    level = strength * reading.typical(layer, "OF", out)
    hold = Holding(reading, layer, out, level, seed)
    ids = reading.prompt.inputs[0].tolist()
    begin = len(ids) - 1
    plain, held = (_written(reading.model, ids, tokens, hooks) for hooks in ([], hold.from_position(begin)))
    kept = [i for i, keep in zip(ids, reading.prompt.keep, strict=True) if keep]
    before, without, with_it = (reading.model.tokenizer.decode(t) for t in (kept, plain, held))
    return Steered(
        f"OF_{out}",
        strength,
        level,
        before,
        without,
        with_it,
        _losses(reading, hold),
    )


@dataclass(frozen=True, eq=False)
class Holding:
    """Hooks that hold one output feature at a value, or move an unrelated one by the same norms."""

    reading: Scene
    layer: Layer
    out: int
    level: float
    seed: int

    def from_position(self, begin: int) -> list[Hook]:
        """Held at every position from `begin` on."""
        return self._hooks(lambda value, steps: torch.cat([value[:, :begin], (value + steps)[:, begin:]], 1))

    def where(self, keep: Tensor, control: bool = False) -> list[Hook]:
        """Held at the positions that count; `control`: another feature's direction by the same norms instead."""

        def held(value: Tensor, steps: Tensor) -> Tensor:
            if control:
                steps = steps.norm(dim=-1, keepdim=True) * self._other.to(value)
            return torch.where(keep[..., None].to(value.device), value + steps, value)

        return self._hooks(held)

    def _hooks(self, held: Callable[[Tensor, Tensor], Tensor]) -> list[Hook]:
        """The input is looked at on the way: features of a dictionary of a pair of hook points are computed from it."""
        seen: dict[str, Tensor] = {}

        def look(value: Tensor, hook: Any = None) -> None:
            seen["x"] = value

        def hold(value: Tensor, hook: Any = None) -> Tensor:
            return held(value, self._steps(seen["x"], value))

        return [(self.layer.segment.hook_in, look), (self.layer.segment.hook_out, hold)]

    def _steps(self, x: Tensor, value: Tensor) -> Tensor:
        """From what the feature is in each row to the level, along its direction."""
        rows = [v.reshape(-1, v.shape[-1]).float().cpu() for v in (x, value)]
        basis = self.reading.circuit.bases[self.layer.segment.hook_out]
        now = dense_rows(output_features(basis, rows[0], rows[1]))[:, self.out]
        return ((self.level - now)[:, None] * self._table[self.out]).reshape(value.shape).to(value)

    @property
    def _table(self) -> Tensor:
        basis = self.reading.circuit.bases[self.layer.segment.hook_out]
        return directions(basis, self.layer.f_out.shape[1]).float().cpu()

    @property
    def _other(self) -> Tensor:
        live = self.reading.ordinary.live(self.layer.segment.hook_out) or list(range(len(self._table)))
        free = [i for i in live if i != self.out] or [self.out]
        drawn = int(torch.randint(len(free), (1,), generator=torch.Generator().manual_seed(self.seed)))
        return F.normalize(self._table[free[drawn]], dim=0)


def _written(model: Any, ids: list[int], tokens: int, hooks: list[Any]) -> list[int]:
    """The most likely next token, so many times."""
    written: list[int] = []
    end = getattr(model.tokenizer, "eos_token_id", None)
    for _ in range(tokens):
        inputs = torch.tensor([[*ids, *written]], device=device_of(model))
        with torch.no_grad():
            logits = run_hooked(model, inputs, None, hooks)
        written.append(int(logits[0, -1].argmax()))
        if written[-1] == end:
            break
    return written


def _losses(reading: Scene, hold: Holding) -> dict[str, float]:
    batches = reading.batches
    if batches is None:
        return {}
    few = batches.take(max(1, LOSS_TOKENS // batches.keep.shape[-1]))
    return {
        "clean": metric(reading.model, few),
        "held": metric(reading.model, few, lambda keep: hold.where(keep)),
        "control": metric(reading.model, few, lambda keep: hold.where(keep, control=True)),
    }
