"""The penalty against absorption: worked by hand, and on a feature that only fires inside another one."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.bases.sae.pair_training import overlap
from gatelens.errors import BasisError

D, FEATURES, ROWS = 12, 16, 12_000


def nested(seed: int = 0):
    """Sixteen features in twelve dimensions; 1 fires in half of the rows in which 0 does, and nowhere else."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(FEATURES, D, generator=g), dim=1)
    for _ in range(200):
        cosines = directions @ directions.T - torch.eye(FEATURES)
        directions = torch.nn.functional.normalize(directions - 2 * cosines**3 @ directions, dim=1)
    on = torch.rand(ROWS, FEATURES, generator=g) < 0.07
    on[:, 0] |= torch.rand(ROWS, generator=g) < 0.1
    on[:, 1] = on[:, 0] & (torch.rand(ROWS, generator=g) < 0.5)
    f = on * (0.8 + 0.4 * torch.rand(ROWS, FEATURES, generator=g))
    return directions, f, f @ directions


def test_overlap_by_hand():
    """Cosines 1/2 (0 with 1), 0 (2 with both): the largest squares are 1/4, 1/4 and 0; lengths do not matter."""
    rows = torch.tensor([[1.0, 0.0, 0.0], [1.0, 3.0**0.5, 0.0], [0.0, 0.0, 5.0]], requires_grad=True)
    value = overlap(rows, torch.Generator())
    assert value.item() == pytest.approx((0.25 + 0.25 + 0.0) / 3)
    value.backward()
    assert rows.grad is not None
    assert float((rows.grad * rows.detach()).sum(1).abs().max()) < 1e-6  # it turns directions and does not stretch them
    assert float(overlap(torch.eye(3000)[:, :2000], torch.Generator())) == 0.0  # in parts


def test_a_feature_inside_another_leaves_it_whole():
    directions, f, x = nested()
    both, found = f[:, 1] > 0, {}
    for weight in (0.0, 0.25):
        settings = {"d_sae": 24, "k": 1.3 * float((f > 0).sum()) / ROWS, "samples": 300_000, "batch_size": 128}
        sae = gl.TrainedSAE(**settings, orthogonality=weight).train(x)
        cosine = torch.nn.functional.normalize(sae.W_dec, dim=1) @ directions.T
        host, inside = cosine[:, 0].argmax(), cosine[:, 1].argmax()
        found[weight] = float(cosine[inside, 1]), float((sae.encode(x[both])[:, host] > 0).float().mean())
    assert found[0.0][1] < 0.6  # the host is silent where the other one fires, whose direction holds the host's
    assert found[0.0][0] < 0.75
    assert found[0.25][1] > 0.9
    assert found[0.25][0] > 0.85


def test_what_it_refuses():
    with pytest.raises(BasisError, match="orthogonality must not be negative"):
        gl.Transcoder(orthogonality=-1.0)
    with pytest.raises(BasisError, match='needs architecture="batchtopk" and trainer="sparse"'):
        gl.TrainedSAE("relu", orthogonality=0.25)
