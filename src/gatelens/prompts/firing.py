"""Firing: one output feature at one position of a prompt, beside what its gate said."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch

from ..basis.linear import directions
from ..errors.door import at_the_door
from ..gates import Gate
from .literals import grade_of, literals_on, output_level, rule_of
from .local import MOST, LocalReading, local_reading
from .outputs import output_of
from .rows import Row
from .scene import Layer, Scene


@at_the_door
@dataclass(frozen=True, eq=False)
class Firing:
    """What one output does at one position.

    Attributes:
        position, out: where; which output feature.
        came: its value. predicted: what the connector makes of the input features; None without one.
        said: whether the gate's rule says on; None where no rule was read.
        effect: what it adds to the logit of `target`, the model's first choice there, on the direct way (the final norm's scale
            held, later blocks left out); None where there is no linear way.
        literals: (name, is on, value) of the rule's literals.
        gate: the circuit's reading of the output; None where the circuit has none.
    """

    reading: Scene
    layer: Layer
    position: int
    out: int
    came: float
    predicted: float | None
    said: bool | None
    effect: float | None
    target: str
    literals: tuple[tuple[str, bool, float], ...]
    gate: Gate | None

    @classmethod
    def of(cls, reading: Scene, layer: Layer, position: int, out: int) -> Firing:
        """Read off a prompt's reading."""
        gate = layer.gates.get(out)
        rule = rule_of(gate)
        literals = []
        if rule is not None:
            states = literals_on(rule, layer.f_in[position : position + 1])[0].tolist()
            for literal, on in zip(rule.literals, states, strict=True):
                name = reading.ordinary.name("IF", layer.segment.hook_in, literal.feature)
                literals.append((name, on, float(layer.f_in[position, literal.feature])))
        said = layer.said.get(out)
        return cls(
            reading,
            layer,
            position,
            out,
            float(layer.f_out[position, out]),
            None if layer.predicted is None else float(layer.predicted[position, out]),
            None if said is None else bool(said[position]),
            None if layer.effects is None else float(layer.effects[position, out]),
            reading.text_of(int(reading.targets[position])),
            tuple(literals),
            gate,
        )

    @property
    def name(self) -> str:
        """OF_17, with the tokens on which it fires where these are known."""
        return self.reading.ordinary.name("OF", self.layer.segment.hook_out, self.out)

    @property
    def on(self) -> bool:
        """Whether it fires."""
        return self.came > output_level(self.gate)

    @property
    def literals_text(self) -> str:
        """IF_3 on, IF_9 off."""
        return ", ".join(f"{name} {'on' if on else 'off'}" for name, on, _ in self.literals)

    def why(self, k: int = MOST, share: float = 0.9, keep_error: bool = True) -> LocalReading:
        """The local reading: the model's own MLP on every subset of the few input features that decide here.

        Args:
            k: how many of them are varied at most, 10 or fewer.
            share: of what all features together make of the MLP's output, that the row's strongest are to reach alone.
            keep_error: whether the part of the row that no feature explains stays in.
        """
        layer, circuit = self.layer, self.reading.circuit
        row = row_of(self.reading, layer, self.position, keep_error)
        place = "" if self.reading.prompt.images else f" `{shown(self.reading.prompt.texts[self.position])}`"
        return local_reading(
            row,
            layer.x[self.position],
            output_of(circuit.bases[layer.segment.hook_out], self.out),
            self.out,
            self.came,
            where=f"{'image' if self.reading.prompt.images else 'position'} {self.position}{place}",
            name=lambda feature: self.reading.ordinary.name("IF", layer.segment.hook_in, feature),
            gate=self.gate,
            width=layer.f_in.shape[1],
            k=k,
            share=share,
        )

    def logits(self, most: int = 5) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
        """What it raises and lowers most on the direct way: (token, change of its logit), both ends; empty without one."""
        layer = self.layer
        if layer.path is None:
            return [], []
        direction = directions(self.reading.circuit.bases[layer.segment.hook_out], layer.f_out.shape[1])[self.out]
        change = layer.path.logits(self.position, self.came * direction[None])[0]
        order = change.argsort(descending=True).tolist()
        ends = order[:most], order[: -most - 1 : -1]
        up, down = ([(self.reading.text_of(i), float(change[i])) for i in end] for end in ends)
        return up, down

    def __repr__(self) -> str:
        place = "" if self.reading.prompt.images else f" `{shown(self.reading.prompt.texts[self.position])}`"
        return f"{self.position}{place}: {self.name} {self.summary()}"

    def summary(self) -> str:
        """What came, what the gate said, which literals are on, and what it does; a line."""
        parts = [f"{self.came:.3g}"]
        if self.said is not None:
            held = ", ".join(f"{name} {'on' if on else 'off'}" for name, on, _ in self.literals)
            parts.append(f"rule says {'on' if self.said else 'off'}{self._wrong()} ({held}; {grade_of(self.gate)})")
        elif self.predicted is not None:
            parts.append(f"wires {self.predicted:.3g}, no rule")
        if self.effect is not None:
            parts.append(f"{self.effect:+.2g} to `{shown(self.target)}`")
        return "   ".join(parts)

    def _wrong(self) -> str:
        """Words where what came is not what the rule said; between zero and its level an output is neither on nor off."""
        if self.said and self.came <= 0:
            return ", but it was off"
        on = self.gate is not None and self.came > self.gate.level
        return ", but it was on" if on and not self.said else ""

    def to_json(self) -> dict[str, Any]:
        """Plain numbers and words."""
        return {
            "segment": self.layer.segment.name,
            "position": self.position,
            "token": self.reading.prompt.texts[self.position],
            "out": self.out,
            "name": self.name,
            "came": self.came,
            "predicted": self.predicted,
            "rule_says_on": self.said,
            "kind": None if rule_of(self.gate) is None else str(self.gate.kind),
            "grade": grade_of(self.gate),
            "literals": [{"name": name, "on": on, "value": value} for name, on, value in self.literals],
            "effect": self.effect,
            "target": self.target,
        }


