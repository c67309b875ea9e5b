# %% [markdown]
# # Rotations: coordinates in which the Jacobian is sparse
#
# Is there a rotation of a hidden layer in which each input's Jacobian has few large entries, so that the layer reads as a sparse circuit
# without any dictionary? And if there is, does it mean anything? A rotation that is found must beat the neurons *on inputs it was not
# fitted to*, and by more than a random rotation.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    subprocess.check_call([sys.executable, "-m", "pip", "install", "-q", "gatelens"])

# %%
import gatelens as gl
from gatelens.bases.rotation import absorb, inputs_needed, jacobian_picture, rotation_against_neurons
from gatelens.models.training import Training
from gatelens.views.jacobians import jacobian_figure

fit, held_out = gl.image_batches("digits")
model = Training(epochs=40).fit(gl.HookedMLP((64, 48, 48, 48, 10)), fit)
segments = gl.mlp_segments(model)
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)

# %% [markdown]
# One rotation for each hidden layer, each read in the coordinates of the layer before.

# %%
rotations = gl.JacobianRotation(direction="forward").fit(segments, acts)
for hook, basis in rotations.items():
    print(hook, basis)

# %% [markdown]
# The rotated network computes the same function: the rotation and its inverse are grouped into the weights.

# %%
rotated = absorb(model, rotations)
print(f"largest change of a logit: {(rotated(held_out.inputs) - model(held_out.inputs)).abs().max():.1e}")

# %% [markdown]
# ## Is it better than the neurons?
#
# On held-out inputs, beside random rotations. The answer says so where it is not.

# %%
segment = segments[0]
columns, others = (gl.jacobian_columns(segment, a[segment.hook_in][:64]) for a in (acts, unseen))
print(rotation_against_neurons(columns, others))

# %% [markdown]
# How many inputs does it take until it holds on others?

# %%
print(inputs_needed(segment, acts[segment.hook_in], unseen[segment.hook_in][:64], counts=(1, 4, 16, 64)))

# %% [markdown]
# |Jacobian| before and after on one scale, fitted and held out.

# %%
from IPython.display import SVG

pair = rotations[segment.hook_in], rotations[segment.hook_out]
SVG(jacobian_figure(jacobian_picture(segment, acts[segment.hook_in][:64], unseen[segment.hook_in][:64], *pair)))

# %% [markdown]
# A rotation has no sign and no threshold, so its coordinates read less well as gates than a dictionary's features. What needs no
# coordinates at all (ranks, active subspaces) is `gatelens rank digits`.
