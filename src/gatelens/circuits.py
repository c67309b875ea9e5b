"""Circuit: segments, bases, connectors and gates, one value that can be saved, compared and put back into a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from . import store
from .activations import Activations
from .activations.checking import check_together, rows_at
from .activations.collecting import hook_names
from .basis.features import encode_rows
from .basis.linear import Basis
from .basis.output import output_features
from .connectors import Connector, Solver
from .errors import ConfigError, DataError, ModelError, SegmentError, unknown
from .errors.progress import bar
from .gate_dictionaries.doors import taken_in
from .gates import Gate
from .gates.saving import gate_from_dict, gate_row, gate_to_dict
from .lazy import LATER, shows_itself
from .models import check_model
from .models.fingerprint import active_hooks, weights_fingerprint
from .saving import basis_from, basis_into
from .segments import Segment, each_segment, with_outside
from .segments.outside import Outside
from .solvers.protocol import as_solver
from .solvers.size_rule import default_solver


@shows_itself
@dataclass(frozen=True, eq=False)
class Circuit:
    """What was found between the hook points of a model.

    Attributes:
        segments: in the order in which data flows.
        bases: hook name -> basis.
        connectors, gates: segment name -> connector, and its outputs' gates (empty where gates were not read).
        info: how it was made: model and the hash of its weights, data, solver, seed.
    """

    segments: Sequence[Segment]
    bases: Mapping[str, Basis]
    connectors: Mapping[str, Connector]
    gates: Mapping[str, Sequence[Gate]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bases", taken_in(self.bases, self.segments))  # the gate of `bases.admission`

    def segment(self, name: str | None = None) -> Segment:
        """The segment of that name; without a name, the only one."""
        if name is None and len(self.segments) == 1:
            return self.segments[0]
        names = [s.name for s in self.segments]
        if name not in names:
            raise ConfigError(
                f"this circuit has {len(names)} segments; name one of {', '.join(names)}"
                if name is None
                else unknown("segment", name, names)
            )
        return self.segments[names.index(name)]

    def gate(self, out: int, segment: str | None = None) -> Gate:
        """The gate of output feature `out`."""
        gates = self.gates.get(self.segment(segment).name, [])
        for gate in gates:
            if gate.out == out:
                return gate
        raise DataError(f"no gate was read for output feature {out}; there are {len(gates)} gates in this segment")

    def on(self, model: Any, prompt: Any, acts: Any = None, batches: Any = None) -> Any:
        """What the circuit says of one prompt, beside what the model does on it: a `PromptReading`.

        Args:
            model: the one that the circuit was made from.
            prompt: a text, token ids, or for a model of images one image or several.
            acts: activations at the circuit's hook points, for typical levels and the tokens that name a feature.
            batches: ordinary data, for the loss beside steering.

        Raises:
            DataError: a prompt that the model cannot read. HookNameError, ModelError: not the circuit's model.
        """
        return LATER["read_prompt"](self, model, prompt, acts, batches)

    def check_model(self, model: Any) -> None:
        """Refuse another model than the one that this circuit was read from; one that was not recorded passes.

        Raises:
            ModelError: other weights, or hooks left on the model.
        """
        made_in = self.info.get("weights")
        if made_in is None:
            return
        found = weights_fingerprint(model, hook_names(self.segments))
        if found != made_in:
            raise ModelError(
                f"this circuit was read from a model {self.info.get('model', '')} whose weights have the hash {made_in}, the one given "
                f"({type(model).__name__}) has {found}. Give the model that it was made with, loaded the same way; to measure it "
                "in another on purpose: dataclasses.replace(circuit, info={})"
            )
        if hooked := active_hooks(model):
            raise ModelError(
                f"the model has hooks on it ({', '.join(list(hooked)[:5])}): what it computes is not what its weights say. "
                "Take them off: model.reset_hooks(including_permanent=True)"
            )

    def to_json(self) -> dict[str, Any]:
        """Wires, gates with their tables and figures, and what the bases are, as plain JSON without NaN.

        The schema is `views.schema("circuit")`. The bases' numbers are not in it: `save` keeps the whole circuit.
        """
        return LATER["circuit_json"](self)

    def to_dataframe(self) -> Any:
        """A pandas DataFrame, one row a gate: its rule in words, kind, grade, wires and figures beside their nulls."""
        import pandas

        gates = [(name, gate) for name, gates in self.gates.items() for gate in gates]
        return pandas.DataFrame([{"segment": name} | gate_row(gate) for name, gate in gates])

    def save(self, folder: str | Path, bases: bool = True) -> None:
        """Write everything to a folder (safetensors and JSON, hashed); `Circuit.load` reads it back without the model.

        It is committed as one: until all of it is on the disk, an earlier circuit in the folder stays whole.

        Args:
            bases: False leaves the bases out, for a circuit whose bases are kept elsewhere.
        """
        kept = self.bases if bases else {}
        outside = next((s.outside for s in self.segments if s.outside is not None), None)
        with store.writing(folder, "circuit") as out:
            for i, basis in enumerate(kept.values()):
                basis_into(basis, out.part(f"bases/{i}"))
            out.json(
                "circuit.json",
                {
                    "segments": [
                        {"hook_in": s.hook_in, "hook_out": s.hook_out, "d_in": s.d_in, "d_out": s.d_out}
                        | ({"reshape": s.reshape} if s.reshape else {})
                        for s in self.segments
                    ],
                    "bases": list(kept),
                    "connectors": [s.name in self.connectors for s in self.segments],
                    "info": dict(self.info),
                    **({"outside": outside.hook} if outside else {}),
                },
            )
            if outside:
                out.tensors("outside.safetensors", {"rows": outside.rows})
            for i, segment in enumerate(self.segments):
                if segment.name in self.connectors:
                    self.connectors[segment.name].save_into(out.part(f"connectors/{i}"))
                out.json(f"gates-{i}.json", [gate_to_dict(g) for g in self.gates.get(segment.name, [])])

    def push_to_hub(self, repo: str, report: Any = None, private: bool = False) -> str:
        """Upload what `save` writes, with a card written from the report, to "name/repo" of the hub; its address (or HubError)."""
        return LATER["push_to_hub"](self, repo, report, private)

    @classmethod
    def from_pretrained(cls, name: str | Path, segments: Any = None, revision: str | None = None) -> Circuit:
        """`load` from "name/repo" of the hub, or a folder; only safetensors and JSON are fetched, and checked (or HubError)."""
        return LATER["from_pretrained"](cls, name, segments, revision)

    @classmethod
    def load(cls, folder: str | Path, segments: Segment | Sequence[Segment] | None = None) -> Circuit:
        """Read a saved circuit. Give the model's segments to be able to run them; without, it can be read and spliced."""
        with store.understood(folder):
            return cls._read(Path(folder), None if segments is None else each_segment(segments))

    @classmethod
    def _read(cls, folder: Path, segments: Sequence[Segment] | None) -> Circuit:
        stored = store.reading(folder, "circuit")
        config = stored.json("circuit.json")
        outside = None
        if "outside" in config:
            outside = Outside(config["outside"], stored.tensors("outside.safetensors")["rows"])
        plain = [
            Segment(
                s["hook_in"], s["hook_out"], _no_model, s["d_in"], s["d_out"], reshape=s.get("reshape"), outside=outside
            )
            for s in config["segments"]
        ]
        names = [s.name for s in plain]
        if segments is not None and [s.name for s in segments] != names:
            raise SegmentError(
                f"{folder} holds a circuit of {', '.join(names)}; got segments {', '.join(s.name for s in segments)}"
            )
        bases = [stored.part(f"bases/{i}", "basis") for i in range(len(config["bases"]))]
        wires = {i: stored.part(f"connectors/{i}", "connector") for i, has in enumerate(config["connectors"]) if has}
        return cls(
            list(segments or plain),
            dict(zip(config["bases"], map(basis_from, bases), strict=True)),
            {names[i]: Connector.load_from(part) for i, part in wires.items()},
            {n: [gate_from_dict(g) for g in stored.json(f"gates-{i}.json")] for i, n in enumerate(names)},
            config["info"],
        )

    def __repr__(self) -> str:
        lines = [f"Circuit({len(self.segments)} segments)"]
        for s in self.segments:
            gates = self.gates.get(s.name, [])
            read = sum(g.read for g in gates)
            lines.append(
                f"  {s.name}: {self.connectors.get(s.name, 'no connector')}; {read} of {len(gates)} outputs obey a rule"
            )
        return "\n".join(lines)


