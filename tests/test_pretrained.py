"""Published SAEs: the list, the cache, folders; what cannot be used is refused, what does not fit is told with its cause."""

from __future__ import annotations

import json

import pytest
import torch
from sae_lens import SAE

from gatelens import PretrainedSAE, collect, load_model, mlp_segments, text_batches
from gatelens.bases.sae.admission import admitted
from gatelens.bases.sae.fitness import check_fit, measure_fit
from gatelens.bases.sae.normalised import EXTRA, RowNormalised
from gatelens.basis.ends import fit_bases
from gatelens.errors import BasisError, GateLensWarning, HubError
from gatelens.evaluation import splice
from gatelens.saving import load_basis, save_basis
from support.small_models import flat_topk_config, gpt2_folder, in_hub_cache, sae_folder, sae_tensors

D, F = 16, 40
HOOK = "blocks.1.hook_resid_mid"


def plain_config(hook=HOOK, **more):
    return {
        "architecture": "standard", "d_in": D, "d_sae": F, "dtype": "float32", "device": "cpu",
        "apply_b_dec_to_input": True, "normalize_activations": "none", "reshape_activations": "none",
        "metadata": {"hook_name": hook, "sae_lens_version": "6.54.12"},
    } | more  # fmt: skip


@pytest.fixture
def rows():
    generator = torch.Generator().manual_seed(1)
    return torch.randn(600, D, generator=generator)


@pytest.fixture
def exact(tmp_path):
    """(SAE, rows that it reconstructs): at most two of 15 orthonormal directions of mean zero."""
    generator = torch.Generator().manual_seed(1)
    directions = torch.randn(D, D - 1, generator=generator)
    directions = torch.linalg.qr(directions - directions.mean(0)).Q.T.contiguous()
    codes = torch.zeros(600, D - 1)
    for row in codes:
        row[torch.randperm(D - 1, generator=generator)[:2]] = 1 + torch.rand(2, generator=generator)
    tensors = {
        "W_dec": directions,
        "W_enc": directions.T.contiguous(),
        "b_enc": torch.zeros(D - 1),
        "b_dec": torch.zeros(D),
    }
    config = flat_topk_config(HOOK, D, D - 1, 2, "none")
    return PretrainedSAE.from_disk(sae_folder(tmp_path / "exact", config, tensors)), codes @ directions


def topk_folder(tmp_path, normalise, name="sae", **more):
    return sae_folder(tmp_path / name, flat_topk_config(HOOK, D, F, 4, normalise) | more, sae_tensors(D, F))


def test_a_plain_sae_comes_as_it_is(tmp_path, rows):
    folder = sae_folder(tmp_path / "sae", plain_config(), sae_tensors(D, F))
    ours, theirs = PretrainedSAE.from_disk(folder), SAE.load_from_disk(folder)
    assert type(ours) is type(theirs)
    assert torch.equal(ours.encode(rows), theirs.encode(rows))


def test_the_older_flat_form(tmp_path, rows):
    basis = PretrainedSAE.from_disk(topk_folder(tmp_path, "none"))
    f = basis.encode(rows)
    assert ((f > 0).sum(1) <= 4).all()
    assert basis.cfg.metadata.hook_name == HOOK


@pytest.mark.parametrize("kind", ["layer_norm", "constant_norm_rescale"])
def test_row_normalisation_without_state_gives_the_same_values(tmp_path, rows, kind):
    folder = topk_folder(tmp_path, kind)
    theirs, ours = SAE.load_from_disk(folder), PretrainedSAE.from_disk(folder)
    expected_f = theirs.encode(rows)
    expected = theirs.decode(expected_f)
    f = ours.encode(rows)
    ours.encode(3 * rows[:5] + 1)  # another batch in between changes nothing
    assert torch.allclose(ours.decode(f), expected, atol=1e-5)
    assert torch.allclose(f[:, :F] / f[:, F : F + 1], expected_f, atol=1e-5)
    assert torch.allclose(ours.decode(f), f @ ours.W_dec, atol=1e-5)  # a linear map, as connectors need
    assert ours.cfg.d_sae == F + EXTRA
    with pytest.raises(AttributeError):  # what the guard is for: sae-lens cannot decode what it has not just encoded
        theirs.decode(expected_f)


def test_layer_norm_does_not_see_centring(tmp_path, rows):
    """So the published GPT-2 SAEs fit with and without center_writing_weights."""
    basis = PretrainedSAE.from_disk(topk_folder(tmp_path, "layer_norm"))
    shifted = rows + torch.randn(len(rows), 1)
    assert torch.allclose(basis.encode(rows)[:, : F + 1], basis.encode(shifted)[:, : F + 1], atol=1e-4)
    assert torch.allclose(
        basis.decode(basis.encode(shifted)) - basis.decode(basis.encode(rows)), shifted - rows, atol=1e-4
    )


