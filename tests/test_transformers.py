"""Transformers: what W_in multiplies under every loading, norms inside the segment, collecting only as deep as needed."""

from __future__ import annotations

import pytest
import torch
from transformer_lens import HookedTransformer, HookedTransformerConfig

from gatelens import collect, load_model, mlp_segments, text_batches
from gatelens.activations import Activations
from gatelens.activations.capture import forward_kwargs
from gatelens.data import Batches
from gatelens.errors import (
    DataError,
    GateLensWarning,
    HookNameError,
    NonFiniteError,
    SegmentError,
    StoreError,
    TooLargeError,
)
from gatelens.segments.transformer import Normalise
from support.small_models import TEXT, gpt2_folder, llama_folder

RAW = {"fold_ln": False, "center_writing_weights": False, "center_unembed": False, "fold_value_biases": False}
TOKENS = torch.randint(0, 200, (3, 10), generator=torch.Generator().manual_seed(5))


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {"gpt2": gpt2_folder(root / "mini-gpt2"), "llama": llama_folder(root / "mini-llama")}


@pytest.fixture(scope="module")
def model(folders):
    return load_model(folders["gpt2"])


@pytest.fixture(scope="module")
def batches(model):
    return text_batches(model, TEXT, rows=(24, 8), length=16, batch_size=4)


def hooked(**settings):
    shape = {"n_layers": 2, "d_model": 16, "n_ctx": 16, "d_head": 8, "n_heads": 2, "d_mlp": 24, "d_vocab": 200}
    model = HookedTransformer(HookedTransformerConfig(**shape | {"act_fn": "gelu", "seed": 0} | settings, device="cpu"))
    with torch.no_grad():
        for name, value in model.named_parameters():
            if ".ln" in name or name.endswith(("b_in", "b_out")):
                value.add_(0.3 * torch.randn_like(value))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("kind", ["gpt2", "llama"])
@pytest.mark.parametrize("bridge", [False, True])
@pytest.mark.parametrize("options", [{}, RAW])
def test_segments_compute_what_the_model_does(folders, kind, bridge, options):
    model = load_model(folders[kind], bridge=bridge, **options)
    for end in ("mlp_in", "resid_mid"):
        for frozen in (False, True):
            for segment in mlp_segments(model, mlp_in=end, frozen_norm=frozen):
                _, cache = model.run_with_cache(TOKENS)
                x, y = cache[segment.hook_in], cache[segment.hook_out]
                assert torch.allclose(segment.forward(x), y, atol=1e-5)
                assert (segment.prenorm is None) == (end == "mlp_in")
                assert segment.mlp is not None
                assert (segment.mlp.W_gate is not None) == (kind == "llama")


@pytest.mark.parametrize("act", ["relu", "gelu", "gelu_new", "silu", "solu"])
@pytest.mark.parametrize("norm", ["LN", "LNPre", "RMS", "RMSPre"])
def test_every_nonlinearity_and_norm(act, norm):
    model = hooked(act_fn=act, normalization_type=norm)
    for end in ("mlp_in", "resid_mid"):
        assert len(mlp_segments(model, mlp_in=end)) == 2


def test_a_bias_of_a_gated_mlp_stands_behind_the_product():
    mlp_segments(hooked(act_fn="silu", normalization_type="RMS", gated_mlp=True), mlp_in="resid_mid")


def test_what_w_in_multiplies_has_another_name_in_each_loading(folders):
    names = [mlp_segments(load_model(folders["gpt2"], bridge=b), [1])[0].hook_in for b in (False, True)]
    assert names == ["blocks.1.ln2.hook_normalized", "blocks.1.mlp.hook_in"]


def test_the_norm_is_exact_or_frozen_in_derivatives():
    x = torch.randn(7, dtype=torch.float64)
    exact, frozen = Normalise(True, 1e-5), Normalise(True, 1e-5, frozen=True)
    assert torch.allclose(exact(x), torch.nn.functional.layer_norm(x, (7,)), atol=1e-12)
    assert torch.equal(exact(x), frozen(x))
    scale = (x.var(unbiased=False) + 1e-5).sqrt()
    centring = torch.eye(7, dtype=torch.float64) - 1 / 7
    assert torch.allclose(torch.func.jacrev(frozen)(x), centring / scale, atol=1e-10)
    z = exact(x)
    derivative = (torch.eye(7, dtype=torch.float64) - torch.outer(z, z) / 7) @ centring / scale
    assert torch.allclose(torch.func.jacrev(exact)(x), derivative, atol=1e-10)
    assert torch.allclose(torch.func.jacfwd(frozen)(x), centring / scale, atol=1e-10)


