"""The searches that our rotations are raced against: they are rotations, no worse than their start, and find what is planted."""

from __future__ import annotations

import pytest
import torch
from _rotation_matching import match_rotations
from _rotation_rivals import FIRST_ORDER, descend, match_stretch_project

from gatelens.bases.rotation.starts import random_rotation, svd_rotation
from gatelens.jacobians import sparsity


def planted(n: int, columns: int) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    s = torch.randn(n, columns, generator=g) * (torch.rand(n, columns, generator=g) < 0.1)
    s = s / s.square().mean().sqrt() + 0.02 * torch.randn(n, columns, generator=g)
    q = random_rotation(n, 100)
    return q.T @ s, q


@pytest.mark.parametrize("method", FIRST_ORDER)
def test_every_method_returns_a_rotation_no_worse_than_its_start(method):
    columns, _ = planted(8, 160)
    columns[3] = 0  # a dead coordinate is set aside, as by our own fit
    start, seen = random_rotation(8, 3), []
    found = descend(columns, method, start, iterations=20, watcher=lambda stage, value, r: seen.append(r))
    for rotation in (found, *seen):
        torch.testing.assert_close(rotation @ rotation.T, torch.eye(8), atol=2e-6, rtol=0, check_dtype=False)
    assert sparsity(found.float() @ columns).l1 <= sparsity(start @ columns).l1 + 1e-6
    assert len(seen) == 20


@pytest.mark.parametrize("method", [m for m in FIRST_ORDER if m.startswith("adam")])
def test_adam_reaches_a_planted_rotation_given_time(method):
    columns, q = planted(6, 200)
    found = descend(columns, method, svd_rotation(columns), iterations=300, lr=0.03)
    assert match_rotations(found.float(), q) > 0.97


def test_plain_descent_raises_the_reciprocal_measure():
    columns, values = planted(8, 100)[0], []
    descend(
        columns,
        "expm_sgd",
        random_rotation(8, 1),
        "reciprocal",
        iterations=60,
        watcher=lambda s, v, r: values.append(v),
    )
    assert max(values) > values[0]


def test_the_power_iteration_raises_the_fourth_power():
    columns, _ = planted(8, 200)
    found, start = match_stretch_project(columns), svd_rotation(columns)
    torch.testing.assert_close(found @ found.T, torch.eye(8), atol=2e-6, rtol=0)
    assert float((found @ columns).pow(4).sum()) > float((start @ columns).pow(4).sum())
