"""PromptReading: a circuit on one prompt; which outputs fire where, what their gates said, and what each does to the logits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from jaxtyping import Float, Int
from torch import Tensor

from ..bases.linear import directions
from ..circuits import Circuit
from ..errors import ConfigError, DataError, nearest
from ..features import dense_rows, encode_rows, output_features
from ..gates import Gate
from ..lazy import shows_itself
from ..segments import Segment
from .belonging import of_this_model
from .effects import DirectPath, direct_path, last_stream
from .firing import Firing
from .literals import rule_of, says_on, typical_of
from .ordinary import Ordinary
from .prompt import Prompt, prompt_of
from .running import Runner

if TYPE_CHECKING:
    from .contrast import Contrast
    from .steering import Steered
    from .switched import Switched


@dataclass(frozen=True, eq=False)
class Layer:
    """One segment on the prompt.

    Attributes:
        x, y: [positions, d] what went in and came out. f_in, f_out: the features of both.
        predicted: [positions, n] what the connector makes of f_in; None without one.
        said: output feature -> [positions] whether its gate's rule says on.
        gates: output feature -> its gate. path: to the logits; None where there is no linear way.
        effects: [positions, n] what each output adds to the logit of the position's target on the direct way.
    """

    segment: Segment
    x: Float[Tensor, "positions d_in"]
    y: Float[Tensor, "positions d_out"]
    f_in: Float[Tensor, "positions m"]
    f_out: Float[Tensor, "positions n"]
    predicted: Float[Tensor, "positions n"] | None
    said: Mapping[int, Tensor]
    gates: Mapping[int, Gate]
    path: DirectPath | None
    effects: Float[Tensor, "positions n"] | None


@shows_itself
@dataclass(frozen=True, eq=False)
class PromptReading:
    """A circuit on one prompt, or on images, each of which is a position.

    `at(position, out)` is one output at one place, its `why()` the local reading there. `set` and `switch` run the model with
    features changed, `steer` holds a gate while it writes on, `contrast` compares with another prompt.

    Attributes:
        circuit, model, prompt: what was read on what.
        layers: segment name -> what happens in it.
        logits: [positions, outputs of the model]. targets: [positions] the model's own first choice, whose logit is followed.
        ordinary: what the features do elsewhere, where `acts` were given. batches: ordinary text, for the loss of steering.
    """

    circuit: Circuit
    model: Any
    prompt: Prompt
    layers: Mapping[str, Layer]
    logits: Float[Tensor, "positions outputs"]
    targets: Int[Tensor, " positions"]
    ordinary: Ordinary
    batches: Any
    runner: Runner

    def __len__(self) -> int:
        return len(self.prompt)

    def layer(self, segment: str | None = None) -> Layer:
        """What happens in a segment; without a name, in the only one."""
        return self.layers[self.circuit.segment(segment).name]

    def text_of(self, output: int) -> str:
        """The name of one of the model's outputs: a token, or a class."""
        return output_text(self.model, output)

    def target(self, wanted: str | int | None, position: int) -> int:
        """The output whose logit is followed: a token's text or id, by default the model's first choice at a position.

        Raises:
            DataError: a text that is not one token, an id out of range.
        """
        if wanted is None:
            return int(self.targets[position])
        tokenizer = getattr(self.model, "tokenizer", None)
        if isinstance(wanted, str):
            ids = [] if tokenizer is None else tokenizer(wanted, add_special_tokens=False)["input_ids"]
            if len(ids) != 1:
                raise DataError(
                    f"{wanted!r} is {len(ids)} tokens: expected one. Mind the space in front, or give its id"
                )
            return int(ids[0])
        if not 0 <= wanted < self.logits.shape[1]:
            raise DataError(f"the model has no output {wanted}: they are 0..{self.logits.shape[1] - 1}")
        return int(wanted)

    def at(self, position: int, out: int | str, segment: str | None = None) -> Firing:
        """One output feature at one position, on or off.

        Raises:
            DataError: a position out of range, a feature that the circuit does not have.
        """
        layer = self.layer(segment)
        feature = self.feature(out, layer.f_out.shape[1], "OF")
        return Firing.of(self, layer, self.prompt.position(position), feature)

    def feature(self, named: int | str, width: int, kind: str) -> int:
        """The number of a feature that is given as 17 or as IF_17 / OF_17.

        Raises:
            DataError: one that the circuit does not have, with the nearest names.
        """
        number = named
        if isinstance(named, str):
            head, _, tail = named.partition("_")
            number = int(tail) if head.upper() == kind and tail.isdigit() else -1
        if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < width:
            known = [f"{kind}_{i}" for i in range(width)]
            near = nearest(named if isinstance(named, str) else f"{kind}_{named}", known)
            raise DataError(
                f"the circuit has no feature {named!r} there: they are {kind}_0..{kind}_{width - 1}; "
                f"the nearest are {', '.join(near)}"
            )
        return number

    def typical(self, layer: Layer, kind: str, feature: int) -> float:
        """The mean of a feature where it is on: in the rows at hand, else for an output with a gate in the gate's own table.

        Raises:
            DataError: it is known from neither.
        """
        gate = layer.gates.get(feature) if kind == "OF" and self.ordinary.acts is None else None
        level = None if gate is None else typical_of(gate)
        hook = layer.segment.hook_in if kind == "IF" else layer.segment.hook_out
        return self.ordinary.typical(hook, feature) if level is None else level

    def firings(self, position: int | None = None, segment: str | None = None, most: int | None = None) -> list[Firing]:
        """The outputs that fire, or that their gate says are on, the largest direct effect first (without one, the largest value).

        BOS is left out unless its position is asked for.
        """
        names = [self.circuit.segment(segment).name] if segment is not None else list(self.layers)
        places = range(len(self)) if position is None else [self.prompt.position(position)]
        counted = [p for p in places if position is not None or self.prompt.keep[p]]
        pairs = [(self.layers[n], p, out) for n in names for p in counted for out in _fires(self.layers[n], p)]
        pairs.sort(key=lambda pair: -_size(*pair))
        return [Firing.of(self, layer, place, out) for layer, place, out in pairs[:most]]

    def set(
        self,
        changes: Mapping[int | str, float | str],
        at: int | Sequence[int] = -1,
        segment: str | None = None,
        *,
        frozen: bool = False,
        target: str | int | None = None,
    ) -> Switched:
        """Run the model with features changed.

        Args:
            changes: feature -> a value, "off" or "typical". A number or IF_17 is an input feature of the segment, OF_17 an output.
            at: position or positions.
            frozen: later blocks keep their attention patterns.
            target: the token whose logit is followed; the model's first choice by default.
        """
        from .switching import switched

        return switched(self, changes, at, segment, frozen, target)

    def switch(
        self, gate: int | str, to: str = "off", at: int | Sequence[int] = -1, segment: str | None = None, **how: Any
    ) -> Switched:
        """Run the model with one output feature, a gate's, "off" or "on" (at its typical level). `how`: see `set`."""
        if to not in ("on", "off"):
            raise ConfigError(f'a gate is switched "on" or "off", got {to!r}')
        out = self.feature(gate, self.layer(segment).f_out.shape[1], "OF")
        return self.set({f"OF_{out}": "off" if to == "off" else "typical"}, at, segment, **how)

    def steer(
        self, gate: int | str, strength: float = 1.0, tokens: int = 20, segment: str | None = None, seed: int = 0
    ) -> Steered:
        """Let the model write on while a gate's output is held at `strength` times its typical level; 0 holds it off."""
        from .steering import steered

        return steered(self, gate, strength, tokens, segment, seed)

    def contrast(self, other: Any, tokens: tuple[str | int, str | int] | None = None, most: int = 20) -> Contrast:
        """Which gates differ between this prompt and another, and which of them carry the difference of two tokens' logits."""
        from .contrast import contrasted

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
        from .lines import lines_of

        return "\n".join(lines_of(self))

    @cached_property
    def clean_runs(self) -> dict[str, Tensor]:
        """hook name -> [positions, d] of the untouched prompt, at the circuit's hook points."""
        return {h: v for w in self.layers.values() for h, v in ((w.segment.hook_in, w.x), (w.segment.hook_out, w.y))}


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
    given = prompt_of(model, prompt)
    circuit = of_this_model(circuit, model)
    hooks = [h for s in circuit.segments for h in (s.hook_in, s.hook_out)]
    stream = last_stream(model)
    runner = Runner(model, given)
    ran = runner.run(watch=[*hooks, *([stream] if stream else [])])
    logits, cache = ran.logits[0], {hook: value[0] for hook, value in ran.values.items()}
    targets = logits.argmax(-1)
    layers = {s.name: _layer(circuit, model, s, cache, targets) for s in circuit.segments}
    ordinary = Ordinary(circuit, acts, lambda token: output_text(model, token))
    return PromptReading(circuit, model, given, layers, logits, targets, ordinary, batches, runner)