def test_a_row_normalised_basis_is_saved_and_read_back(tmp_path, rows):
    basis = PretrainedSAE.from_disk(topk_folder(tmp_path, "layer_norm"))
    save_basis(basis, tmp_path / "kept")
    again = load_basis(tmp_path / "kept")
    assert isinstance(again, RowNormalised)
    assert torch.equal(again.encode(rows), basis.encode(rows))


def test_what_cannot_be_used_is_refused(tmp_path):
    folder = sae_folder(
        tmp_path / "avg", plain_config(normalize_activations="expected_average_only_in"), sae_tensors(D, F)
    )
    with pytest.raises(BasisError, match="'expected_average_only_in', whose factors are not in its file"):
        PretrainedSAE.from_disk(folder)
    tensors = sae_tensors(D, F)
    tensors["W_enc"][0, 0] = float("inf")
    with pytest.raises(BasisError, match="W_enc holds NaN or infinity"):
        PretrainedSAE.from_disk(sae_folder(tmp_path / "inf", plain_config(), tensors))
    with pytest.raises(BasisError, match="expected an SAE that normalises its rows"):
        plain = SAE.load_from_disk(sae_folder(tmp_path / "plain", plain_config(), sae_tensors(D, F)))
        RowNormalised(plain, plain)


def test_damaged_and_foreign_folders(tmp_path):
    with pytest.raises(BasisError, match=r"holds no cfg\.json"):
        PretrainedSAE.from_disk(tmp_path)
    folder = sae_folder(tmp_path / "sae", plain_config(), sae_tensors(D, F))
    (folder / "cfg.json").write_text(json.dumps(plain_config(d_sae=F + 1)))
    with pytest.raises(BasisError, match=r"W_dec has shape \[40, 16\].*says \[41, 16\]"):
        PretrainedSAE.from_disk(folder)
    (folder / "cfg.json").write_text("{")
    with pytest.raises(BasisError, match="is damaged"):
        PretrainedSAE.from_disk(folder)
    (folder / "cfg.json").write_text(json.dumps(plain_config(architecture="batchtopk")))
    with pytest.raises(BasisError, match="not an SAE for inference"):
        PretrainedSAE.from_disk(folder)
    (folder / "sae_weights.safetensors").write_bytes(b"\xff" * 99)
    (folder / "cfg.json").write_text(json.dumps(plain_config()))
    with pytest.raises(BasisError, match="is damaged"):
        PretrainedSAE.from_disk(folder)
    (folder / "sae_weights.safetensors").unlink()
    (folder / "sae_weights.pt").write_bytes(b"\x80\x04.")
    with pytest.raises(BasisError, match=r"Python pickle.*weights_only=True"):
        PretrainedSAE.from_disk(folder)


def test_a_folder_as_release(tmp_path):
    sae_folder(tmp_path / HOOK, plain_config(), sae_tensors(D, F))
    assert PretrainedSAE(str(tmp_path)).load(HOOK).cfg.d_sae == F
    assert PretrainedSAE(str(tmp_path), HOOK).load().cfg.d_sae == F
    assert PretrainedSAE(str(tmp_path / HOOK)).load().cfg.d_sae == F
    with pytest.raises(BasisError, match="unknown sae_id .*did you mean 'blocks.1.hook_resid_mid'"):
        PretrainedSAE(str(tmp_path), "blocks.1.hook_resid_md").load()
    with pytest.raises(BasisError, match="there is no folder"):
        PretrainedSAE(str(tmp_path / "nowhere")).load()


