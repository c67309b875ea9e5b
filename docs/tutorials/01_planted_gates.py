# %% [markdown]
# # Planted gates
#
# Before you trust a reader, let it read something that you know. Here the second layer of a small network is built by hand from ORs,
# ANDs and AND-NOTs; GateLens is told nothing of it. Then the same network with its rows shuffled: there it should find nothing.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "gatelens"])

# %%
import torch

import gatelens as gl
from gatelens.data import Batches

# what each unit of the second hidden layer computes: exciters, inhibitors, how many exciters it needs
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


def sparse_rows(rows: int, seed: int, features: int = 20) -> Batches:
    g = torch.Generator().manual_seed(seed)
    on = torch.rand(rows, features, generator=g) < 0.15
    x = on * (0.8 + 0.4 * torch.rand(rows, features, generator=g))
    return Batches(
        x, torch.zeros(rows, dtype=torch.long), torch.ones(rows, dtype=torch.bool), torch.arange(rows), name="planted"
    )


model = planted_network()
fit, held_out = sparse_rows(8000, seed=0), sparse_rows(4000, seed=1)

# %% [markdown]
# The walk: segments, activations, bases (here simply the neurons), wires, gates.

# %%
segments = gl.mlp_segments(model)
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.Neurons().fit(segments, acts)
circuit = gl.build_circuit(model, segments, bases, acts, solver=gl.ReluOMP(), held_out=unseen)
print(circuit)

# %% [markdown]
# Every gate beside what was planted. `verified` means that the model did what the rule says when its inputs were set.

# %%
exact = 0
for unit, (kind, excite, inhibit, _) in PLANTED.items():
    gate = circuit.gate(unit)
    same = gate.kind == kind and set(gate.excite) == set(excite) and set(gate.inhibit) == set(inhibit)
    exact += same
    print(f"planted {kind:<8} read as {gate.kind:<8} exact: {same}   verified: {gate.verified}   MCC {gate.mcc:.2f}")
print(f"{exact} of {len(PLANTED)} exactly")

# %% [markdown]
# One of them, drawn: two of three inputs are needed. The cut on a wire is the level above which the input counts as on.

# %%
gl.views.gate(circuit.gate(7))

# %% [markdown]
# ## The null
#
# The same procedure, with the rows of the outputs shuffled against those of the inputs. If it still found rules, the rules above
# would mean nothing.

# %%
order = torch.randperm(acts.rows, generator=torch.Generator().manual_seed(2))
hook_in, hook_out = segments[0].hook_in, segments[0].hook_out
shuffled = {hook_in: acts[hook_in], hook_out: acts[hook_out][order]}
nothing = gl.build_circuit(model, segments[0], bases, shuffled, solver=gl.ReluOMP())
print(nothing)
print("read:", sum(gate.read for gate in nothing.gates[segments[0].name]), "of", len(PLANTED))

# %% [markdown]
# In real networks features are not neurons, and dictionaries are not exact. What then remains is in the next notebooks, and
# [how to tell a true reading from a plausible one](../concepts/true-or-plausible.md) says what to ask of it.
