"""Parents set in a real segment: what the model contradicts is not read."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gatelens.basis import Rotation
from gatelens.connectors import Connector
from gatelens.errors import DataError
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.gates import GateKind, Grade, type_gates
from gatelens.gates.stage import Stage
from gatelens.segments import MLPWeights, Segment

WIDTH, ROWS = 8, 6000
#: what each output of the segment computes from the features, and the wires that are claimed for it
UNITS = {
    "copy": ({0: 1.0}, 0.0),
    "or": ({1: 1.0, 2: 1.0}, 0.0),
    "and": ({1: 1.0, 2: 1.0}, -1.4),
    "and_not": ({3: 1.0, 4: -2.0}, 0.0),
    "echo": ({5: 1.0}, 0.0),  # claimed to be a copy of feature 6, which always fires with 5
}


@pytest.fixture(scope="module")
def world():
    """x = rotated features near 1 where on; the segment's hidden units read them; feature 6 echoes feature 5."""
    rng = np.random.default_rng(0)
    f = ((rng.random((ROWS, WIDTH)) < 0.25) * rng.uniform(0.9, 1.1, (ROWS, WIDTH))).astype(np.float32)
    f[:, 6] = f[:, 5]
    rotation = torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(0)))[0]
    weight, bias = torch.zeros(WIDTH, len(UNITS)), torch.zeros(len(UNITS))
    for unit, (wires, b) in enumerate(UNITS.values()):
        bias[unit] = b - 0.01  # rotating back and forth leaves rounding where a feature is off
        for parent, w in wires.items():
            weight[parent, unit] = w
    mlp = MLPWeights(rotation.T @ weight, bias)
    segment = Segment("in", "out", mlp, WIDTH, len(UNITS), mlp)

    class Cut(Rotation):
        def encode(self, x):
            return (x @ self.matrix.T).clamp_min(1e-3) - 1e-3

    x = torch.from_numpy(f) @ rotation
    return segment, Cut(rotation), Rotation(torch.eye(len(UNITS))), x


def read(world, claims: dict[str, dict[int, float]], **options):
    # of eight features the random parents can be the cause itself, as they are under seed 0: then nothing is tried
    options = {"seed": 1} | options
    segment, basis_in, basis_out, x = world
    rows = [(torch.tensor([0]), torch.tensor([0.0])) for _ in UNITS]
    for name, wires in claims.items():
        rows[list(UNITS).index(name)] = (torch.tensor(list(wires)), torch.tensor(list(wires.values())))
    bias = torch.tensor([b for _, b in UNITS.values()])
    connector = Connector.from_rows(rows, bias, WIDTH)
    half = ROWS // 2
    f_in, f_out = basis_in.encode(x), basis_out.encode(segment.forward(x))
    model = {"segment": segment, "basis_in": basis_in, "basis_out": basis_out, "x": x[half:]}
    gates = type_gates(connector, f_in[:half], f_out[:half], held_out=(f_in[half:], f_out[half:]), **model, **options)
    return {name: gates[list(UNITS).index(name)] for name in claims}


def test_gates_that_the_model_computes_are_verified(world):
    claims = {name: dict(UNITS[name][0]) for name in ("copy", "or", "and", "and_not")}
    for name, gate in read(world, claims).items():
        assert str(gate.kind) == name, gate
        assert gate.grade == Grade.VERIFIED, gate.why
        assert gate.verified is True
        assert gate.controls.ceiling > 0.99


def test_a_feature_that_only_fires_beside_the_cause_is_found_out(world):
    """Features 5 and 6 are on in the same rows, and no row can tell them apart: the wire decides which is tried, the model denies it."""
    gate = read(world, {"echo": {6: 1.0}})["echo"]
    assert str(gate.rule) == "IF_6"
    assert gate.mcc == 1.0
    assert (gate.verified, gate.grade) == (False, Grade.WEAK)
    assert "set" in gate.why
    kept = read(world, {"echo": {6: 1.0}}, require_verified=False)["echo"]
    assert (kept.grade, kept.verified) == (Grade.HOLDS, False)


