"""Every dictionary that comes in computes what its weights say: as it is, folded exactly, or refused with the figure."""

from __future__ import annotations

import copy
import json
import warnings
from pathlib import Path

import pytest
import sae_lens as sl
import torch
from sae_lens.saes.abstopk_sae import AbsTopKSAE, AbsTopKSAEConfig
from sae_lens.saes.matching_pursuit_sae import MatchingPursuitSAE, MatchingPursuitSAEConfig

import gatelens as gl
from gatelens.bases.sae import files as sae_files
from gatelens.bases.sae.admission import admitted
from gatelens.bases.sae.plain import plain
from gatelens.basis.linear import directions
from gatelens.data import Batches
from gatelens.errors import BasisError, GateLensWarning
from gatelens.gate_dictionaries.doors import taken_in
from gatelens.gate_dictionaries.transcoder import TranscoderBasis
from gatelens.saving import load_basis, save_basis
from support.small_models import flat_topk_config, sae_folder, sae_tensors

D, F = 6, 20
SHAPE = {"d_in": D, "d_sae": F}
HOOK = "hook_post.0"


@pytest.fixture(autouse=True)
def quiet():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        yield


def uneven(sae):
    """Random weights: rows of the decoder are neither unit nor equal, thresholds and scales are their own."""
    torch.manual_seed(3)
    with torch.no_grad():
        for name, value in sae.named_parameters():
            value.copy_(0.7 * torch.randn_like(value))
            if name == "threshold":
                value.abs_()
    return sae.eval().requires_grad_(False)


def rows(count: int = 64) -> torch.Tensor:
    return 3 * torch.randn(count, D, generator=torch.Generator().manual_seed(7))


SAES = {
    "standard": lambda: sl.StandardSAE(sl.StandardSAEConfig(**SHAPE)),
    "jumprelu": lambda: sl.JumpReLUSAE(sl.JumpReLUSAEConfig(**SHAPE)),
    "topk": lambda: sl.TopKSAE(sl.TopKSAEConfig(k=4, **SHAPE)),
    "topk, rescaled": lambda: sl.TopKSAE(sl.TopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, **SHAPE)),
    "topk, rescaled, layer norm": lambda: sl.TopKSAE(
        sl.TopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, normalize_activations="layer_norm", **SHAPE)
    ),
    "topk of a trainer, rescaled": lambda: sl.TopKTrainingSAE(sl.TopKTrainingSAEConfig(k=4, **SHAPE)),
    "gated": lambda: sl.GatedSAE(sl.GatedSAEConfig(**SHAPE)),
    "gated, b_dec not at the input": lambda: sl.GatedSAE(sl.GatedSAEConfig(apply_b_dec_to_input=False, **SHAPE)),
    "absolute topk, rescaled": lambda: AbsTopKSAE(AbsTopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, **SHAPE)),
    "absolute topk, rescaled, layer norm": lambda: AbsTopKSAE(
        AbsTopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, normalize_activations="layer_norm", **SHAPE)
    ),
    "matching pursuit, layer norm": lambda: MatchingPursuitSAE(
        MatchingPursuitSAEConfig(normalize_activations="layer_norm", apply_b_dec_to_input=False, **SHAPE)
    ),
    "matching pursuit": lambda: MatchingPursuitSAE(MatchingPursuitSAEConfig(**SHAPE)),
    "with an error term": lambda: sl.StandardSAE(sl.StandardSAEConfig(**SHAPE), use_error_term=True),
}


@pytest.mark.parametrize("kind", SAES)
def test_weights_say_what_the_dictionary_computes(kind, tmp_path):
    """Against sae-lens' own encode and decode; every use of W_dec and W_enc elsewhere rests on this."""
    sae, x = uneven(SAES[kind]()), rows()
    with torch.no_grad():
        f = sae.encode(x)
        theirs = sae.decode(f)
    basis = admitted(sae, HOOK, D)
    g = basis.encode(x)
    torch.testing.assert_close(basis.decode(g), theirs, atol=1e-4, rtol=1e-4)
    width = g.shape[1]
    # decode(e_i) - decode(0) against the directions that the house reads
    eye = torch.eye(width)
    torch.testing.assert_close(
        basis.decode(eye) - basis.decode(0 * eye[:1]), directions(basis, width), atol=1e-5, rtol=1e-4
    )
    if width == F:
        torch.testing.assert_close(g, f, atol=1e-4, rtol=1e-4)
    encoder = getattr(basis, "W_enc", None)
    if encoder is not None:
        jacobian = torch.autograd.functional.jacobian(lambda row: basis.encode(row[None])[0], x[0])
        on = g[0] != 0
        torch.testing.assert_close(jacobian[on], encoder.T[on].detach(), atol=1e-5, rtol=1e-4)
    save_basis(basis, tmp_path / "kept")
    torch.testing.assert_close(load_basis(tmp_path / "kept").encode(x), g, atol=1e-5, rtol=1e-5)


