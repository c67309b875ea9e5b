"""PromptReading: a circuit on one prompt; which outputs fire where, why, and what happens when they are switched."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..circuits import Circuit
from ..errors import ConfigError
from ..errors.door import at_the_door
from ..lazy import shows_itself
from ..models.protocol import check_model
from .contrast import Contrast, contrasted
from .firing import Firing, firings_of
from .lines import lines_of
from .scene import Scene
from .steering import Steered, steered
from .switched import Switched
from .switching import switched


@at_the_door
@shows_itself
@dataclass(frozen=True, eq=False, repr=False)
class PromptReading(Scene):
    """A circuit on one prompt, or on images, each of which is a position.

    `at(position, out)` is one output at one place, its `why()` the local reading there. `set` and `switch` run the model with
    features changed, `steer` holds a gate while the model writes on, `contrast` compares with another prompt.

    Attributes: see `Scene`.

    Examples:
        >>> reading = circuit.on(model, held_out.inputs[:4])
        >>> reading
        PromptReading of 4 images, ... firings
        ...
    """

    def at(self, position: int, out: int | str, segment: str | None = None) -> Firing:
        """One output feature at one position, on or off.

        Raises:
            DataError: a position out of range, a feature that the circuit does not have.
        """
        layer = self.layer(segment)
        feature = self.feature(out, layer.f_out.shape[1], "OF")
        return Firing.of(self, layer, self.prompt.position(position), feature)

    def firings(self, position: int | None = None, segment: str | None = None, most: int | None = None) -> list[Firing]:
        """The outputs that fire, or that their gate says are on, the largest direct effect first (without one, the largest value).

        BOS is left out unless its position is asked for.
        """
        return firings_of(self, position, segment, most)

    def set(
        self,
        changes: Mapping[int | str, float | str],
        at: int | Sequence[int] = -1,
        segment: str | None = None,
        *,
        frozen: bool = False,
        target: str | int | None = None,
        companions: bool = False,
    ) -> Switched:
        """Run the model with features changed.

        Args:
            changes: feature -> a value, "off" or "typical". A number or IF_17 is an input feature of the segment, OF_17 an output.
            at: position or positions.
            frozen: later blocks keep their attention patterns.
            target: the token whose logit is followed; the model's first choice by default.
            companions: set with each input feature those that come and go with it, as `acts` show them.
        """
        return switched(self, changes, at, segment, frozen, target, companions)

    def switch(
        self, gate: int | str, to: str = "off", at: int | Sequence[int] = -1, segment: str | None = None, **how: Any
    ) -> Switched:
        """Run the model with one output feature, a gate's, "off" or "on" (at its typical level). `how`: see `set`.

        Raises:
            ConfigError: another `to`. DataError: a feature or a position that is not there.
        """
        if to not in ("on", "off"):
            raise ConfigError(f'a gate is switched "on" or "off", got {to!r}')
        out = self.feature(gate, self.layer(segment).f_out.shape[1], "OF")
        return self.set({f"OF_{out}": "off" if to == "off" else "typical"}, at, segment, **how)

    def steer(
        self, gate: int | str, strength: float = 1.0, tokens: int = 20, segment: str | None = None, seed: int = 0
    ) -> Steered:
        """Let the model write on while a gate's output is held at `strength` times its typical level; 0 holds it off."""
        return steered(self, gate, strength, tokens, segment, seed)

    def contrast(self, other: Any, tokens: tuple[str | int, str | int] | None = None, most: int = 20) -> Contrast:
        """Which gates differ between this prompt and another, and which of them carry the difference of two tokens' logits."""
        return contrasted(self, other, tokens, most)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row a firing, in the order of the prompt."""
        import pandas

        return pandas.DataFrame([f.to_json() | {"literals": f.literals_text} for f in self._in_order()])

    def to_json(self) -> dict[str, Any]:
        """Tokens, the model's first choices, and every firing, as plain JSON."""
        chances = self.logits.softmax(-1)
        return {
            "tokens": list(self.prompt.texts),
            "images": self.prompt.images,
            "next": [
                {"token": self.text_of(int(t)), "probability": round(float(chances[p, t]), 6)}
                for p, t in enumerate(self.targets)
            ],
            "segments": list(self.layers),
            "firings": [f.to_json() for f in self._in_order()],
        }

    def _in_order(self) -> list[Firing]:
        return sorted(self.firings(), key=lambda f: (f.position, f.layer.segment.name))

    def __repr__(self) -> str:
        return "\n".join(lines_of(self))


def read_prompt(circuit: Circuit, model: Any, prompt: Any, acts: Any = None, batches: Any = None) -> PromptReading:
    """What a circuit says of one prompt, beside what the model does on it.

    Args:
        model: the one that the circuit was made from.
        prompt: a text, token ids, or for a model of images one image or several.
        acts: `Activations` at the circuit's hook points, for typical levels and the tokens that name a feature.
        batches: ordinary data, for the loss beside steering.

    Raises:
        DataError: a prompt that the model cannot read. HookNameError, ModelError: not the circuit's model.
    """
    check_model(model)
    return PromptReading.of(circuit, model, prompt, acts, batches)
