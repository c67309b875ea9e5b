"""The README's script: a circuit of a small language model, read, measured and shown in ten lines."""

import gatelens as gl

model = gl.load_model("gpt2-mini")  # inside the package; "gpt2", a folder or your own HookedTransformer work the same
batches = gl.text_batches(model, "gpt2-mini-sample", rows=(160, 80), length=64)
segments = gl.mlp_segments(model, layers=[3])
bases = gl.PretrainedSAE("gpt2-mini")
found = gl.find_circuit(model, batches, segments, bases, quick=True, tried_at_most=64)
print(found.report.summary())
print(found.circuit.gate(119))
found.page().save("gates.html")
