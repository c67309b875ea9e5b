# %% [markdown]
# # MNIST circuits with pixels
#
# A small digit network is read as a circuit: dictionaries at its hidden layers, a few wires between them, gates with the pixels that
# their inputs look at. Where MNIST is out of reach, scikit-learn's 8 × 8 digits take its place.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "gatelens"])

# %%
import os

import gatelens as gl
from gatelens.errors import GateLensError
from gatelens.models.training import Training

ROWS = int(os.environ.get("GATELENS_EXAMPLE_ROWS", "12000"))
try:
    fit, held_out = gl.image_batches("mnist", rows=(ROWS, ROWS // 3))  # GATELENS_DATA/mnist, or the hub
    sizes = (784, 64, 64, 10)
except GateLensError as error:
    print(error, "\nso the small digits of scikit-learn are read instead")
    fit, held_out = gl.image_batches("digits")
    sizes = (64, 48, 48, 10)
model = Training(epochs=10).fit(gl.HookedMLP(sizes), fit)
print(
    f"accuracy {(model(held_out.inputs).argmax(1) == held_out.targets).float().mean():.3f} on {held_out.examples:,} held-out images"
)

# %% [markdown]
# ## One layer as wires
#
# Dictionaries of two features a neuron at both ends of the middle map, then at most a handful of wires for each output feature.

# %%
segments = gl.mlp_segments(model)
print(segments)
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.TrainedSAE("batchtopk", expansion=2, k=12, samples=15 * ROWS).fit(segments, acts)
circuit = gl.build_circuit(
    model, segments, bases, acts, solver=gl.GramLasso(mean_wires=8), held_out=unseen, tried_at_most=48
)
report = gl.evaluate(model, circuit, held_out, acts=unseen)
print(report)

# %% [markdown]
# The accuracy with the map replaced by wires stands beside the network's own and beside that with the layer's mean in its place. What
# would *any* wires do? The null has the same number of wires, fitted to rows that do not belong together.

# %%
import torch

segment = segments[0]
order = torch.randperm(acts.rows, generator=torch.Generator().manual_seed(1))
wrong = {hook: acts[hook] for hook in (segment.hook_in, segment.hook_out)} | {
    segment.hook_out: acts[segment.hook_out][order]
}
null = gl.build_circuit(model, segment, bases, wrong, solver=gl.GramLasso(mean_wires=8), gates=False)
for name, which in (("wires", circuit), ("shuffled", null)):
    accuracy = gl.evaluate(model, which, held_out, acts=unseen).to_dict()["all_replaced"]["accuracy"]
    print(f"{name:<10} accuracy {accuracy:.3f}")

# %% [markdown]
# ## Gates, with what they look at
#
# The best gate by evidence, with the mean gradient of each feature with respect to the pixels: blue adds, orange takes away.

# %%
gates = [gate for gate in circuit.gates[segment.name] if gate.read and len(gate.inputs) > 1]
best = max(gates, key=lambda gate: (gate.verified is True, gate.mcc or 0))
print(best)
page = gl.views.page(circuit, unseen, report, batches=held_out, model=model, max_cards=12)
page.save("mnist.html")  # everything, to be opened in a browser
gl.views.gate(best, gl.views.known(circuit, unseen, segment=segment.name, model=model, batches=held_out))

# %%
table = circuit.to_dataframe()
table.groupby(["kind", "grade"]).size().unstack(fill_value=0)

# %% [markdown]
# Most rules agree with their outputs and are `weak` all the same: some pattern of their inputs clearly goes against them, because in this
# network amounts decide more than which features are on. The reader says so rather than calling them gates.
# **The figure to be careful with:** dictionaries whose outputs are gates by construction give many verified gates on MNIST, and more on
# random weights. A count alone is no evidence.