def firings_of(
    reading: Scene, position: int | None = None, segment: str | None = None, most: int | None = None
) -> list[Firing]:
    """See `PromptReading.firings`."""
    names = [reading.circuit.segment(segment).name] if segment is not None else list(reading.layers)
    places = range(len(reading)) if position is None else [reading.prompt.position(position)]
    counted = [p for p in places if position is not None or reading.prompt.keep[p]]
    pairs = [(reading.layers[n], p, out) for n in names for p in counted for out in _fires(reading.layers[n], p)]
    pairs.sort(key=lambda pair: -_size(*pair))
    return [Firing.of(reading, layer, place, out) for layer, place, out in pairs[:most]]


def _fires(layer: Layer, position: int) -> list[int]:
    on = (layer.f_out[position] > 0).nonzero()[:, 0].tolist()
    return sorted({*on, *(out for out, said in layer.said.items() if said[position])})


def _size(layer: Layer, position: int, out: int) -> float:
    size = layer.f_out if layer.effects is None else layer.effects
    return abs(float(size[position, out]))


def row_of(reading: Scene, layer: Layer, position: int, keep_error: bool = True) -> Row:
    """The input of a segment at one position, taken apart."""
    basis = reading.circuit.bases[layer.segment.hook_in]
    f = layer.f_in[position]
    with torch.no_grad():
        bias = basis.decode(torch.zeros_like(f)[None])[0]
    return Row.of(layer.segment.forward, layer.x[position], f, directions(basis, len(f)).detach(), bias, keep_error)


def shown(text: str) -> str:
    """A token's text with line ends and the like as escapes."""
    return text.encode("unicode_escape").decode() if not text.isprintable() else text
