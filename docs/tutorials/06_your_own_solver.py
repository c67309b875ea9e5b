# %% [markdown]
# # Your own solver in 30 lines
#
# A solver is any object with `fit(f_in, f_out) -> Connector`. This one takes for each output the inputs that correlate with it most, and fits
# their weights by ridge regression. No class is inherited and nothing is registered.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "gatelens"])

# %%
from dataclasses import dataclass

import torch

import gatelens as gl
from gatelens.errors import SolverError


@dataclass(frozen=True)
class Correlated:
    """The inputs most correlated with an output, their weights by ridge regression."""

    wires: int = 4

    def fit(self, f_in, f_out):
        if len(f_in) != len(f_out):
            raise SolverError(f"f_in has {len(f_in)} rows, f_out {len(f_out)}: give features over the same rows")
        x, y = (f.to_dense() if f.layout != torch.strided else f for f in (f_in, f_out))
        a, b = ((f - f.mean(0)) / f.std(0).clamp_min(1e-6) for f in (x, y))
        nearest = (b.T @ a).abs().topk(min(self.wires, x.shape[1])).indices  # [outputs, wires]
        weight, bias = torch.zeros(y.shape[1], x.shape[1]), torch.full((y.shape[1],), -1e-3)
        for out in torch.nonzero((y > 0).sum(0) > 10 * self.wires).flatten().tolist():
            inputs = nearest[out]
            given = torch.cat([x[:, inputs], torch.ones(len(x), 1)], 1).double()
            gram = given.T @ given + 1e-3 * len(x) * torch.eye(given.shape[1])
            found = torch.linalg.solve(gram, given.T @ y[:, out].double()).float()
            weight[out, inputs], bias[out] = found[:-1], found[-1]
        return gl.Connector(weight.to_sparse_csr(), bias)


# %% [markdown]
# ## Does it keep the contract?
#
# `check_solver` plants COPY and OR gates and asks that the wires are found, the data left alone, rows that do not
# belong together refused, and more. What is missing is named in a sentence.

# %%
from gatelens.planted import check_solver

print(check_solver(Correlated()))

# %% [markdown]
# ## Beside others, on a language model
#
# The last MLP of a small GPT-2, through the pair of SAEs inside the package; equal numbers of wires.

# %%
model = gl.load_model("gpt2-mini")
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(160, 40), length=64)
segments = gl.mlp_segments(model, layers=[3])
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
for solver in (Correlated(4), gl.GramLasso(mean_wires=4), gl.VirtualWeights(mean_wires=4)):
    circuit = gl.build_circuit(model, segments, bases, acts, solver=solver, gates=False)
    figures = gl.evaluate(model, circuit, held_out, acts=unseen).to_dict()
    wires = figures["connectors"][segments[0].name]
    print(
        f"{type(solver).__name__:<16} wires {wires['edges']:>6,}   median R2 {wires['median_r2']:.2f}   gap closed {wires['gap_closed']:.2f}"
    )

# %% [markdown]
# In a config it is `solver: {use: my_module:Correlated, wires: 4}`. A basis of your own has `encode` and `decode`; a hook point of your own is a
# `Segment`; a view is a function that returns `Html`.