def test_releases_of_the_list(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(BasisError, match="unknown release .*did you mean 'gpt2-small-resid-mid-v5-32k'"):
        PretrainedSAE("gpt2-small-resid-mid-v5-32", HOOK).load()
    with pytest.raises(BasisError, match="unknown sae_id 'blocks.12.hook_resid_mid'; did you mean 'blocks"):
        PretrainedSAE("gpt2-small-resid-mid-v5-32k", "blocks.12.hook_resid_mid").load()
    with pytest.raises(BasisError, match="needs sae_id"):
        PretrainedSAE("gpt2-small-resid-mid-v5-32k").load()
    with pytest.raises(HubError, match=r"not in the cache .*local folder"):
        PretrainedSAE("gpt2-small-resid-mid-v5-32k", HOOK).load()


def test_width_and_hook_are_checked(tmp_path, rows):
    sae_folder(tmp_path / HOOK, plain_config(), sae_tensors(D, F))
    recipe = PretrainedSAE(str(tmp_path / HOOK))
    with pytest.raises(BasisError, match="vectors of width 16, the hook point has width 20"):
        recipe.load_for(HOOK, torch.randn(9, 20))
    with pytest.warns(GateLensWarning, match="was trained at blocks.1.hook_resid_mid, it is used at blocks.0"):
        recipe.load_for("blocks.0.hook_resid_mid")


# How well it fits


def test_a_fit_is_measured_by_hand(exact):
    basis, rows = exact
    fit = measure_fit(basis, rows)
    assert fit.explained_variance == pytest.approx(1, abs=1e-5)
    assert (fit.l0, fit.dead, fit.rows, fit.cause) == (2, 0, 600, "")
    noisy = rows + torch.randn(600, D, generator=torch.Generator().manual_seed(2))
    error = (noisy - basis.decode(basis.encode(noisy))).square().sum()
    expected = 1 - error / (noisy - noisy.mean(0)).square().sum()
    assert measure_fit(basis, noisy).explained_variance == pytest.approx(expected.item(), abs=1e-5)
    with pytest.raises(BasisError, match="rows that vary"):
        measure_fit(basis, torch.ones(5, D))


@pytest.mark.parametrize(
    ("spoil", "cause"),
    [
        (lambda x, noise: x + noise[:, :1], "center_writing_weights"),
        (lambda x, noise: torch.cat([x, 20 * noise[:6]]), "BOS or padding"),
    ],
)
def test_the_likely_cause_of_a_misfit(exact, spoil, cause):
    basis, rows = exact
    noise = torch.randn(len(rows), D, generator=torch.Generator().manual_seed(3))
    with pytest.warns(GateLensWarning, match=f"expected 0.990. Likely cause: {cause}|Likely cause: .*{cause}"):
        check_fit(basis, HOOK, spoil(rows, noise), expected_variance=0.99)


def test_a_norm_scale_is_recognised(exact, tmp_path):
    """A threshold in units of rows of norm sqrt(d): it kills rows that are smaller."""
    basis, rows = exact
    scale = (D**0.5 / rows.norm(dim=-1).mean()).item()
    config = plain_config(architecture="jumprelu", d_sae=D - 1)
    tensors = {"W_dec": basis.W_dec, "W_enc": basis.W_enc, "b_enc": basis.b_enc, "b_dec": basis.b_dec}
    tensors |= {"threshold": torch.full((D - 1,), 0.95 * scale)}
    jump = PretrainedSAE.from_disk(sae_folder(tmp_path / "jump", config, tensors))
    assert measure_fit(jump, rows * scale).explained_variance > 0.5
    with pytest.raises(BasisError, match="less than their mean does.*norm scale"):
        check_fit(jump, HOOK, rows / 3)


def test_worse_than_the_mean_is_refused(exact):
    basis, _ = exact
    noise = torch.randn(300, D, generator=torch.Generator().manual_seed(4))
    with pytest.raises(BasisError, match="less than their mean does.*another hook point or another loading"):
        check_fit(basis, HOOK, 2 + 0.01 * noise)


def test_an_l0_unlike_the_published_one_is_told(exact):
    basis, rows = exact
    with pytest.warns(GateLensWarning, match="expected an L0 of 40"):
        check_fit(basis, HOOK, rows, expected_variance=0.9, expected_l0=40)
    check_fit(basis, HOOK, rows, expected_variance=0.9, expected_l0=2)


# The whole way from a cache


def test_the_published_pair_from_a_cache_reads_into_a_model(monkeypatch, tmp_path):
    """Release, id, file names and config as published; the model and the SAEs are small and random."""
    model = load_model(gpt2_folder(tmp_path / "mini", n_embd=D))
    segment = mlp_segments(model, [1], "resid_mid")[0]
    cache = tmp_path / "hub"
    for part, hook in (("resid-mid", segment.hook_in), ("mlp-out", segment.hook_out)):
        folder = sae_folder(tmp_path / part, flat_topk_config(hook, D, F, 8), sae_tensors(D, F))
        files = {f"v5_32k_layer_1/{name}": folder / name for name in ("cfg.json", "sae_weights.safetensors")}
        in_hub_cache(cache, f"jbloom/GPT2-Small-OAI-v5-32k-{part}-SAEs", files)
    monkeypatch.setenv("HF_HUB_CACHE", str(cache))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    fit, _ = text_batches(model, torch.randint(1, 200, (12, 10)))
    acts = collect(model, fit, [segment])
    recipes = {
        segment.hook_in: PretrainedSAE("gpt2-small-resid-mid-v5-32k"),
        segment.hook_out: PretrainedSAE("gpt2-small-mlp-out-v5-32k", segment.hook_out),
    }
    bases = {hook: recipe.load(hook) for hook, recipe in recipes.items()}
    assert all(isinstance(admitted(basis.source), RowNormalised) for basis in bases.values())
    circuit = type("Spliced", (), {"segments": [segment], "bases": bases, "connectors": {}})
    spliced = model.run_with_hooks(fit.inputs, fwd_hooks=splice(circuit, how="dictionaries"))
    assert torch.isfinite(spliced).all()
    with pytest.raises(BasisError, match="less than their mean does"):  # random weights explain nothing, and it is said
        fit_bases(recipes, [segment], {hook: 100 + acts[hook] for hook in acts})


def test_one_recipe_for_one_hook(tmp_path):
    model = load_model(gpt2_folder(tmp_path / "mini", n_embd=D))
    segments = mlp_segments(model, [1])
    with pytest.raises(BasisError, match="names one SAE, the segments have 2 hook points"):
        PretrainedSAE("gpt2-mini", "a").fit(segments, {})
