"""Run by `.ci/wheel` in an empty folder: gatelens comes from the wheel, and a model is read with what is inside it."""

import sys
from pathlib import Path

import torch

import gatelens as gl

if Path(sys.argv[1]) not in Path(gl.__file__).parents:
    raise SystemExit(f"gatelens was imported from {gl.__file__}, not from the wheel in {sys.argv[1]}")

model = gl.load_model("gpt2-mini")
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(24, 12), length=48)
segments = gl.mlp_segments(model, layers=[3])
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
circuit = gl.build_circuit(model, segments, bases, acts, solver=gl.VirtualWeights(mean_wires=4), gates=False)
print(circuit)
reading = circuit.on(model, "It was late, therefore he left", acts=unseen)
gl.views.prompt_page(reading).save("prompt.html")
circuit.save("circuit")
again = gl.Circuit.load("circuit", segments)
weights = (c.connectors[segments[0].name].weight.to_dense() for c in (circuit, again))
if not torch.equal(*weights):
    raise SystemExit("a saved circuit is not the one that was saved")
