"""The script of the README: from a language model in the package to a page of checked gates, offline."""

import gatelens as gl

model = gl.load_model("gpt2-mini")  # ships with the package; "gpt2" or your own HookedTransformer works too
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(320, 120), length=96)
segments = gl.mlp_segments(model, layers=[3])
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
circuit = gl.build_circuit(model, segments, bases, acts, solver=gl.GramLasso(mean_wires=8, cap=8), held_out=unseen)
report = gl.evaluate(model, circuit, held_out, acts=unseen)
print(report)
print(max(circuit.gates[segments[0].name], key=lambda gate: (gate.verified is True, gate.read, gate.mcc or 0)))
gl.views.page(circuit, unseen, report, batches=held_out, model=model, tokenizer=model.tokenizer).save("gates.html")