def test_what_needs_no_change_is_not_touched():
    for kind in ("standard", "jumprelu", "topk"):
        sae = uneven(SAES[kind]())
        assert admitted(sae, HOOK, D) is sae
    sae = SAES["topk, rescaled"]()
    sae.W_dec.data /= sae.W_dec.norm(dim=1, keepdim=True)
    assert admitted(sae.eval(), HOOK, D) is sae  # unit rows: rescaling by them does nothing


def test_directions_read_naively_would_be_far_off():
    """The size of the fault that this gate is for."""
    sae, x = uneven(SAES["topk, rescaled"]()), rows()
    f = sae.encode(x)
    true = sae.decode(f)
    naive = f @ sae.W_dec + sae.b_dec
    assert (naive - true).norm() / true.norm() > 0.3
    assert admitted(sae, HOOK, D) is not sae


@pytest.mark.parametrize("kind", ["Standard", "JumpReLU", "AbsTopK", "MatchingPursuit"])
def test_heads_side_by_side_are_one_row(kind):
    """hook_z: sae-lens flattens heads itself and would take rows for heads."""
    config = getattr(sl, f"{kind}SAEConfig")(
        reshape_activations="hook_z", **SHAPE, **({"k": 4} if "TopK" in kind else {})
    )
    config.metadata.hook_name = "blocks.0.attn.hook_z"
    sae, x = uneven(getattr(sl, f"{kind}SAE")(config)), rows()
    basis = admitted(sae, "blocks.0.attn.hook_z", D)
    heads = x.reshape(len(x), 2, D // 2)
    torch.testing.assert_close(basis.encode(x), sae.encode(heads))
    torch.testing.assert_close(basis.decode(basis.encode(x)), sae.decode(sae.encode(heads)).flatten(1))


CHANGES = {
    "encode twice": ("encode", lambda own, x: 2 * own(x)),
    "encode shifted": ("encode", lambda own, x: own(x - 1)),
    "decode twice": ("decode", lambda own, f: 2 * own(f)),
    "decode one feature": ("decode", lambda own, f: own(f * torch.where(torch.arange(F) == 1, 3.0, 1.0).to(f))),
}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    "kind", ["standard", "topk, rescaled", "topk, rescaled, layer norm", "gated", "standard, bfloat16"]
)
def test_what_was_put_in_the_place_of_encode_or_decode_is_what_counts(kind, change, tmp_path):
    """Computed by, or refused; and not saved as the weights alone, which say something else."""
    name, put = CHANGES[change]
    half = {"standard, bfloat16": lambda: sl.StandardSAE(sl.StandardSAEConfig(dtype="bfloat16", **SHAPE))}
    sae, x = uneven((SAES | half)[kind]()), rows()
    own = getattr(sae, name)
    setattr(sae, name, lambda value: put(own, value))
    if "layer norm" in kind:
        with pytest.raises(BasisError, match=f"was given another {name}, beside which it normalises"):
            admitted(sae, HOOK, D)
        return
    basis, like = admitted(sae, HOOK, D), sae.W_dec
    expected = sae.decode(sae.encode(x.to(like))).float()
    close = 1e-4 if like.dtype == torch.float32 else 2e-2
    assert (basis.decode(basis.encode(x)) - expected).norm() <= close * expected.norm()
    torch.testing.assert_close(
        basis.decode(torch.eye(F)) - basis.decode(torch.zeros(1, F)), directions(basis, F), atol=1e-4, rtol=1e-3
    )
    with pytest.raises(BasisError, match="computes something else than the weights and settings"):
        save_basis(basis, tmp_path / "kept")


def test_a_class_of_ones_own_is_taken_by_what_it_computes():
    class Theirs3(sl.TopKSAE):
        def decode(self, feature_acts):
            return 3 * super().decode(feature_acts)

    sae, x = uneven(Theirs3(sl.TopKSAEConfig(k=4, rescale_acts_by_decoder_norm=True, **SHAPE))), rows()
    basis = admitted(sae, HOOK, D)
    torch.testing.assert_close(basis.decode(basis.encode(x)), sae.decode(sae.encode(x)), atol=1e-3, rtol=1e-4)
    rule = uneven(SAES["topk, rescaled"]())
    rule.activation_fn = torch.nn.Softplus()
    with pytest.raises(BasisError, match="something else than its weights in plain form"):
        admitted(rule, HOOK, D)


