"""Autoencoders for a segment: they keep what it reads, and are sae-lens' own."""

from __future__ import annotations

import pytest
import torch

from gatelens.bases.sae import SegmentSAE
from gatelens.errors import BasisError
from gatelens.saving import load_basis, save_basis
from gatelens.segments import Segment

D = 8


@pytest.fixture(scope="module")
def world():
    """Eight sparse causes, of which the segment reads the two with the least variance."""
    generator = torch.Generator().manual_seed(0)
    on = torch.rand(4000, D, generator=generator) < 0.3
    size = torch.tensor([0.4, 0.4, 1, 1, 1, 1, 1, 1])
    x = on * size * (0.8 + 0.4 * torch.rand(4000, D, generator=generator))
    return Segment("in", "out", lambda x: (x[:, :2] - 0.1).clamp_min(0) @ torch.eye(2), D, 2), x


def error(sae, segment, x):
    y = segment.forward(x)
    return float((segment.forward(sae.decode(sae.encode(x))) - y).square().sum() / (y - y.mean(0)).square().sum())


def test_what_the_segment_reads_is_kept(world, tmp_path):
    segment, x = world
    settings = {"d_sae": 8, "k": 1.5, "samples": 60_000, "batch_size": 128, "lr": 1e-2}
    plain, aimed = (SegmentSAE(weight=w, **settings).fit([segment], {"in": x})["in"] for w in (0.0, 3.0))
    assert error(aimed, segment, x) < 0.7 * error(plain, segment, x)
    assert aimed.cfg.architecture() == "jumprelu"
    assert aimed.cfg.metadata.hook_name == "in"
    assert float((aimed.encode(x) > 0).sum()) / len(x) == pytest.approx(1.5, abs=0.2)
    assert torch.allclose(aimed.W_dec.norm(dim=1), torch.ones(8), atol=1e-4)
    save_basis(aimed, tmp_path)
    assert torch.equal(load_basis(tmp_path).encode(x), aimed.encode(x))


def test_bad_input_is_refused():
    with pytest.raises(BasisError, match=r"weight must not be negative"):
        SegmentSAE(weight=-1)
    with pytest.raises(BasisError, match=r"no bypass"):
        SegmentSAE(bypass=True)
