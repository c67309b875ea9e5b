"""Baselines: the same solver on neurons, on shuffled inputs, and on a model with random weights; and weights alone."""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from ..basis.linear import Neurons
from ..basis.output import at_output
from ..circuits import Circuit, build_circuit, connect, features_at, read_gates
from ..codes.csr import take_rows
from ..connectors import Solver
from ..segments import Segment
from ..solvers.protocol import as_solver
from ..solvers.virtual_weights import VirtualWeights

#: where only shares are told of a baseline, so many outputs are read, and so many rules tried; of a circuit that is itself read in
#: part, a quarter of its outputs
SAMPLE, PART = {"read_at_most": 256, "tried_at_most": 64}, 4


def baseline_circuits(
    model: Any,
    circuit: Circuit,
    acts: Mapping[str, Tensor],
    solver: Solver,
    held_out: Mapping[str, Tensor] | None = None,
    gates: bool = True,
    names: Collection[str] = ("neurons", "shuffled", "virtual_weights"),
    features: Mapping[str, Tensor] | None = None,
    **gate_options: Any,
) -> dict[str, Circuit]:
    """name -> circuit of the same segments, to be evaluated beside `circuit`, its gates read as `gate_options` say.

    Args:
        names: which of them. features: of the circuit's dictionaries on `acts`, where they are at hand.

    A gate dictionary's wires are built in, and nothing else has such wires: `GramLasso` finds the baselines' then.

    neurons: raw neurons as features, the same solver, as many wires as the circuit has; linear outputs where a neuron of
    the segments' ends can be negative and the solver knows how (`signed`), since a ReLU would lose half of them.
    virtual_weights: the circuit's dictionaries, its number of wires, wires from the weights alone.
    shuffled: the circuit's dictionaries, each input feature's rows shuffled before the fit: the null. Evaluated on real rows.
    """
    solver = as_solver(solver).for_others(max(_wires(circuit), 1) / _outputs(circuit))
    features = features_at(circuit.segments, circuit.bases, acts) if features is None else features
    found: dict[str, Circuit] = {}
    if "neurons" in names:
        neurons, own = Neurons().fit(circuit.segments, acts), _for_neurons(solver, circuit, acts)
        options = {"gates": gates, "held_out": held_out, **gate_options}
        found["neurons"] = build_circuit(model, circuit.segments, neurons, acts, own, **options)
    if "shuffled" in names:
        found["shuffled"] = _shuffled(circuit, features, solver)
        if gates:
            found["shuffled"] = _shuffled_gates(found["shuffled"], features, held_out, **gate_options)
    plain = all(s.mlp is not None and s.mlp.W_gate is None for s in circuit.segments)
    if "virtual_weights" in names and plain and not _made_for_pairs(circuit):
        connectors = {}
        for segment in circuit.segments:  # each with its own number of wires
            own = circuit.connectors[segment.name]
            wires = VirtualWeights(mean_wires=max(own.wires, 1) / len(own.bias))
            connectors |= connect([segment], circuit.bases, features, wires, sequential=False)
        found["virtual_weights"] = replace(circuit, connectors=connectors, gates={})
    return found


def sampled(gate_options: Mapping[str, Any]) -> dict[str, Any]:
    """Options of `type_gates` with no more read and tried than `SAMPLE` says.

    Not for what adds up over outputs, as coverage does: what was not read or tried explains nothing, and the null would look worse.
    """
    asked = {"read_at_most": -(-(gate_options.get("read_at_most") or PART * SAMPLE["read_at_most"]) // PART)}
    asked["tried_at_most"] = gate_options.get("tried_at_most") or SAMPLE["tried_at_most"]
    return dict(gate_options) | {k: min(most, asked[k]) for k, most in SAMPLE.items()}


def random_weights(model: Any, seed: int = 0) -> Any:
    """A copy of the model with every weight matrix's entries permuted: the same sizes of weights, nothing learned."""
    generator = torch.Generator().manual_seed(seed)
    copied = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in copied.parameters():
            if parameter.ndim > 1:
                order = torch.randperm(parameter.numel(), generator=generator).to(parameter.device)
                parameter.copy_(parameter.flatten()[order].view_as(parameter))
    return copied


def _wires(circuit: Circuit) -> int:
    return sum(c.wires for c in circuit.connectors.values())


def _outputs(circuit: Circuit) -> int:
    return sum(len(c.bias) for c in circuit.connectors.values())


def _made_for_pairs(circuit: Circuit) -> bool:
    return not all(at_output(b).reads_output for b in circuit.bases.values())


def _for_neurons(solver: Any, circuit: Circuit, acts: Mapping[str, Tensor]) -> Any:
    """The solver with its budget set so that the fewer neurons get as many wires in all as the circuit has."""
    outputs = sum(s.d_out for s in circuit.segments)
    wires = _wires(circuit)  # a solver rounds the budget of each segment: none may get more than its share
    wanted = min(wires * s.d_out // outputs / s.d_out for s in circuit.segments)
    return solver.with_budget(
        max(wanted, 1 / outputs), signed=any(float(acts[s.hook_out].min()) < 0 for s in circuit.segments)
    )


def _shuffled(circuit: Circuit, features: Mapping[str, Tensor], solver: Solver) -> Circuit:
    """Connectors fitted to input rows in random order: every feature keeps its values, no row keeps its partner."""
    connectors = {}
    for segment in circuit.segments:
        connectors |= connect([segment], circuit.bases, _mixed(features, segment, 0), solver, sequential=False)
    return replace(circuit, connectors=connectors, gates={})


def _shuffled_gates(
    circuit: Circuit,
    features: Mapping[str, Tensor],
    held_out: Mapping[str, Tensor] | None,
    seed: int = 0,
    **options: Any,
) -> Circuit:
    """Rules learned on the same shuffled rows, and judged on real ones."""
    gates: dict[str, Any] = {}
    for segment in circuit.segments:
        part = replace(circuit, segments=[segment])
        gates |= read_gates(part, _mixed(features, segment, seed), held_out, seed=seed, **options).gates
    return replace(circuit, gates=gates)


def _mixed(features: Mapping[str, Tensor], segment: Segment, seed: int) -> dict[str, Tensor]:
    f_in = features[segment.hook_in]
    order = torch.randperm(len(f_in), generator=torch.Generator().manual_seed(seed))
    return dict(features) | {segment.hook_in: take_rows(f_in, order)}
