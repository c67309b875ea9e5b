"""The core on a `TransformerBridge`: with transformer-lens 3.9, and with 4.x, which sae-lens does not work with yet.

Run it on 4.x with `.ci/bridge`, which lays transformer-lens 4.3.0 over the environment at hand, or in an environment of
its own without sae-lens:

    HF_HUB_OFFLINE=1 python -m pytest tests/test_bridge.py

Nothing here imports sae-lens or HookedTransformer.
"""

from __future__ import annotations

import hashlib
import sys

import numpy as np
import pytest
import scipy.sparse
import torch

import gatelens as gl
from gatelens.basis import Rotation
from gatelens.circuits import Circuit
from gatelens.errors import BasisError, ModelError
from gatelens.evaluation.removal import removals
from gatelens.models.fingerprint import model_record
from gatelens.models.load import has_hooked_transformer
from support.small_models import TEXT, gpt2_folder, llama_folder


class ReluFeatures:
    """A user's own basis: ReLU of random directions, decoded by least squares."""

    def __init__(self, width: int, features: int):
        self.directions = torch.randn(width, features, generator=torch.Generator().manual_seed(0))
        self.W_dec = torch.linalg.pinv(torch.cat([self.directions, -self.directions], 1))

    def encode(self, x):
        return torch.relu(torch.cat([x @ self.directions, -x @ self.directions], 1))

    def decode(self, f):
        half = f.shape[1] // 2
        return (f[:, :half] - f[:, half:]) @ torch.linalg.pinv(self.directions)


@pytest.fixture(scope="module")
def bridges(tmp_path_factory):
    root = tmp_path_factory.mktemp("bridges")
    folders = {"gpt2": gpt2_folder(root / "mini-gpt2"), "llama": llama_folder(root / "mini-llama")}
    return {name: gl.load_model(folder, bridge=True) for name, folder in folders.items()}


def test_the_name_alone_gives_a_bridge_where_there_is_nothing_else(bridges):
    assert type(bridges["gpt2"]).__name__ == "TransformerBridge"
    assert model_record(bridges["gpt2"])["form"] == "TransformerBridge"
    assert "transformer_lens" in sys.modules
    if not has_hooked_transformer():
        assert type(gl.load_model("gpt2-mini")).__name__ == "TransformerBridge"


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
def test_the_walk_from_text_to_a_spliced_circuit(bridges, kind):
    model = bridges[kind]
    fit, held_out = gl.text_batches(model, TEXT, rows=(40, 12), length=16)
    segments = gl.mlp_segments(model, layers=[1])
    acts = gl.collect(model, fit, segments)
    bases = {hook: ReluFeatures(acts[hook].shape[1], 32) for hook in acts}
    circuit = gl.build_circuit(model, segments, bases, acts, solver=gl.GramLasso(mean_wires=6, cap=12))
    assert isinstance(circuit, Circuit)
    x = held_out.inputs
    with torch.no_grad():
        clean = model(x)
        own = model.run_with_hooks(x, fwd_hooks=gl.splice(circuit, how="dictionaries"))
        spliced = model.run_with_hooks(x, fwd_hooks=gl.splice(circuit))
    assert torch.allclose(own, clean, atol=1e-3)  # these features lose nothing
    assert torch.isfinite(spliced).all()
    assert not torch.allclose(spliced, clean, atol=1e-3)
    assert torch.allclose(model(x), clean, atol=1e-5)  # no hook stays


def test_identity_connector_is_exact(bridges):
    model = bridges["gpt2"]
    segment = gl.mlp_segments(model, layers=[0], mlp_in="resid_mid")[0]
    same = Rotation(torch.eye(segment.d_in))
    circuit = Circuit([segment], {segment.hook_in: same, segment.hook_out: same}, {})
    tokens = torch.randint(0, 200, (2, 9))
    with torch.no_grad():
        assert torch.allclose(
            model.run_with_hooks(tokens, fwd_hooks=gl.splice(circuit, how="dictionaries")), model(tokens), atol=1e-5
        )


def test_small_networks_need_no_transformer():
    fit, _ = gl.image_batches("digits", rows=(200, 50))
    model = gl.HookedMLP((64, 12, 12, 10))
    acts = gl.collect(model, fit, gl.mlp_segments(model))
    assert acts.rows == 200


def test_dictionaries_without_sae_lens(bridges, tmp_path, monkeypatch):
    """Training by the sparse trainer, transcoders, and files in sae-lens' format need no sae-lens."""
    from gatelens.bases.sae import files, trained
    from gatelens.saving import load_basis, save_basis

    for module in (files, trained):  # where it works, as if it did not
        monkeypatch.setattr(module, "sae_lens_works", lambda: False)
    model = bridges["gpt2"]
    fit, _ = gl.text_batches(model, TEXT, rows=(40, 12), length=16)
    segments = gl.mlp_segments(model, layers=[1])
    acts = gl.collect(model, fit, segments)
    x, short = acts[segments[0].hook_in], {"d_sae": 48, "k": 4, "samples": 4000, "batch_size": 64}
    sae = gl.TrainedSAE(trainer="sparse", **short).train(x)
    assert type(sae).__module__.startswith("gatelens")
    assert (x - sae.decode(sae.encode(x))).square().sum() < 0.9 * (x - x.mean(0)).square().sum()
    sae.save_model(str(tmp_path / "sae"))
    for again in (gl.PretrainedSAE(tmp_path / "sae").load(), gl.PretrainedSAE((str(tmp_path), "sae")).load()):
        assert torch.equal(again.encode(x), sae.encode(x))
    save_basis(sae, tmp_path / "kept")
    assert torch.equal(load_basis(tmp_path / "kept").encode(x), sae.encode(x))
    coder = gl.Transcoder(bypass=True, **short).fit(segments, acts)[segments[0].hook_out]
    save_basis(coder, tmp_path / "coder")
    assert torch.allclose(load_basis(tmp_path / "coder").reconstruct(x), coder.reconstruct(x), atol=1e-6)
    with pytest.raises(BasisError, match='expected trainer="sparse"'):
        gl.TrainedSAE(trainer="sae-lens", **short).train(x)


