"""Transcoders: trained ones explain the output, keep sae-lens' format, and their encoder is a connector as it stands."""

from __future__ import annotations

import pytest
import torch
from _explained import explained

from gatelens.bases.sae.training import ridge
from gatelens.codes.active import level
from gatelens.errors import BasisError
from gatelens.gate_dictionaries.transcoder import Transcoder, TranscoderBasis, read_transcoder
from gatelens.saving import load_basis, save_basis
from gatelens.segments import Segment

D_IN, D_OUT, FEATURES = 10, 8, 16


def planted(rows=3000, seed=0):
    """y = relu(x A - 1) D with 16 hidden units: a transcoder of 16 features can be exact."""
    generator = torch.Generator().manual_seed(seed)
    A, D = torch.randn(D_IN, FEATURES, generator=generator), torch.randn(FEATURES, D_OUT, generator=generator)
    x = torch.randn(rows, D_IN, generator=generator)
    segment = Segment("in", "out", lambda x: (x @ A - 2).clamp_min(0) @ D, D_IN, D_OUT)
    return segment, x, segment.forward(x)


def recipe(**rest):
    return Transcoder(**{"d_sae": FEATURES, "k": 3, "samples": 25_000, "batch_size": 128, "lr": 1e-2, **rest})


@pytest.fixture(scope="module")
def trained():
    segment, x, y = planted()
    kinds = {
        "jumprelu_transcoder": recipe(),
        "transcoder": recipe(activation="relu", l1=0.001),
        "jumprelu_skip_transcoder": recipe(bypass=True),
        "skip_transcoder": recipe(activation="relu", l1=0.001, bypass=True),
    }
    return segment, x, y, {name: r.fit([segment], {"in": x, "out": y})["out"] for name, r in kinds.items()}


def test_every_kind_explains_the_output_and_knows_its_format(trained):
    _, x, y, found = trained
    linear = torch.linalg.lstsq(torch.cat([x, torch.ones(len(x), 1)], 1), y).solution
    rest = float(
        (torch.cat([x, torch.ones(len(x), 1)], 1) @ linear - y).square().sum() / (y - y.mean(0)).square().sum()
    )
    for name, basis in found.items():
        assert basis.label == name
        assert explained(basis, x, y) < 0.8 * rest, name
        assert torch.allclose(basis.W_dec.norm(dim=1), torch.ones(FEATURES), atol=1e-4)
        with torch.no_grad():
            assert torch.allclose(basis.reconstruct(x), basis.transcoder(x), atol=1e-4)
    l0 = float((found["jumprelu_transcoder"].features_from(x) > 0).sum()) / len(x)
    assert l0 == pytest.approx(3, abs=0.2)


def test_sae_lens_reads_what_is_written(trained, tmp_path):
    from sae_lens import SAE

    segment, x, _, found = trained
    for name, basis in found.items():
        basis.transcoder.save_model(tmp_path / name)
        again = SAE.load_from_disk(tmp_path / name)
        assert again.cfg.architecture() == name
        assert torch.equal(again.encode(x[:50]), basis.features_from(x[:50]))
        loaded = Transcoder(path=str(tmp_path / name)).fit([segment], {})["out"]
        assert torch.equal(loaded.reconstruct(x[:50]), basis.reconstruct(x[:50]))
        save_basis(basis, tmp_path / f"own-{name}")
        assert torch.equal(load_basis(tmp_path / f"own-{name}").reconstruct(x[:50]), basis.reconstruct(x[:50]))


def test_the_same_seed_gives_the_same_transcoder():
    _, x, y = planted(500)
    a, b, other = (recipe(samples=3_000, seed=s).train(x, y) for s in (0, 0, 1))
    assert torch.equal(a.W_dec, b.W_dec)
    assert not torch.equal(a.W_dec, other.W_dec)


def test_topk_keeps_its_number_and_an_autoencoder_is_the_case_of_equal_ends():
    _, x, _ = planted(1000)
    basis = recipe(activation="topk", k=4, d_sae=32).train(x, x)
    assert explained(basis, x, x) < 0.5


def test_small_steps_by_hand():
    assert level([torch.tensor([3.0, 1.0, 2.0])], 2) == 1.0
    assert level([torch.tensor([3.0, -1.0]), torch.tensor([[1.0, 0.5], [2.0, 0.2]])], 2) == 1.0
    assert level([torch.tensor([3.0])], 2) == 0.0
    x = torch.randn(200, 3, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(
        ridge(x, x @ torch.diag(torch.tensor([1.0, 2.0, 3.0]))), torch.diag(torch.tensor([1.0, 2.0, 3.0])), atol=0.01
    )


def test_bad_input_is_refused(trained, tmp_path):
    segment, x, y, found = trained
    basis = found["transcoder"]
    with pytest.raises(BasisError, match=r"maps width 10 to 8, segment a -> b maps 10 to 9"):
        basis.check(Segment("a", "b", lambda x: x, D_IN, 9))
    with pytest.raises(BasisError, match=r"made for in -> out"):
        basis.check(Segment("a", "out", lambda x: x, D_IN, D_OUT))
    with pytest.raises(BasisError, match=r"features_from"):
        basis.encode(y)
    with pytest.raises(BasisError, match=r"holds no cfg.json"):
        read_transcoder(tmp_path, segment)
    with pytest.raises(BasisError, match=r"k = 40.*dictionary of 16"):
        recipe(k=40).train(x, y)
    with pytest.raises(BasisError, match=r"same rows"):
        recipe().train(x, y[:5])
    with pytest.raises(BasisError, match=r"nothing to explain"):
        recipe().train(x, torch.ones_like(y))
    with pytest.raises(BasisError, match=r"unknown activation"):
        recipe(activation="swish")
    from sae_lens.saes.standard_sae import StandardSAE, StandardSAEConfig

    with pytest.raises(BasisError, match=r"expected a sae-lens transcoder"):
        TranscoderBasis(StandardSAE(StandardSAEConfig(d_in=4, d_sae=8)))
