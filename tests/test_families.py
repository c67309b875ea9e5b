"""Families of transformers: logits against the original on random small configs, segments against cached rows."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

import gatelens as gl
from gatelens.errors import ModelError, SegmentError
from support.small_models import TEXT, gpt2_folder, tokenizer_files

VOCAB = 200
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "max_position_embeddings": 32,
    "bos_token_id": 0, "eos_token_id": 0, "pad_token_id": None,
}  # fmt: skip
WIDE, GROUPED = {"intermediate_size": 48}, {"intermediate_size": 48, "num_key_value_heads": 2}
GEMMA = GROUPED | {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 16}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "neox": ("GPTNeoX", SHAPE | WIDE | {"rotary_pct": 0.5}),
    "neox, one after the other": ("GPTNeoX", SHAPE | WIDE | {"rotary_pct": 0.5, "use_parallel_residual": False}),
    "gptj": ("GPTJ", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "rotary_dim": 4, "bos_token_id": 0, "eos_token_id": 0}),
    "phi": ("Phi", SHAPE | WIDE),
    "falcon": ("Falcon", {k: v for k, v in SHAPE.items() if "max" not in k} | {"alibi": False}),
    "gemma": ("Gemma", SHAPE | GROUPED | {"head_dim": 8}),
    "gemma 2": ("Gemma2", SHAPE | GEMMA),
    "gemma 3": ("Gemma3Text", SHAPE | GEMMA),
    "olmo 2": ("Olmo2", SHAPE | GROUPED),
    "granite": ("Granite", SHAPE | GROUPED | {"residual_multiplier": 0.22, "embedding_multiplier": 12.0, "logits_scaling": 8.0}),
    "bloom": ("Bloom", {"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 2, "n_head": 4, "bos_token_id": 0, "eos_token_id": 0}),
    "mistral": ("Mistral", SHAPE | GROUPED),
    "nemotron": ("Nemotron", SHAPE | GROUPED),  # its nonlinearity is relu, squared
    "gpt-2": ("GPT2", {"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 32, "bos_token_id": 0, "eos_token_id": 0}),
    "llama": ("Llama", SHAPE | GROUPED),
    "qwen 2": ("Qwen2", SHAPE | GROUPED),
    "opt": ("OPT", SHAPE | {"word_embed_proj_dim": 32, "ffn_dim": 48, "pad_token_id": 1}),
}  # fmt: skip
PARALLEL = {"neox", "gptj", "phi", "falcon"}
NORM_BEHIND = {"gemma 2", "gemma 3", "olmo 2"}
RAW = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
TOKENS = torch.randint(2, VOCAB, (3, 10), generator=torch.Generator().manual_seed(1))


def small(folder: Path, name: str, settings: dict[str, Any]) -> Path:
    """A random model as Hugging Face saves it; gains and biases are random too."""
    import transformers

    tokenizer_files(folder, VOCAB)
    torch.manual_seed(0)
    model = transformers.AutoModelForCausalLM.from_config(getattr(transformers, f"{name}Config")(**settings))
    with torch.no_grad():
        for value in model.parameters():
            value.add_(0.1 * torch.randn_like(value))
    model.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root, made = tmp_path_factory.mktemp("families"), {}

    def folder(family: str) -> Path:
        if family not in made:
            made[family] = small(root / family.replace(" ", "_"), *FAMILIES[family])
        return made[family]

    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family(folders, family):
    from transformers import AutoModelForCausalLM

    folder = folders(family)
    model = gl.load_model(folder, bridge=True, **RAW)
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits
        ours, cache = model.run_with_cache(TOKENS)
    assert (ours - theirs).norm() / theirs.norm() < 1e-4
    for end in ("mlp_in", "resid_mid"):
        if end == "resid_mid" and family in PARALLEL:
            with pytest.raises(SegmentError, match=r'side by side, there is no resid_mid.*mlp_in="mlp_in"'):
                gl.mlp_segments(model, mlp_in=end)
            continue
        segments = gl.mlp_segments(model, mlp_in=end)
        assert len(segments) == 2
        for segment in segments:
            x, y = cache[segment.hook_in], cache[segment.hook_out]
            assert (segment.forward(x) - y).norm() / y.norm() < 1e-5
            assert (segment.mlp is None) == (family in NORM_BEHIND)
            if segment.mlp is not None:  # the closed form is the stretch itself
                before = x if segment.prenorm is None else segment.prenorm(x)
                assert (segment.mlp(before) - y).norm() / y.norm() < 1e-5


@pytest.mark.parametrize("family", FAMILIES)
def test_a_family_in_bfloat16(folders, family):
    from transformers import AutoModelForCausalLM

    model = gl.load_model(folders(family), bridge=True, dtype=torch.bfloat16, **RAW)
    with torch.no_grad():
        theirs = (
            AutoModelForCausalLM.from_pretrained(folders(family), dtype=torch.bfloat16).eval()(TOKENS).logits.float()
        )
        ours = model(TOKENS).float()
    assert (ours - theirs).norm() / theirs.norm() < 0.02  # two roundings of 8 bits
    fit, _ = gl.text_batches(model, TEXT, rows=(20, 6), length=12)
    segments = gl.mlp_segments(model)
    acts = gl.collect(model, fit, segments)
    for segment in segments:
        x, y = acts[segment.hook_in], acts[segment.hook_out]
        assert x.dtype == y.dtype == segment.forward(x).dtype == torch.float32
        assert (segment.forward(x) - y).norm() / y.norm() < 0.04


def test_the_effect_of_a_norm_behind_the_mlp_is_differentiated(folders):
    """Jacobians go through the whole stretch, the norm behind included."""
    model = gl.load_model(folders("gemma 2"), bridge=True, **RAW)
    (segment,) = gl.mlp_segments(model, layers=[1])
    _, cache = model.run_with_cache(TOKENS)
    x = cache[segment.hook_in].flatten(0, 1)[:2]
    found = gl.feature_jacobian(segment, x, gl.Rotation(torch.eye(32)), gl.Rotation(torch.eye(32)))
    exact = torch.stack([torch.autograd.functional.jacobian(segment.forward, row) for row in x])
    torch.testing.assert_close(found, exact, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize(
    ("name", "settings", "says"),
    [
        ("Cohere", SHAPE | GROUPED | {"pad_token_id": 0}, r"differ from the original's by a relative 0\.\d.*bridge leaves out"),
        ("Falcon", FAMILIES["falcon"][1] | {"alibi": True, "parallel_attn": False}, "differ from the original's.*bridge leaves out"),
        ("Falcon", FAMILIES["falcon"][1] | {"new_decoder_architecture": True, "num_kv_heads": 2}, "cannot be loaded as a bridge"),
        ("Olmoe", SHAPE | GROUPED | {"num_experts": 4}, "transformers cannot run the model itself"),  # 8 experts a token
    ],
    ids=["a scale of the logits", "alibi", "another split of heads", "settings that nothing runs with"],
)  # fmt: skip
def test_a_bridge_that_is_not_the_original_is_refused(tmp_path, name, settings, says):
    """By every version of transformer-lens, or it is the original: version 4 scales Cohere's logits as they are."""
    from transformers import AutoModelForCausalLM

    folder, said = small(tmp_path / "m", name, settings), ""
    try:
        model = gl.load_model(folder, bridge=True, **RAW)
    except ModelError as error:
        said = str(error)
    if said:
        assert re.search(says, said, re.DOTALL)
        return
    assert name == "Cohere"
    with torch.no_grad():
        theirs = AutoModelForCausalLM.from_pretrained(folder).eval()(TOKENS).logits
        torch.testing.assert_close(model(TOKENS), theirs, rtol=1e-4, atol=1e-5)