def test_a_segment_that_misses_the_model_is_refused(model, monkeypatch):
    monkeypatch.setitem(model.cfg.__dict__, "act_fn", "relu")  # the weights' own is gelu_new
    with pytest.raises(SegmentError, match=r"misses what the model computes by a relative error of 0?\.?\d"):
        mlp_segments(model)


def test_bad_segments(model):
    with pytest.raises(SegmentError, match=r"layer 2 is out of range.*0\.\.1"):
        mlp_segments(model, layers=[2])
    with pytest.raises(SegmentError, match='"mlp_in".*"resid_mid".*got \'mlp_out\''):
        mlp_segments(model, mlp_in="mlp_out")
    with pytest.raises(SegmentError, match="no plain MLP"):
        mlp_segments(hooked(attn_only=True))
    with pytest.raises(SegmentError, match="side by side"):
        mlp_segments(hooked(parallel_attn_mlp=True), mlp_in="resid_mid")
    with pytest.raises(SegmentError, match="no transformer blocks"):
        from gatelens.segments.transformer import transformer_segments

        transformer_segments(torch.nn.Linear(2, 2))
    assert len(mlp_segments(hooked(parallel_attn_mlp=True))) == 2


# Collecting


def test_only_as_deep_as_needed(model, batches):
    first, last = mlp_segments(model, [0]), mlp_segments(model, [1])
    assert forward_kwargs(model, [first[0].hook_out]) == {"stop_at_layer": 1}
    assert forward_kwargs(model, ["hook_embed"]) == {"stop_at_layer": 0}
    assert forward_kwargs(model, [first[0].hook_out, "ln_final.hook_normalized"]) == {}
    seen = []
    model.blocks[1].hook_resid_pre.add_perma_hook(lambda t, hook: seen.append(1))
    try:
        collect(model, batches[0], first)
        assert not seen
        collect(model, batches[0], last)
        assert seen
    finally:
        model.blocks[1].hook_resid_pre.remove_hooks(including_permanent=True)


def test_rows_are_those_of_a_plain_cache_without_bos(model, batches):
    segment = mlp_segments(model, [1], "resid_mid")[0]
    acts = collect(model, batches[0], [segment, "blocks.0.hook_resid_pre"])
    _, cache = model.run_with_cache(batches[0].inputs)
    keep = batches[0].keep
    for hook in (segment.hook_in, segment.hook_out, "blocks.0.hook_resid_pre"):
        assert torch.allclose(acts[hook], cache[hook][keep], atol=1e-5)
    assert torch.equal(acts.token, batches[0].inputs[keep])
    assert (acts.token != model.tokenizer.bos_token_id).all()
    assert acts.position.min() == 1


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_store_gives_back_the_same_rows(model, batches, tmp_path, dtype):
    segments = mlp_segments(model)
    memory = collect(model, batches[0], segments, dtype=dtype)
    stored = collect(model, batches[0], segments, store=tmp_path / "acts", dtype=dtype, shard_rows=100)
    again = Activations.open(tmp_path / "acts")
    for acts in (stored, again):
        assert acts.rows == memory.rows
        assert all(torch.equal(acts[h], memory[h]) for h in memory)
        assert torch.equal(acts.document, memory.document)
        assert "32" in repr(acts)
    pieces = list(again.shards())
    assert len(pieces) > 1
    assert torch.equal(torch.cat([p[segments[0].hook_in] for p in pieces]), memory[segments[0].hook_in])
    assert memory[segments[0].hook_in].dtype == torch.float32


def test_only_a_damaged_shard_is_collected_again(model, batches, tmp_path, monkeypatch):
    segments = mlp_segments(model)
    first = collect(model, batches[0], segments, store=tmp_path / "acts", shard_rows=100)
    shards = sorted((tmp_path / "acts").glob("shard-*.safetensors"))
    data = bytearray(shards[1].read_bytes())
    data[-5] ^= 1
    shards[1].write_bytes(bytes(data))
    with pytest.raises(StoreError, match=shards[1].name):
        Activations.open(tmp_path / "acts")[segments[0].hook_in]
    calls = []
    run = model.run_with_cache
    monkeypatch.setattr(model, "run_with_cache", lambda *a, **k: calls.append(1) or run(*a, **k))
    with pytest.warns(GateLensWarning, match="shard 1 of .* is made again: its SHA-256"):
        again = collect(model, batches[0], segments, store=tmp_path / "acts", shard_rows=100)
    assert 0 < len(calls) < len(batches[0])
    monkeypatch.undo()
    assert torch.equal(again[segments[0].hook_in], collect(model, batches[0], segments)[segments[0].hook_in])
    assert first.rows == again.rows