def test_a_segment_is_the_same_under_either_form(tmp_path):
    """The same hook gives the same values: a bridge's and, where it exists, a HookedTransformer's."""
    folder = gpt2_folder(tmp_path / "mini")
    raw = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
    tokens = torch.randint(0, 200, (2, 9))
    forms = [gl.load_model(folder, bridge=True, **raw)]
    if has_hooked_transformer():
        forms.append(gl.load_model(folder, **raw))
    names = ["blocks.0.hook_mlp_out", "blocks.1.hook_resid_mid", "blocks.1.hook_mlp_out"]
    found = [model.run_with_cache(tokens, names_filter=names)[1] for model in forms]
    for name in names:
        assert torch.allclose(found[0][name], found[-1][name], atol=1e-4)


def test_gates_prompts_and_removals(bridges):
    """A bridge has the argument `start_at_layer`, not the means: whoever begins at a block must find that out."""
    model = bridges["gpt2"]
    batches = gl.text_batches(model, TEXT, rows=(40, 20), length=16)
    segments = gl.mlp_segments(model, layers=[1])
    recipe = gl.TrainedSAE(trainer="sparse", d_sae=48, k=4, samples=3000, batch_size=64)
    found = gl.find_circuit(
        model, batches, segments, recipe, gl.GramLasso(mean_wires=4), quick=True, min_count=5, tried_at_most=4
    )
    acts = gl.collect(model, batches[1], segments)
    reading = found.circuit.on(model, "the dog runs", acts)
    fired = reading.firings(most=1)[0]
    assert reading.at(fired.position, fired.out).why().rule is not None
    assert "OF_" in str(reading.set({f"OF_{fired.out}": "off"}))
    (segment,) = segments
    basis = found.circuit.bases[segment.hook_out]
    features = scipy.sparse.csr_matrix(basis.encode(acts[segment.hook_out]).detach().numpy())
    outs = np.flatnonzero(np.diff(features.tocsc().indptr))[:2].tolist()
    levels = np.zeros(features.shape[1])
    gone = removals(model, segment.hook_out, basis.W_dec.detach(), features, levels, outs, batches[1])
    assert sorted(gone) == outs
    assert all(r.own > 0 and r.other > 0 for r in gone.values())


@pytest.fixture
def hub_cache(tmp_path, monkeypatch):
    """A hub's cache as huggingface_hub lays it out, with the repository somebody/tiny: blobs, links to them, and a reference."""
    import huggingface_hub.constants as constants

    at, commit = tmp_path / "hub" / "models--somebody--tiny", "0" * 40
    files = gpt2_folder(tmp_path / "tiny")
    for place in (at / "blobs", at / "refs", at / "snapshots" / commit):
        place.mkdir(parents=True)
    (at / "refs" / "main").write_text(commit)
    for file in files.iterdir():
        blob = at / "blobs" / hashlib.sha256(file.read_bytes()).hexdigest()
        blob.write_bytes(file.read_bytes())
        (at / "snapshots" / commit / file.name).symlink_to(f"../../blobs/{blob.name}")
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return at / "snapshots" / commit


def test_a_bridge_by_its_name_on_a_hub_is_compared_with_its_original(hub_cache, monkeypatch):
    from transformer_lens.model_bridge import TransformerBridge

    asked: list[str] = []

    def boot(name, **how):
        asked.append(name)
        return whole(str(hub_cache), **how)

    whole = TransformerBridge.boot_transformers
    monkeypatch.setattr(TransformerBridge, "boot_transformers", boot)
    gl.load_model("somebody/tiny", bridge=True)  # the same
    assert asked == ["somebody/tiny"]

    def loses_a_setting(name, **how):
        model = whole(str(hub_cache), **how)
        model.original_model.transformer.h[0].mlp.c_proj.weight.data *= 1.5
        return model

    monkeypatch.setattr(TransformerBridge, "boot_transformers", loses_a_setting)
    with pytest.raises(ModelError, match="the loaded model's logits differ from the original's by a relative"):
        gl.load_model("somebody/tiny", bridge=True)
    (hub_cache / "config.json").unlink()  # no original in the cache: nothing to compare with
    monkeypatch.setattr(TransformerBridge, "boot_transformers", lambda name, **how: asked.append(name) or 1 / 0)
    with pytest.raises(ModelError, match="cannot be loaded as a bridge"):
        gl.load_model("somebody/tiny", bridge=True)