def test_what_is_no_plain_mlp_is_named(tmp_path):
    experts = small(tmp_path / "experts", "Mixtral", SHAPE | GROUPED | {"num_local_experts": 2})
    with pytest.raises(SegmentError, match="is a mixture of 2 experts, no plain MLP"):
        gl.mlp_segments(gl.load_model(experts, bridge=True, **RAW))
    mamba = small(tmp_path / "mamba", "Mamba", {"vocab_size": VOCAB, "hidden_size": 32, "num_hidden_layers": 1})
    with pytest.raises(SegmentError, match="neither attention nor an MLP"):
        gl.mlp_segments(gl.load_model(mamba, bridge=True, **RAW))


# Half precision


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, "bfloat16"])
def test_a_model_in_half_precision_walks_whole(tmp_path, dtype):
    folder = gpt2_folder(tmp_path / "mini")
    model, exact = gl.load_model(folder, dtype=dtype), gl.load_model(folder)
    fit, held_out = gl.text_batches(model, TEXT, rows=(40, 12), length=16)
    segments = gl.mlp_segments(model, layers=[1], mlp_in="resid_mid")
    acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
    reference = gl.collect(exact, fit, segments)
    for hook in acts:
        assert acts[hook].dtype == torch.float32
        assert (acts[hook] - reference[hook]).norm() / reference[hook].norm() < 0.04
    bases = gl.PCA(12).fit(segments, acts)
    circuit = gl.build_circuit(model, segments, bases, acts, gl.GramLasso(mean_wires=4, signed=True), gates=False)
    report = gl.evaluate(model, circuit, held_out, acts=unseen)
    own = gl.collect(exact, held_out, segments)
    there = gl.Circuit(gl.mlp_segments(exact, layers=[1], mlp_in="resid_mid"), bases, circuit.connectors)
    wanted = gl.evaluate(exact, there, held_out, acts=own)
    assert report.model["clean"] == pytest.approx(wanted.model["clean"], rel=0.02)
    assert report.model["ablated"] == pytest.approx(wanted.model["ablated"], rel=0.02)
    assert report.all_replaced["ce"] == pytest.approx(wanted.all_replaced["ce"], rel=0.03)


def test_blocks_whose_norms_stand_behind():
    """An encoder of BERT's kind: the MLP reads what the first norm writes; with weights that are not set, their NaN is named."""
    try:
        from transformer_lens import HookedEncoder, HookedTransformerConfig
    except ImportError:
        pytest.skip("transformer-lens 4 has no HookedEncoder")

    cfg = HookedTransformerConfig(
        n_layers=2, d_model=8, n_ctx=12, d_head=4, n_heads=2, d_mlp=16, d_vocab=10, act_fn="gelu",
        attention_dir="bidirectional", device="cpu",
    )  # fmt: skip
    model, draw = HookedEncoder(cfg).eval().requires_grad_(False), torch.Generator().manual_seed(0)
    for value in model.parameters():
        value.copy_(0.5 * torch.randn(value.shape, generator=draw))
    for how, entry in (("mlp_in", "ln1.hook_normalized"), ("resid_mid", "hook_resid_mid")):
        segments = gl.mlp_segments(model, mlp_in=how)
        assert [s.hook_in for s in segments] == [f"blocks.{i}.{entry}" for i in range(2)]
        acts = gl.collect(model, torch.randint(10, (6, 8), generator=draw), segments)
        for s in segments:
            assert s.misses(acts[s.hook_in], acts[s.hook_out]) < 1e-5
    model.blocks[0].mlp.W_in.fill_(torch.nan)
    with pytest.raises(SegmentError, match="NaN or infinity"):
        gl.mlp_segments(model)