def test_at_most_so_many_rules_are_tried(world):
    claims = {name: dict(UNITS[name][0]) for name in ("copy", "or", "and", "and_not")}
    gates = read(world, claims, tried_at_most=2).values()
    assert (
        sum(g.verified is not None for g in gates) == 1
    )  # of all five outputs two were tried, the last of which is no claim
    assert all(g.read for g in gates)


def test_an_output_is_an_adder_in_magnitude_and_an_or_in_firing(world):
    gate = read(world, {"or": {1: 1.0, 2: 1.0}})["or"]
    assert (gate.kind, gate.magnitude) == (GateKind.OR, "adder")


def test_rows_are_moved_by_exactly_the_parents_directions(world):
    segment, basis_in, basis_out, x = world
    stage = Stage.of(segment, basis_in, basis_out, x)
    change = np.full((50, 1), 2.5)
    moved = stage.moved(np.arange(50), change @ stage.directions[[3]])
    assert torch.allclose(moved, x[:50] + 2.5 * basis_in.matrix[3], atol=1e-6)
    assert np.allclose(stage.values([1], np.arange(50)), basis_in.encode(x[:50])[:, [1]], atol=1e-6)


def test_coordinates_of_both_signs_are_set_by_sign(world):
    """y = relu(f0), relu(-f0) of rotated Gaussian coordinates: on means positive, and one that is negative is off as it is."""
    rotation = Rotation(world[1].matrix)
    f = torch.randn(3000, WIDTH, generator=torch.Generator().manual_seed(0))
    weight = torch.zeros(WIDTH, 2)
    weight[0, 0], weight[0, 1] = 1.0, -1.0
    mlp = MLPWeights(rotation.matrix.T @ weight, torch.full((2,), -1e-4))
    segment = Segment("in", "out", mlp, WIDTH, 2, mlp)
    x, basis_out = f @ rotation.matrix, Rotation(torch.eye(2))
    connector = Connector.from_dense(weight.T, torch.zeros(2))
    model = {"segment": segment, "basis_in": rotation, "basis_out": basis_out, "x": x}
    gate = type_gates(connector, rotation.encode(x), segment.forward(x), **model)[0]
    assert (gate.kind, gate.verified) == (GateKind.COPY, True)
    assert "values of both signs" in gate.note


def test_rows_of_another_width_are_refused(world):
    segment, basis_in, basis_out, _ = world
    with pytest.raises(DataError, match=r"rows at in, \[rows, 8\]"):
        Stage.of(segment, basis_in, basis_out, torch.zeros(5, 3))


def test_a_gate_dictionary_is_verified_by_the_models_output_and_not_by_itself():
    """Inputs 0 and 2 always come together and the model reads only 0: wires from 2 fit every natural row."""
    x = (torch.rand(600, 4, generator=torch.Generator().manual_seed(0)) < 0.4).float()
    x[:, 2] = x[:, 0]
    written = torch.tensor([[0.6, 0.8, 0.0], [0.8, -0.6, 0.0]])
    truth = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    segment = Segment("in", "out", lambda rows: (rows @ truth.T) @ written, 4, 3)
    basis_in = Rotation(torch.eye(4))
    found = {}
    for name, claimed in (("true", 0), ("false", 2)):
        wires = truth.clone()
        wires[0] = torch.nn.functional.one_hot(torch.tensor(claimed), 4).float()
        connector = Connector.from_dense(wires, torch.zeros(2))
        basis = GateBasis(basis_in, connector, written, torch.zeros(3), 4)
        f_out = basis.features_from(x)
        torch.testing.assert_close(basis.shown(x, segment.forward(x)), f_out)
        gates = type_gates(connector, x, f_out, segment=segment, basis_in=basis_in, basis_out=basis, x=x)
        assert gates[1].verified is True
        found[name] = gates[0]
    assert (found["true"].kind, found["true"].grade) == (GateKind.COPY, Grade.VERIFIED)
    assert (found["false"].grade, found["false"].verified) == (Grade.WEAK, False)
    assert "set" in found["false"].why
