"""A circuit from a model, bases and activations: features, then wires, then gates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from torch import Tensor

from ..activations.again import Seen
from ..activations.checking import rows_at
from ..activations.collecting import check_forwards, check_made_by, hook_names, with_origins
from ..bases.sae.fitness import check_at_hand
from ..basis.ends import features_at
from ..basis.linear import Basis
from ..basis.output import at_output
from ..connectors import Connector, Solver
from ..errors import ConfigError, SegmentError
from ..errors.progress import bar
from ..gate_dictionaries.doors import taken_in
from ..models import check_model, host, there
from ..models.fingerprint import weights_fingerprint
from ..models.placing import HOST
from ..segments import Segment, at_home, each_segment
from ..segments.values import check_rowwise
from ..solvers.protocol import as_solver
from ..solvers.size_rule import default_solver
from .circuit import Circuit


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
        acts: hook name -> [rows, width], activations of the fitting part at the segments' hook points.
        solver: makes each connector; None: by size (`BySize`), or the wires that gate dictionaries have built in.
        sequential: where a segment begins at the end of another, fit its connector again on the features that the one
            before predicts (solvers with `refit_on`).
        gates: read gates, on `held_out` activations when given.
        info: what the circuit says of where it comes from, kept in its files and shown on its page.
        progress: bars on standard error; None: where somebody watches.
        gate_options: for `type_gates`.

    Returns:
        A `Circuit`; weights and biases in the features' own units.

    Raises:
        BasisError: a basis of another width, before anything is computed. ModelError: activations of another model.
        ConfigError: no basis at one of the hook points. SegmentError: no segments.

    Examples:
        >>> plain = gl.build_circuit(model, segments, gl.Neurons().fit(segments, acts), acts, gates=False)
        >>> plain.connectors[net.segment.name].weight.shape  # [features out, features in]
        torch.Size([24, 64])
    """
    check_model(model)
    segments = each_segment(segments)
    if not segments:
        raise SegmentError("no segments: expected at least one. Give mlp_segments(model)")
    for hook in hook_names(segments):
        if hook not in bases:
            raise ConfigError(f"no basis for {hook}; there are bases for {', '.join(bases) or 'nothing'}")
    bases = taken_in(bases, segments, acts)
    solver = default_solver(segments, bases) if solver is None else as_solver(solver)
    check_made_by(model, acts)
    check_made_by(model, held_out, "held_out")
    check_rowwise(model, segments)
    segments = at_home(model, segments)
    check_forwards(segments, acts)
    for segment in segments:
        for hook, width in ((segment.hook_in, segment.d_in), (segment.hook_out, segment.d_out)):
            if at_output(bases[hook]).reads_output:
                check_at_hand(bases[hook], hook, rows_at(acts, hook, width))
    features = features_at(segments, bases, acts, progress)
    connectors = connect(segments, bases, features, solver, sequential, progress)
    made_in = {"model": type(model).__name__, "weights": weights_fingerprint(model, hook_names(segments))}
    circuit = Circuit(segments, dict(bases), connectors, {}, made_in | dict(info or {}), seen_by(model, segments, acts))
    return read_gates(circuit, features, held_out, progress, acts, model, **gate_options) if gates else circuit


def seen_by(model: Any, segments: Sequence[Segment], acts: Any) -> Seen | None:
    """What the model makes of a few inputs at the segments' ends, for the circuit to know it again."""
    heads = [hook for segment in segments if segment.reshape for hook in (segment.hook_in, segment.hook_out)]
    made = with_origins(acts)
    return Seen.of(model, hook_names(segments), heads, None if made is None else made.seen)


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
        device = segment.device if bound.on_device else HOST
        f_in, f_out = there((features[segment.hook_in], features[segment.hook_out]), device)
        connector = bound.fit(f_in, f_out)
        if sequential and segment.hook_in in predicted:
            f_in = there(predicted[segment.hook_in], device)
            connector = bound.refit_on(connector, f_in, f_out)
        connectors[segment.name] = connector = host(connector)
        if any(s.hook_in == segment.hook_out for s in segments):
            predicted[segment.hook_out] = connector(host(f_in))
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
    from ..gates import type_gates
    from ..gates.gate_effects import with_effects

    made, judged = with_origins(acts), with_origins(held_out)
    if made is not None and judged is not None:
        options = {"origins": (made, judged)} | options
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
        if model is not None and judged is not None and unseen is not None:
            found = with_effects(found, model, segment.hook_out, at["basis_out"], unseen[segment.hook_out], judged)
        gates[segment.name] = found
    return replace(circuit, gates=gates)