def _no_model(x: Tensor) -> Tensor:
    raise SegmentError("this circuit was loaded without its model; give Circuit.load the model's segments to run them")


def build_circuit(
    model: Any,
    segments: Segment | Sequence[Segment],
    bases: Mapping[str, Any],
    acts: Mapping[str, Tensor],
    solver: Any = None,
    sequential: bool = True,
    gates: bool = True,
    held_out: Mapping[str, Tensor] | None = None,
    info: Mapping[str, Any] | None = None,
    progress: bool | None = None,
    **gate_options: Any,
) -> Circuit:
    """Connect the bases of each segment and read the gates.

    Args:
        model: for solvers and interventions that ask the model itself.
        bases: hook name -> basis, a sae-lens SAE or transcoder, a folder, or a pair (release, sae_id).
        acts: activations of the fitting part at the segments' hook points.
        solver: makes each connector; None: by size (`BySize`), or the wires that gate dictionaries have built in.
        sequential: where a segment begins at the end of another, fit its connector again on the features that the one
            before predicts (solvers with `refit_on`).
        gates: read gates, on `held_out` activations when given.
        gate_options: for `type_gates`.

    Raises:
        BasisError: a basis of another width, before anything is computed.
    """
    check_model(model)
    segments = each_segment(segments)
    if not segments:
        raise SegmentError("no segments: expected at least one. Give mlp_segments(model)")
    for hook in hook_names(segments):
        if hook not in bases:
            raise ConfigError(f"no basis for {hook}; there are bases for {', '.join(bases) or 'nothing'}")
    bases = taken_in(bases, segments)
    solver = default_solver(segments, bases) if solver is None else as_solver(solver)
    features = features_at(segments, bases, acts, progress)
    connectors = connect(segments, bases, features, solver, sequential, progress)
    made_in = {"model": type(model).__name__, "weights": weights_fingerprint(model, hook_names(segments))}
    circuit = Circuit(with_outside(model, segments), dict(bases), connectors, {}, made_in | dict(info or {}))
    return read_gates(circuit, features, held_out, progress, acts, model, **gate_options) if gates else circuit