def test_half_precision_becomes_float32():
    sae = uneven(sl.StandardSAE(sl.StandardSAEConfig(dtype="bfloat16", **SHAPE)))
    basis = admitted(sae, HOOK, D)
    assert basis.encode(rows()).dtype == torch.float32
    torch.testing.assert_close(basis.W_enc, sae.W_enc.float())
    assert sae.W_enc.dtype == torch.bfloat16  # the user's object is as it was


# Objects of the user's own


class Theirs:
    """f = relu(x W_enc s + b), x_hat = t f W_dec + c."""

    def __init__(self, s: float = 1.0, t: float = 1.0, decode=None, encode=None):
        tensors = sae_tensors(D, F)
        self.W_enc, self.W_dec, self.s, self.t = tensors["W_enc"], 3 * tensors["W_dec"], s, t
        self.c, self.other = tensors["b_dec"], (encode, decode)

    def encode(self, x):
        return self.other[0](self, x) if self.other[0] else torch.relu(self.s * x @ self.W_enc + 0.1)

    def decode(self, f):
        return self.other[1](self, f) if self.other[1] else self.t * f @ self.W_dec + self.c


def test_tied_scalars_are_folded():
    plain_one = Theirs()
    assert admitted(plain_one, HOOK, D) is plain_one
    for given in (Theirs(t=0.5), Theirs(s=2.0), Theirs(s=2.0, t=0.25)):
        basis, x = admitted(given, HOOK, D), rows()
        torch.testing.assert_close(basis.decode(basis.encode(x)), given.decode(given.encode(x)), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(basis.W_dec, given.t * given.W_dec)
        assert not hasattr(basis, "W_enc")  # not read, since encode is not it


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (Theirs(decode=lambda self, f: torch.tanh(f @ self.W_dec)), r"not affine.*off the sum of each by a relative "),
        (Theirs(decode=lambda self, f: (f / f.norm(dim=1, keepdim=True).clamp_min(1e-9)) @ self.W_dec), "not affine"),
        (Theirs(decode=lambda self, f: f.clamp(max=1.0) @ self.W_dec), "not affine"),
        (Theirs(encode=lambda self, x: torch.relu((x - x.mean(0)) @ self.W_enc)), r"decides over the whole batch"),
        (Theirs(encode=lambda self, x: torch.relu(x @ self.W_enc).mean(0)), r"expected \[8, features\]"),
        (Theirs(encode=lambda self, x: torch.relu(x @ self.W_enc) / 0), "NaN or infinity"),
        (Theirs(decode=lambda self, f: (f @ self.W_dec)[:, :3]), r"decodes \[8, 20\] to \[8, 3\]"),
        (gl.Neurons, "the class Neurons, not an object"),
        (gl.PCA(3), "is a recipe"),
        (torch.eye(D), "got Tensor without encode and decode"),
        (None, "got NoneType"),
    ],
)  # fmt: skip
def test_what_cannot_be_a_basis_is_refused(given, says):
    with pytest.raises(BasisError, match=says):
        admitted(given, HOOK, D)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: sl.StandardSAE(sl.StandardSAEConfig(normalize_activations="expected_average_only_in", **SHAPE)), "expected_average"),
        (lambda: sl.StandardSAE(sl.StandardSAEConfig(normalize_activations="covariance_whitening", **SHAPE)), "covariance_whitening"),
        (lambda: sl.StandardSAE(sl.StandardSAEConfig(**SHAPE)).to("meta"), "on the device meta"),
        (lambda: sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(k=2.0, **SHAPE)), "whole batch.*save_inference_model"),
        (lambda: sl.Transcoder(sl.TranscoderConfig(d_out=D, apply_b_dec_to_input=False, **SHAPE)), r"is a transcoder.*Transcoder\(path="),
    ],
)  # fmt: skip
def test_sae_lens_objects_that_are_refused(make, says):
    with pytest.raises(BasisError, match=says):
        admitted(uneven(make()), HOOK, D)


def test_hooks_on_an_sae_are_seen():
    sae = uneven(SAES["standard"]())
    sae.hook_sae_acts_post.add_hook(lambda value, hook: 0 * value, is_permanent=True)
    with pytest.raises(BasisError, match=r"hooks of its own at hook_sae_acts_post.*reset_hooks"):
        admitted(sae, HOOK, D)