def output_text(model: Any, output: int) -> str:
    """A token's text, or the number of a class."""
    tokenizer = getattr(model, "tokenizer", None)
    return f"class {output}" if tokenizer is None else tokenizer.decode([output])


def _layer(circuit: Circuit, model: Any, segment: Segment, cache: Mapping[str, Tensor], targets: Tensor) -> Layer:
    x, y = cache[segment.hook_in], cache[segment.hook_out]
    segment.check(x, y)
    basis_in, basis_out = circuit.bases[segment.hook_in], circuit.bases[segment.hook_out]
    f_in, f_out = dense_rows(encode_rows(basis_in, x)), dense_rows(output_features(basis_out, x, y))
    connector = circuit.connectors.get(segment.name)
    gates = {gate.out: gate for gate in circuit.gates.get(segment.name, [])}
    rules = {out: rule for out, gate in gates.items() if (rule := rule_of(gate)) is not None}
    path = direct_path(model, segment.hook_out, cache)
    effects = None
    if path is not None:
        effects = f_out * (path.readers(targets) @ directions(basis_out, f_out.shape[1]).float().cpu().T)
    return Layer(
        segment,
        x,
        y,
        f_in,
        f_out,
        None if connector is None else connector(f_in),
        {out: says_on(rule, f_in) for out, rule in rules.items()},
        gates,
        path,
        effects,
    )


def _fires(layer: Layer, position: int) -> list[int]:
    on = (layer.f_out[position] > 0).nonzero()[:, 0].tolist()
    return sorted({*on, *(out for out, said in layer.said.items() if said[position])})


def _size(layer: Layer, position: int, out: int) -> float:
    size = layer.f_out if layer.effects is None else layer.effects
    return abs(float(size[position, out]))
