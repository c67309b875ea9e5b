"""Rotate the hidden layers of a digits network so that its Jacobians become sparse, and ask whether that means anything.

Runs offline in under a minute: python examples/03_rotations.py
"""

from pathlib import Path

import gatelens as gl
from gatelens.bases.rotation import absorb, inputs_needed, jacobian_picture, rotation_against_neurons
from gatelens.models.training import Training
from gatelens.views.jacobians import jacobian_figure

fit, held_out = gl.image_batches("digits")
model = Training(epochs=40).fit(gl.HookedMLP((64, 48, 48, 48, 10)), fit)
segments = gl.mlp_segments(model)
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)

# 1. One rotation for each hidden layer, each read in the coordinates of the layer before.
rotations = gl.JacobianRotation(direction="forward").fit(segments, acts)
for hook, basis in rotations.items():
    print(hook, basis)

# 2. The rotated network computes the same function: R and its inverse are grouped into the weights.
rotated = absorb(model, rotations)
difference = (rotated(held_out.inputs) - model(held_out.inputs)).abs().max()
print(f"largest change of a logit: {difference:.1e}")

# 3. Is it better than the neurons? Where it is not, the answer says so.
segment = segments[0]
columns, others = (gl.jacobian_columns(segment, a[segment.hook_in][:64]) for a in (acts, unseen))
print(rotation_against_neurons(columns, others))
print(inputs_needed(segment, acts[segment.hook_in], unseen[segment.hook_in][:64], counts=(1, 4, 16, 64)))

# 4. The picture: |J| before and after on one scale, fitted and held out.
bases = rotations[segment.hook_in], rotations[segment.hook_out]
picture = jacobian_picture(segment, acts[segment.hook_in][:64], unseen[segment.hook_in][:64], *bases)
Path("jacobians.svg").write_text(jacobian_figure(picture))
print("wrote jacobians.svg")