# Doors


def segment() -> gl.Segment:
    return gl.mlp_segments(gl.HookedMLP((8, D, D, 3)))[0]


def transcoder(**more) -> sl.Transcoder:
    return uneven(sl.Transcoder(sl.TranscoderConfig(**{"d_out": D, "apply_b_dec_to_input": False} | SHAPE | more)))


def test_every_door_of_a_walk(tmp_path):
    folder = Path(tmp_path / "sae")
    uneven(SAES["topk, rescaled"]()).save_model(folder)
    want = admitted(uneven(SAES["topk, rescaled"]())).encode(rows())
    doors = {
        "object": uneven(SAES["topk, rescaled"]()),
        "folder": folder,
        "text": str(folder),
        "file": folder / "sae_weights.safetensors",
        "config": str(folder / "cfg.json"),
        "pair": (str(tmp_path), "sae"),
        "recipe": gl.PretrainedSAE(folder).load(),
        "recipe of a pair": gl.PretrainedSAE((str(tmp_path), "sae")).load(),
        "recipe of an object": gl.PretrainedSAE(uneven(SAES["topk, rescaled"]())).load(),
    }
    for name, given in doors.items():
        basis = taken_in({HOOK: given}, [segment()])[HOOK]
        torch.testing.assert_close(basis.encode(rows()), want, msg=name)


def test_a_transcoder_at_either_end(tmp_path):
    s = segment()
    module = transcoder()
    module.save_model(tmp_path / "t")
    for given in (module, tmp_path / "t", TranscoderBasis(module, s.hook_in, s.hook_out)):
        assert isinstance(taken_in({s.hook_out: given}, [s])[s.hook_out], TranscoderBasis)
    for load in (lambda: taken_in({s.hook_in: module}, [s]), lambda: gl.PretrainedSAE(tmp_path / "t").load(s.hook_out)):
        with pytest.raises(BasisError, match="is a transcoder"):
            load()
    with pytest.raises(BasisError, match="maps width 6 to 5"):
        taken_in({s.hook_out: transcoder(d_out=5)}, [s])
    with pytest.raises(BasisError, match="rescales its input"):
        TranscoderBasis(transcoder(normalize_activations="layer_norm"))
    scaled = transcoder()
    decode = scaled.decode
    scaled.decode = lambda f: 2 * decode(f)
    with pytest.raises(BasisError, match=r"more in decode than multiply by its weights: they are off by a relative 1"):
        TranscoderBasis(scaled)


@pytest.mark.filterwarnings("ignore:the SAE for hook_post.0 explains")
def test_build_and_evaluate_pass_the_gate(digits):
    model, fit, _ = digits
    segments = gl.mlp_segments(model)[:1]
    acts = gl.collect(model, fit, segments)
    width = segments[0].d_in
    shape = {"d_in": width, "d_sae": 2 * width}
    sae = sl.TopKSAE(sl.TopKSAEConfig(k=8, rescale_acts_by_decoder_norm=True, **shape))
    bases = {
        segments[0].hook_in: uneven(sae),
        segments[0].hook_out: gl.Neurons().fit(segments, acts)[segments[0].hook_out],
    }
    circuit = gl.build_circuit(model, segments, bases, acts, gl.GramLasso(mean_edges=4), gates=False)
    by_hand = gl.Circuit(segments, bases, circuit.connectors)
    for found in (circuit, by_hand):
        basis = found.bases[segments[0].hook_in]
        torch.testing.assert_close(basis.W_dec.norm(dim=1), torch.ones(2 * width))
    elsewhere = uneven(SAES["standard"]())
    elsewhere.cfg.metadata.hook_name = "blocks.9.hook_resid_pre"
    with pytest.raises(BasisError, match="takes vectors of width 6"):
        gl.build_circuit(model, segments, {**bases, segments[0].hook_in: elsewhere}, acts, gl.GramLasso())
    with pytest.raises(BasisError, match=r"hook_post\.0 is a recipe"):
        gl.build_circuit(model, segments, {**bases, segments[0].hook_in: gl.PCA()}, acts, gl.GramLasso())


