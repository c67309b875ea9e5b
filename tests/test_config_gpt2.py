"""configs/gpt2.yaml and configs/demo.yaml: right by construction, run on a cache of the published layout with small weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import yaml

from gatelens import PretrainedSAE, load_model, mlp_segments
from gatelens.bases.sae.normalised import EXTRA
from gatelens.errors import BasisError
from gatelens.pipeline import read_config, run
from support.small_models import TEXT, flat_topk_config, gpt2_folder, in_hub_cache, sae_folder, sae_tensors, signed_axes

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
WIDTH, FEATURES = 16, 32


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """GPT-2's repository and the two releases as downloads lie in the hub's cache, small and random."""
    hub = tmp_path / "hub"
    model = gpt2_folder(tmp_path / "gpt2", n_embd=WIDTH, n_ctx=64)
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    in_hub_cache(hub, "gpt2", {name: model / name for name in names})
    for part, hook in (("resid-mid", "blocks.1.hook_resid_mid"), ("mlp-out", "blocks.1.hook_mlp_out")):
        folder = sae_folder(tmp_path / part, flat_topk_config(hook, WIDTH, FEATURES, WIDTH), signed_axes(WIDTH))
        files = {f"v5_32k_layer_1/{name}": folder / name for name in ("cfg.json", "sae_weights.safetensors")}
        in_hub_cache(hub, f"jbloom/GPT2-Small-OAI-v5-32k-{part}-SAEs", files)
    monkeypatch.setenv("HF_HUB_CACHE", str(hub))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(hub))
    return hub


def test_the_published_pair_runs_from_the_cache(cache, tmp_path):
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>".join(TEXT), encoding="utf-8")
    changes = [f"data.source={text}", "data.rows=[24, 8]", "data.length=32", "evaluation.baselines=[]"]
    walk = run(read_config(CONFIGS / "gpt2.yaml", changes), tmp_path / "run", until="connect")
    circuit = walk.connected
    assert [s.name for s in walk.segments] == ["blocks.1.hook_resid_mid -> blocks.1.hook_mlp_out"]
    connector = circuit.connectors[walk.segments[0].name]
    assert tuple(connector.weight.shape) == (FEATURES + EXTRA, FEATURES + EXTRA)  # the row's scale and mean ride along
    assert walk.model.cfg.d_model == WIDTH
    again = run(read_config(CONFIGS / "gpt2.yaml", changes), tmp_path / "run", until="connect")
    assert again.connected.connectors[walk.segments[0].name].wires == connector.wires


def test_another_width_is_refused_before_the_model_runs(cache, tmp_path, monkeypatch):
    foreign = flat_topk_config("blocks.1.hook_mlp_out", WIDTH + 2, 2 * (WIDTH + 2), 8)
    folder = sae_folder(tmp_path / "foreign", foreign, signed_axes(WIDTH + 2))
    text = tmp_path / "text.txt"
    text.write_text("<|endoftext|>".join(TEXT), encoding="utf-8")
    monkeypatch.setattr(
        "gatelens.pipeline.state.collect", lambda *a, **k: pytest.fail("the model was run over the data")
    )
    changes = [f"data.source={text}", "data.rows=[24, 8]", "data.length=32"]
    config = read_config(CONFIGS / "gpt2.yaml", changes)
    config.bases["blocks.1.hook_mlp_out"]["release"] = str(folder)
    with pytest.raises(BasisError, match=f"vectors of width {WIDTH + 2}, the hook point has width {WIDTH}"):
        run(config, tmp_path / "run", until="connect")


def test_saes_of_another_model_are_told_apart(cache, tmp_path):
    x = torch.randn(200, WIDTH, generator=torch.Generator().manual_seed(0))
    recipe = PretrainedSAE("gpt2-small-resid-mid-v5-32k")
    assert recipe.load_for("blocks.1.hook_resid_mid", x).cfg.d_sae == FEATURES + EXTRA
    foreign = flat_topk_config("blocks.1.hook_resid_mid", WIDTH, FEATURES, WIDTH)
    folder = sae_folder(tmp_path / "foreign", foreign, sae_tensors(WIDTH, FEATURES))
    with pytest.raises(BasisError, match="less than their mean does"):
        PretrainedSAE(str(folder)).load_for("blocks.1.hook_resid_mid", x)


def test_the_demonstration_names_what_ships():
    config = yaml.safe_load((CONFIGS / "demo.yaml").read_text(encoding="utf-8"))
    model = load_model(config["model"]["name"])
    for segment in mlp_segments(model, **config["segments"]):
        for hook in (segment.hook_in, segment.hook_out):
            sae = PretrainedSAE(config["bases"]["release"]).load(hook)
            assert sae.cfg.d_in == segment.d_in
            assert sae.cfg.metadata.hook_name == hook
    assert read_config(CONFIGS / "demo.yaml").name == "demo"