def test_a_store_of_another_model_tokenizer_or_data_is_refused(model, batches, folders, tmp_path, monkeypatch):
    segments = mlp_segments(model)
    collect(model, batches[0], segments, store=tmp_path / "acts")
    with pytest.raises(StoreError, match="data: stored"):
        collect(model, batches[1], segments, store=tmp_path / "acts")
    raw = load_model(folders["gpt2"], **RAW)
    with pytest.raises(StoreError, match=r"model\.fold_ln: stored True, asked for False"):
        collect(raw, batches[0], mlp_segments(raw), store=tmp_path / "acts")
    vocabulary = dict(model.tokenizer.get_vocab())
    swapped = {**vocabulary, "Ġ": vocabulary["e"], "e": vocabulary["Ġ"]}
    monkeypatch.setattr(model.tokenizer, "get_vocab", lambda: swapped)
    with pytest.raises(StoreError, match=r"model\.tokenizer: stored"):
        collect(model, batches[0], segments, store=tmp_path / "acts")


def test_wrong_names_are_refused_with_the_nearest(model, batches):
    with pytest.raises(HookNameError, match=r"blocks\.1\.hook_mlp_out.*gatelens hooks"):
        collect(model, batches[0], ["blocks.1.hook_mlpout"])
    with pytest.raises(HookNameError, match=r"layer 7 is out of range: 0\.\.1"):
        collect(model, batches[0], ["blocks.7.hook_mlp_out"])
    with pytest.raises(DataError, match="nothing passes through"):
        collect(model, batches[0], ["blocks.1.hook_mlp_in"])
    with pytest.raises(DataError, match="at least one segment"):
        collect(model, batches[0], [])
    with pytest.raises(DataError, match="float32 or float16"):
        collect(model, batches[0], ["hook_embed"], dtype="int8")


def test_a_number_that_is_none_stops_at_the_first_batch(model, batches):
    def poison(value, hook):
        value[1, 3, 0] = float("nan")

    with (
        model.hooks([("blocks.0.hook_mlp_out", poison)]),
        pytest.raises(NonFiniteError, match=r"blocks\.0\.hook_mlp_out holds NaN or infinity in batch 0, row \d+"),
    ):
        collect(model, batches[0], ["blocks.0.hook_mlp_out"])


def test_float16_overflow_is_told(model, batches):
    def enlarge(value, hook):
        value[0, 3, 0] = 1e5

    with model.hooks([("blocks.0.hook_mlp_out", enlarge)]):
        assert collect(model, batches[0], ["blocks.0.hook_mlp_out"])["blocks.0.hook_mlp_out"].max() == 1e5
        with pytest.raises(NonFiniteError, match="1e.05.*more than float16.*float32"):
            collect(model, batches[0], ["blocks.0.hook_mlp_out"], dtype="float16")


def test_what_would_not_fit_is_refused_first(model, batches, tmp_path, monkeypatch):
    monkeypatch.setattr("gatelens.activations.capture.available_memory", lambda: 1000)
    with pytest.raises(TooLargeError, match="1000 bytes of memory are available. Give `store=`"):
        collect(model, batches[0], mlp_segments(model))
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000}))
    with pytest.raises(TooLargeError, match="are free"):
        collect(model, batches[0], mlp_segments(model), store=tmp_path / "acts")


def test_nothing_kept(model):
    tokens = torch.ones(2, 3, dtype=torch.long)
    empty = Batches(tokens, tokens, torch.zeros(2, 3, dtype=torch.bool), tokens, 2, "ce", "empty")
    with pytest.raises(DataError, match="no position is kept"):
        collect(model, empty, ["hook_embed"])


def test_the_same_seed_gives_the_same_bytes(model, batches, tmp_path):
    segments = mlp_segments(model)
    for name in ("a", "b"):
        collect(model, text_batches(model, TEXT, (24, 8), 16, batch_size=4)[0], segments, store=tmp_path / name)
    for path in sorted((tmp_path / "a").glob("*.safetensors")):
        assert path.read_bytes() == (tmp_path / "b" / path.name).read_bytes()


def test_segments_of_a_model_cut_off_behind_them(tmp_path):
    """`first_layers=n`: segments are proved on the blocks that are there, without the logits that cannot be had."""
    folder = gpt2_folder(tmp_path)
    whole, cut = load_model(folder), load_model(folder, first_layers=1)
    x = torch.randn(3, 32)
    a, b = (mlp_segments(model, [0])[0].forward(x) for model in (whole, cut))
    assert torch.equal(a, b)