def test_a_feature_at_its_threshold_to_the_last_digits_is_no_fault():
    """A row alone and the same row among others differ in the last digits, and so may what is at a threshold; a choice over the
    batch differs by more than digits."""
    torch.manual_seed(0)
    x = rows(8)

    class Own:
        W_enc, W_dec, b_dec = torch.randn(D, F), torch.randn(F, D), torch.zeros(D)

        def __init__(self, off: float):
            self.off, self.threshold = off, (x @ self.W_enc)[:, 3].sort().values[4]

        def encode(self, x):
            z = x @ self.W_enc
            return torch.where(z > self.threshold + (self.off if len(x) == 1 else -self.off), z, 0.0)

        def decode(self, f):
            return f @ self.W_dec + self.b_dec

    assert admitted(Own(1e-5), width=D, rows=x) is not None
    with pytest.raises(BasisError, match="encodes a row otherwise when it comes alone"):
        admitted(Own(1.0), width=D, rows=x)


def test_a_dictionary_at_hand_is_held_against_the_rows():
    """As one from a file is: one that says where it was made is refused where it explains less than the mean."""
    model = gl.HookedMLP((8, D, D, 3))
    data = Batches(torch.rand(60, 8, generator=torch.Generator().manual_seed(0)), torch.arange(60) % 3)
    acts, s = gl.collect(model, data, segment()), segment()
    foreign = uneven(SAES["standard"]())
    bases = {s.hook_in: foreign, s.hook_out: gl.Rotation(torch.eye(D))}
    build = lambda: gl.build_circuit(model, s, bases, acts, gl.ReluOMP(min_firings=1), gates=False)  # noqa: E731
    find = lambda: gl.find_circuit(model, (data, data), s, bases, gl.ReluOMP(min_firings=1), quick=True)  # noqa: E731
    with pytest.warns(GateLensWarning, match="less than their mean does"):
        build()
    foreign.cfg.metadata.hook_name = "blocks.9.hook_resid_pre"
    for walk in (build, find):
        with (
            pytest.warns(
                GateLensWarning, match=r"was trained at blocks\.9\.hook_resid_pre, it is used at hook_post\.0"
            ),
            pytest.raises(BasisError, match="less than their mean does"),
        ):
            walk()


class FromInput:
    """Features of a segment's input, with the changes that a test makes."""

    def __init__(self, read=None, decode=None, **shown):
        tensors = sae_tensors(D, F)
        self.W, self.D = tensors["W_enc"], tensors["W_dec"]
        self.read, self.back = read, decode
        vars(self).update(shown)

    def encode(self, x):
        raise NotImplementedError

    def features_from(self, x):
        return torch.relu((x if self.read is None else self.read(x)) @ self.W)

    def decode(self, f):
        return f @ self.D if self.back is None else self.back(f @ self.D)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (FromInput(read=lambda x: x - x.mean(0)), "decides over the whole batch"),
        (FromInput(decode=torch.tanh), "not affine"),
        (FromInput(decode=lambda y: y[:, :3]), r"decodes \[8, 20\] to \[8, 3\]"),
        (FromInput(W_dec=torch.ones(F, D)), "shows a W_dec by which it does not decode"),
        (FromInput(read=lambda x: x / 0), "NaN or infinity"),
    ],
)
def test_objects_that_read_a_segments_input_are_tried_too(given, says):
    s = segment()
    with pytest.raises(BasisError, match=says):
        taken_in({s.hook_out: given}, [s])
    taken_in({s.hook_out: FromInput()}, [s])
    with pytest.raises(BasisError, match="no segment ends there"):
        taken_in({s.hook_in: FromInput()}, [s])


def test_sparse_features_are_read_and_truth_values_are_not():
    for layout in (torch.sparse_coo, torch.sparse_csr):
        sparse = Theirs(
            encode=lambda self, x, layout=layout: torch.relu(x @ self.W_enc).to_sparse(layout=layout),
            decode=lambda self, f: f.to_dense() @ self.W_dec,
        )
        basis = admitted(sparse, HOOK, D)
        torch.testing.assert_close(basis.encode(rows()), torch.relu(rows() @ sparse.W_enc))
    with pytest.raises(BasisError, match=r"encodes to torch\.bool; expected real numbers"):
        admitted(
            Theirs(encode=lambda self, x: x @ self.W_enc > 0, decode=lambda self, f: f.float() @ self.W_dec), HOOK, D
        )


def test_transcoders_whose_constants_were_changed():
    moved = transcoder()
    own = moved.decode
    moved.decode = lambda f: own(f) + 1
    with pytest.raises(BasisError, match="more in decode than multiply by its weights"):
        TranscoderBasis(moved)
    read = transcoder(dtype="bfloat16")
    encode = read.encode
    read.encode = lambda x: 2 * encode(x)
    with pytest.raises(BasisError, match="more in encode than multiply by its weights"):
        TranscoderBasis(read)


