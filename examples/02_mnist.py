"""From a network to checked gates on MNIST, in one call a room. Set GATELENS_DATA to a folder with mnist/ in it."""

import os

import gatelens as gl
from gatelens.models.training import Training

rows = int(os.environ.get("GATELENS_EXAMPLE_ROWS", "20000"))
fit, held_out = gl.image_batches("mnist", rows=(rows, rows // 4))
model = Training(epochs=10).fit(gl.HookedMLP((784, 64, 64, 64, 10)), fit)

segments = gl.mlp_segments(model)
acts = gl.collect(model, fit, segments)
bases = gl.TrainedSAE("batchtopk", expansion=4, k=16, samples=20 * rows).fit(segments, acts)
unseen = gl.collect(model, held_out, segments)
circuit = gl.build_circuit(model, segments, bases, acts, solver=gl.GramLasso(mean_wires=8), held_out=unseen)
report = gl.evaluate(model, circuit, held_out)
print(report)

gates = [gate for segment in segments for gate in circuit.gates[segment.name] if gate.mcc is not None]
for gate in sorted(gates, key=lambda gate: -gate.mcc)[:5]:
    print(gate)

circuit.save("mnist-circuit")
gl.views.page(circuit, unseen, report, batches=held_out, model=model).save("mnist-circuit.html")
print("mnist-circuit.html")
