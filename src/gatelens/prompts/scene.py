"""Scene: a circuit and its model on one prompt, run once; what everything else of this room looks at."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from jaxtyping import Float, Int
from torch import Tensor

from ..activations.collecting import check_made_by
from ..basis.features import dense_rows, encode_rows
from ..basis.linear import directions
from ..basis.output import output_features
from ..circuits import Circuit
from ..data.told import tokenizer_of
from ..errors import DataError, nearest
from ..gates import Gate
from ..segments import Segment
from .belonging import of_this_model
from .effects import DirectPath, direct_path, last_stream
from .literals import rule_of, says_on, typical_of
from .ordinary import Ordinary
from .prompt import Prompt, prompt_of
from .running import Runner, entering

T = TypeVar("T", bound="Scene")


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


@dataclass(frozen=True, eq=False)
class Scene:
    """A circuit on one prompt, or on images, each of which is a position.

    Attributes:
        circuit, model, prompt: what was read on what.
        layers: segment name -> what happens in it.
        logits: [positions, outputs of the model]. targets: [positions] the model's own first choice, whose logit is followed.
        ordinary: what the features do elsewhere, where `acts` were given. batches: ordinary text, for the loss of steering.
        runner: runs the model on the prompt.
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

    @classmethod
    def of(cls: type[T], circuit: Circuit, model: Any, prompt: Any, acts: Any = None, batches: Any = None) -> T:
        """Run the model once on a prompt that it can read, with a circuit that is its own.

        Raises:
            DataError: a prompt that the model cannot read. HookNameError, ModelError: not the circuit's model.
        """
        given = prompt_of(model, prompt)
        circuit = of_this_model(circuit, model)
        check_made_by(model, acts)
        hooks = [h for s in circuit.segments for h in (s.hook_in, s.hook_out)]
        stream = last_stream(model)
        runner = Runner(model, given)
        begin = [hook for hook in entering(hooks) if hook in model.hook_dict]
        ran = runner.run(watch=[*hooks, *begin, *([stream] if stream else [])])
        logits, cache = ran.logits[0], {hook: value[0] for hook, value in ran.values.items()}
        targets = logits.argmax(-1)
        layers = {s.name: _layer(circuit, model, s, cache, targets) for s in circuit.segments}
        ordinary = Ordinary(circuit, acts, lambda token: output_text(model, token))
        return cls(circuit, model, given, layers, logits, targets, ordinary, batches, runner)

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
        tokenizer = tokenizer_of(self.model)
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

    @cached_property
    def clean_runs(self) -> dict[str, Tensor]:
        """hook name -> [positions, d] of the untouched prompt, at the circuit's hook points."""
        return {h: v for w in self.layers.values() for h, v in ((w.segment.hook_in, w.x), (w.segment.hook_out, w.y))}


def output_text(model: Any, output: int) -> str:
    """A token's text, or the number of a class."""
    tokenizer = tokenizer_of(model)
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