def connect(
    segments: Sequence[Segment],
    bases: Mapping[str, Basis],
    features: Mapping[str, Tensor],
    solver: Solver,
    sequential: bool = True,
    progress: bool | None = None,
) -> dict[str, Connector]:
    """segment name -> connector, from features over the same rows."""
    connectors: dict[str, Connector] = {}
    predicted: dict[str, Tensor] = {}
    solver = as_solver(solver)
    for segment in bar(segments, "connect", progress):
        bound = solver.at(segment, bases[segment.hook_in], bases[segment.hook_out])
        f_in, f_out = features[segment.hook_in], features[segment.hook_out]
        connector = bound.fit(f_in, f_out)
        if sequential and segment.hook_in in predicted:
            f_in = predicted[segment.hook_in]
            connector = bound.refit_on(connector, f_in, f_out)
        connectors[segment.name] = connector
        if any(s.hook_in == segment.hook_out for s in segments):
            predicted[segment.hook_out] = connector(f_in)
    return connectors


def read_gates(
    circuit: Circuit,
    features: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor] | None = None,
    progress: bool | None = None,
    acts: Mapping[str, Tensor] | None = None,
    model: Any = None,
    **options: Any,
) -> Circuit:
    """The circuit with its outputs' rules found on fitting features and judged on held-out activations.

    Args:
        acts: the activations that the features were made from: where these and `held_out` know where their rows come from
            (`Activations`), tables of tokens stand beside the rules.
        model: with it, and `held_out` that knows its tokens, each gate says what its output favours and whether that comes.
    """
    from .gates import type_gates
    from .gates.gate_effects import with_effects

    if isinstance(acts, Activations) and isinstance(held_out, Activations):
        options = {"origins": (acts, held_out)} | options

    gates = {}
    unseen = features_at(circuit.segments, circuit.bases, held_out, progress) if held_out is not None else None
    for segment in bar(circuit.segments, "gates", progress):
        at = {
            "segment": segment,
            "basis_in": circuit.bases[segment.hook_in],
            "basis_out": circuit.bases[segment.hook_out],
        }
        rest = dict(options)
        if held_out is not None and unseen is not None:
            rest["held_out"] = (unseen[segment.hook_in], unseen[segment.hook_out])
            rest["x"] = held_out[segment.hook_in]
        f_in, f_out = features[segment.hook_in], features[segment.hook_out]
        if acts is not None:
            rest["x_fit"] = acts[segment.hook_in]
        found = type_gates(circuit.connectors[segment.name], f_in, f_out, progress=progress, **at, **rest)
        if model is not None and isinstance(held_out, Activations) and unseen is not None:
            found = with_effects(found, model, segment.hook_out, at["basis_out"], unseen[segment.hook_out], held_out)
        gates[segment.name] = found
    return replace(circuit, gates=gates)


def features_at(
    segments: Sequence[Segment], bases: Mapping[str, Basis], acts: Mapping[str, Any], progress: bool | None = None
) -> dict[str, Tensor]:
    """hook name -> features; each hook point is encoded once."""
    features: dict[str, Tensor] = {}
    for segment in bar(segments, "features", progress):
        hook_in, hook_out = segment.hook_in, segment.hook_out
        if hook_in in features and hook_out in features:
            continue
        x, y = rows_at(acts, hook_in, segment.d_in), rows_at(acts, hook_out, segment.d_out)
        if hook_in not in features:
            features[hook_in] = encode_rows(bases[hook_in], x)
        if hook_out not in features:
            features[hook_out] = output_features(bases[hook_out], x, y)
        check_together(features, (hook_in, hook_out))
    return features