# Files without sae-lens


@pytest.mark.parametrize(
    "kind", ["standard", "jumprelu", "topk", "topk, rescaled", "gated", "topk, rescaled, layer norm"]
)
def test_files_are_read_the_same_without_sae_lens(kind, tmp_path, monkeypatch):
    uneven(SAES[kind]()).save_model(tmp_path / "sae")
    want = gl.PretrainedSAE(tmp_path / "sae").load()
    monkeypatch.setattr(sae_files, "sae_lens_works", lambda: False)
    found = gl.PretrainedSAE(tmp_path / "sae").load()
    assert not type(getattr(found, "source", found)).__module__.startswith("sae_lens")
    torch.testing.assert_close(found.encode(rows()), want.encode(rows()), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        found.decode(found.encode(rows())), want.decode(want.encode(rows())), atol=1e-5, rtol=1e-5
    )
    save_basis(found, tmp_path / "kept")
    monkeypatch.undo()  # sae-lens reads what was written without it
    torch.testing.assert_close(load_basis(tmp_path / "kept").encode(rows()), found.encode(rows()), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", ["", "Skip", "JumpReLU", "JumpReLUSkip"])
def test_transcoders_are_read_the_same_without_sae_lens(kind, tmp_path, monkeypatch):
    from sae_lens.saes import transcoder as formats

    config = getattr(formats, f"{kind}TranscoderConfig")(d_out=5, apply_b_dec_to_input=False, **SHAPE)
    module = uneven(getattr(formats, f"{kind}Transcoder")(config))
    module.save_model(tmp_path / "t")
    monkeypatch.setattr(sae_files, "sae_lens_works", lambda: False)
    found = TranscoderBasis(sae_files.from_folder(tmp_path / "t"))
    torch.testing.assert_close(found.reconstruct(rows()), module(rows()), atol=1e-5, rtol=1e-5)


def test_flat_files_of_before_without_sae_lens(tmp_path, monkeypatch):
    folder = sae_folder(tmp_path / "flat", flat_topk_config(HOOK, D, F, 3), sae_tensors(D, F))
    want = gl.PretrainedSAE(folder).load()
    monkeypatch.setattr(sae_files, "sae_lens_works", lambda: False)
    found = gl.PretrainedSAE(folder).load()
    torch.testing.assert_close(found.encode(rows()), want.encode(rows()), atol=1e-5, rtol=1e-5)


def test_settings_that_sae_lens_would_drop(tmp_path):
    config = flat_topk_config(HOOK, D, F, 3, "none") | {"activation_fn_str": "tanh-relu", "activation_fn_kwargs": {}}
    with pytest.raises(BasisError, match="'tanh-relu', which sae-lens 6 would read as relu"):
        gl.PretrainedSAE(sae_folder(tmp_path / "tanh", config, sae_tensors(D, F))).load()
    scaled = config | {"activation_fn_str": "relu", "finetuning_scaling_factor": True}
    tensors = sae_tensors(D, F)
    factor = torch.linspace(0.5, 2, F)
    found = gl.PretrainedSAE(sae_folder(tmp_path / "scaled", scaled, {**tensors, "scaling_factor": factor})).load()
    f = torch.relu((rows() - tensors["b_dec"]) @ tensors["W_enc"] + tensors["b_enc"])
    torch.testing.assert_close(found.decode(found.encode(rows())), (f * factor) @ tensors["W_dec"] + tensors["b_dec"])


def test_plain_form_needs_a_known_architecture():
    with pytest.raises(BasisError, match="'temporal' is no encoder matrix"):
        plain({"architecture": "temporal"}, sae_tensors(D, F))
    lacking = copy.copy(sae_tensors(D, F))
    del lacking["b_enc"]
    with pytest.raises(BasisError, match="needs W_enc, b_enc, W_dec, b_dec; its file holds W_dec, W_enc, b_dec"):
        plain({"architecture": "standard"}, lacking)


def test_a_weights_file_that_is_none(tmp_path):
    (tmp_path / "other.safetensors").write_bytes(json.dumps({}).encode())
    with pytest.raises(BasisError, match=r"is no SAE: expected a folder"):
        gl.PretrainedSAE(tmp_path / "other.safetensors").load()
    with pytest.raises(BasisError, match="there is no folder"):
        gl.PretrainedSAE(Path("nowhere")).load()
