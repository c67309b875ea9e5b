"""Circuit: segments, bases, connectors and gates, one value that can be saved, compared and put back into a model."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from .. import store
from ..activations.again import UNSEEN, Seen
from ..activations.collecting import hook_names
from ..basis.linear import Basis
from ..connectors import Connector
from ..errors import ConfigError, DataError, ModelError, SegmentError, unknown
from ..errors.door import at_the_door
from ..gate_dictionaries.doors import taken_in
from ..gates import Gate
from ..gates.saving import gate_from_dict, gate_row, gate_to_dict
from ..lazy import LATER, shows_itself
from ..models import check_model, there
from ..models.fingerprint import active_hooks, weights_fingerprint
from ..saving import basis_from, basis_into
from ..segments import Segment, each_segment
from ..segments.outside import Outside
from ..segments.segment import no_model

_SEEN = "seen.safetensors"


@at_the_door
@shows_itself
@dataclass(frozen=True, eq=False)
class Circuit:
    """What was found between the hook points of a model.

    Attributes:
        segments: in the order in which data flows.
        bases: hook name -> basis.
        connectors, gates: segment name -> connector, and its outputs' gates (empty where gates were not read).
        info: how it was made: model and the hash of its weights, data, solver, seed.
        seen: a few inputs and what that model made of them, to know it again; None where it was not there.

    Raises:
        ConfigError: from `gate`, several segments and none named. DataError: an output without a gate.

    Examples:
        >>> circuit
        Circuit(1 segments)
          hook_resid -> hook_mlp_out: Connector(96 -> 32, ...); ... of 32 outputs obey a rule
        >>> circuit.gate(2).read
        True
    """

    segments: Sequence[Segment]
    bases: Mapping[str, Basis]
    connectors: Mapping[str, Connector]
    gates: Mapping[str, Sequence[Gate]] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)
    seen: Seen | None = field(default=None, repr=False)

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

    def at(self, device: torch.device) -> Circuit:
        """The circuit with its bases and wires on a device, to be worked with there; itself where they are there already."""
        parts = there((dict(self.bases), dict(self.connectors)), device)
        made = copy.copy(self)  # what was admitted once is not asked again
        object.__setattr__(made, "bases", parts[0])
        object.__setattr__(made, "connectors", parts[1])
        return made

    def check_model(self, model: Any) -> None:
        """Refuse another model than the one that this circuit was read from; one that was not recorded passes.

        Raises:
            ModelError: other weights, hooks left on the model, or other values at the circuit's hook points.
        """
        check_model(model)
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
        if self.seen is not None:
            self.seen.check(
                model, "this circuit was read from a model that gives", f"{UNSEEN}. Put the model back as it was"
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
            if self.seen is not None:
                out.tensors(_SEEN, self.seen.to_tensors())
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
                s["hook_in"], s["hook_out"], no_model, s["d_in"], s["d_out"], reshape=s.get("reshape"), outside=outside
            )
            for s in config["segments"]
        ]
        names = [s.name for s in plain]
        if segments is not None and [s.name for s in segments] != names:
            raise SegmentError(
                f"{folder} holds a circuit of {', '.join(names)}; got segments {', '.join(s.name for s in segments)}"
            )
        heads = [hook for s in plain if s.reshape for hook in (s.hook_in, s.hook_out)]
        bases = [stored.part(f"bases/{i}", "basis") for i in range(len(config["bases"]))]
        wires = {i: stored.part(f"connectors/{i}", "connector") for i, has in enumerate(config["connectors"]) if has}
        return cls(
            list(segments or plain),
            dict(zip(config["bases"], map(basis_from, bases), strict=True)),
            {names[i]: Connector.load_from(part) for i, part in wires.items()},
            {n: [gate_from_dict(g) for g in stored.json(f"gates-{i}.json")] for i, n in enumerate(names)},
            config["info"],
            Seen.from_tensors(stored.tensors(_SEEN), heads) if _SEEN in stored.names() else None,
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
