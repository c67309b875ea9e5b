"""A prompt, gate by gate: what fires on it, why it does there, what happens when it is switched, and what two prompts differ in.

Offline, on the model and the dictionaries in the package. One layer is read; what attention and the other layers do is outside
of it, and the figures say how much that is.
"""

import gatelens as gl

model = gl.load_model("gpt2-mini")
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(160, 40), length=96)
segments = gl.mlp_segments(model, layers=[3])
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.PretrainedSAE("gpt2-mini").fit(segments, acts)
wires = gl.VirtualWeights(mean_wires=8)
circuit = gl.build_circuit(model, segments, bases, acts, wires, gates=False)

# What fires, the largest direct effect on the model's own next token first.
reading = circuit.on(model, "It was late, therefore he left the old house and said", acts=unseen, batches=held_out)
print(reading, "\n")

# Why the strongest output of the last token is on: the model's own MLP on every subset of the features that decide there.
firing = reading.firings(position=-1)[0]
why = firing.why()
print(why, "\n")

# Off with it: the model runs without it, beside unrelated changes of equal norm.
print(reading.switch(firing.out, "off"), "\n")

# Off with the two features that it hangs on most: what the wires and the local reading foresaw, and what came.
print(reading.set(dict.fromkeys(why.features[:2], "off")), "\n")

# Held off while the model writes on (a strength of 2 holds it at twice its typical level), and what that costs on ordinary text.
print(reading.steer(firing.out, strength=0, tokens=12), "\n")

# Two prompts: which gates carry the difference of two tokens' logits. Here most of it is decided before this MLP.
print(reading.contrast("It was late, therefore she left the old house and cried", tokens=(" to", " out")))
