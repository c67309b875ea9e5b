# %% [markdown]
# # GPT-2 with published SAEs
#
# Two SAEs that others trained, on both sides of one MLP of GPT-2 small: OpenAI's top-k SAEs of 32,768 features at `resid_mid` and `mlp_out`. They
# come from the hub. **Where the hub is out of reach, the same cells run on `gpt2-mini`**, a small GPT-2 inside the package, through
# the pair of SAEs that ships with it; the output below says which of the two it was.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "gatelens"])

# %%
import gatelens as gl
from gatelens.data.hub import hub_in_reach

GPT2 = hub_in_reach()
if GPT2:
    model = gl.load_model("gpt2")
    segments = gl.mlp_segments(model, layers=[1], mlp_in="resid_mid")
    bases = {
        "blocks.1.hook_resid_mid": gl.PretrainedSAE("gpt2-small-resid-mid-v5-32k"),
        "blocks.1.hook_mlp_out": gl.PretrainedSAE("gpt2-small-mlp-out-v5-32k"),
    }
    batches = gl.text_batches(model, "NeelNanda/c4-10k", rows=(256, 64), length=64)
else:
    model = gl.load_model("gpt2-mini")
    segments = gl.mlp_segments(model, layers=[3])
    bases = gl.PretrainedSAE("gpt2-mini")
    batches = gl.text_batches(model, "gpt2-mini-sample", rows=(160, 64), length=48)
print("GPT-2 small, from the hub" if GPT2 else "the hub is out of reach: gpt2-mini stands in")

# %% [markdown]
# ## Do the SAEs fit the model at hand?
#
# `find_circuit` measures it on these activations before anything is read: FVU is what the dictionary does not explain, `spliced` the
# model's loss with the dictionary in place. A wrong release, hook point or weight processing shows here, and is named.

# %%
found = gl.find_circuit(
    model, batches, segments=segments, bases=bases, solver=gl.ReluOMP(max_fan_in=8), quick=True, tried_at_most=32
)
print(found.report)

# %% [markdown]
# ## What was read
#
# `holds`: the rule agrees with the output on held-out rows, clearly over its nulls. `verified`: the model itself did what the rule says.

# %%
table = found.circuit.to_dataframe()
table.groupby(["kind", "grade"]).size().unstack(fill_value=0)

# %%
gates = [gate for gate in found.circuit.gates[segments[0].name] if gate.read and len(gate.inputs) > 1]
best = max(gates, key=lambda gate: (gate.verified is True, gate.mcc or 0))
print(best)
gl.views.gate(best, gl.views.known(found.circuit, found.held_out, model=model))

# %% [markdown]
# Compare its MCC with the table of tokens that stands beside it. Where the table does as well, the rule may be no more than "this
# feature is about that word": true, and not much.

# %%
ahead = [g for g in gates if g.verified is True]
print(f"{len(gates)} rules of two inputs or more; {len(ahead)} of them verified (32 tried at most)")
