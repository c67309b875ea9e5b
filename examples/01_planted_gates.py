"""Gates that we know, read back: a network whose second layer was built by hand from ORs, ANDs and AND-NOTs.

The neurons of the first hidden layer are the input features, those of the second the gates. GateLens is told neither.
"""

import torch

import gatelens as gl
from gatelens.data import Batches

# What each unit of the second hidden layer computes: exciters, inhibitors, how many exciters it needs.
PLANTED = {
    0: ("or", [0, 1, 2], [], 1),
    1: ("and", [3, 4], [], 2),
    2: ("and_not", [5], [6], 1),
    3: ("copy", [7], [], 1),
    4: ("or", [8, 9], [], 1),
    5: ("and", [10, 11], [], 2),
    6: ("and_not", [12], [13], 1),
    7: ("k_of_n", [14, 15, 16], [], 2),
}


def planted_network(features: int = 20) -> gl.HookedMLP:
    """relu(sum of exciters - 2 * inhibitors - (needed - 1) - 0.2) of features that are 0, or 0.8 to 1.2."""
    model = gl.HookedMLP((features, features, len(PLANTED), 2))
    with torch.no_grad():
        for layer in model.layers:
            layer.weight.zero_(), layer.bias.zero_()
        model.layers[0].weight.copy_(torch.eye(features))
        for unit, (_, excite, inhibit, needed) in PLANTED.items():
            model.layers[1].weight[unit, excite] = 1.0
            model.layers[1].weight[unit, inhibit] = -2.0
            model.layers[1].bias[unit] = -(needed - 1) * 1.2 - 0.2 * (needed > 1)
    return model.eval().requires_grad_(False)


def sparse_rows(rows: int, features: int = 20, seed: int = 0) -> Batches:
    """Features that are on in 15 % of the rows."""
    g = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, features, generator=g) < 0.15
    x = on * (0.8 + 0.4 * torch.rand(rows, features, generator=g))
    row = torch.arange(rows)
    return Batches(x, torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool), row, name="planted")


model = planted_network()
fit, held_out = sparse_rows(8000, seed=0), sparse_rows(4000, seed=1)
segments = gl.mlp_segments(model)
acts = gl.collect(model, fit, segments)
bases = gl.Neurons().fit(segments, acts)
circuit = gl.build_circuit(
    model, segments, bases, acts, solver=gl.ReluOMP(), held_out=gl.collect(model, held_out, segments)
)

print(circuit)
right = 0
for unit, (kind, excite, inhibit, _) in PLANTED.items():
    gate = circuit.gate(unit)
    exact = gate.kind == kind and set(gate.excite) == set(excite) and set(gate.inhibit) == set(inhibit)
    right += exact
    print(f"planted {kind:<8} {'recovered' if exact else 'MISSED   '}  {gate}")
print(f"{right} of {len(PLANTED)} gates recovered exactly")
if right < len(PLANTED):
    raise SystemExit(1)
