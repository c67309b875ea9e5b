"""A hook point of your own: any two places of a model that a function of each row connects, in ten lines.

Here: across a whole block, from the residual stream before it to the residual stream behind it, at the same position. The
attention of the block is what the function does not know, so the honest reading is how much of the block is the MLP alone.
"""

import torch

import gatelens as gl
from gatelens.errors import SegmentError

model = gl.load_model("gpt2-mini")
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(160, 40), length=64)

# The ten lines: what goes in, what comes out, and what the model does in between.
mlp = gl.mlp_segments(model, layers=[2], mlp_in="resid_mid")[0]
across_mlp = gl.Segment(
    hook_in="blocks.2.hook_resid_mid",
    hook_out="blocks.2.hook_resid_post",
    forward=lambda x: x + mlp.forward(x),
    d_in=mlp.d_in,
    d_out=mlp.d_out,
)

acts = gl.collect(model, fit, [across_mlp, "blocks.2.hook_resid_pre"])
across_mlp.check(acts[across_mlp.hook_in], acts[across_mlp.hook_out])
print(f"{across_mlp}: proved on {acts.rows} rows")

# A stretch that leaves something out is refused, with how much it misses.
across_block = gl.Segment("blocks.2.hook_resid_pre", across_mlp.hook_out, across_mlp.forward, mlp.d_in, mlp.d_out)
try:
    across_block.check(acts[across_block.hook_in], acts[across_block.hook_out])
except SegmentError as error:
    print(f"refused: {error}")

# From here on everything works as for an MLP: bases, connector, splice.
bases = gl.PCA(components=64).fit([across_mlp], acts)
circuit = gl.build_circuit(model, [across_mlp], bases, acts, solver=gl.GramLasso(mean_wires=4, cap=8, signed=True))
with torch.no_grad():
    clean = model(held_out.inputs[:8]).log_softmax(-1)
    spliced = model.run_with_hooks(held_out.inputs[:8], fwd_hooks=gl.splice(circuit)).log_softmax(-1)
divergence = (clean.exp() * (clean - spliced)).sum(-1).mean()
print(f"{circuit}\nKL after splicing 64 principal components on at most 8 wires each: {divergence:.2f} nats")
