"""Adam for features that are often off: plain Adam where all are on; by hand where one is not; no dead features in short trainings."""

from __future__ import annotations

import pytest
import torch

import gatelens as gl
from gatelens.bases.sae.pair_training import PairRun, PairTraining
from gatelens.bases.sae.row_adam import RowAdam
from gatelens.distributed import Worker
from gatelens.errors import BasisError

LR, BETAS = 0.01, (0.5, 0.99)


def stepped(optimiser, parameter, grad):
    """How far a step moves the parameter."""
    before = parameter.detach().clone()
    parameter.grad = grad
    optimiser.step()
    return parameter.detach() - before


def test_rows_that_are_always_on_are_stepped_as_by_adam():
    generator = torch.Generator().manual_seed(0)
    ours, plain = (torch.zeros(5, 3, requires_grad=True) for _ in range(2))
    others = torch.zeros(4, requires_grad=True)
    mine = RowAdam([ours], [others], LR, BETAS)
    theirs = torch.optim.Adam([plain], lr=LR, betas=BETAS)
    for _ in range(20):
        grad, others.grad = torch.randn(5, 3, generator=generator), torch.ones(4)
        step = stepped(mine, ours, grad)
        torch.testing.assert_close(step, stepped(theirs, plain, grad.clone()), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(others.detach(), torch.full((4,), -20 * LR), rtol=1e-4, atol=0)


@pytest.mark.parametrize("off", [1, 30, 600])
def test_a_row_that_was_off_is_stepped_as_if_it_had_not_been(off):
    """Two like gradients with a pause between them: the mean of squares is the gradient's square, of the running mean of gradients
    little is left, so that the step is (1 - b1) of a learning rate in each coordinate. Plain Adam's is ten times that."""
    grad = torch.zeros(3, 2)
    grad[1] = torch.tensor([0.3, -0.3])
    steps = {}
    for name, make in (("rows", lambda p: RowAdam([p], [], LR, BETAS)),
                       ("plain", lambda p: torch.optim.Adam([p], lr=LR, betas=BETAS))):  # fmt: skip
        p = torch.zeros(3, 2, requires_grad=True)
        optimiser = make(p)
        stepped(optimiser, p, grad.clone())
        for _ in range(off):
            stepped(optimiser, p, torch.zeros(3, 2))
        steps[name] = stepped(optimiser, p, grad.clone())
        assert not p[[0, 2]].any()
    momentum = 0.5 + 0.5 * 0.5 ** (off + 1)  # of the gradients' running mean, in units of the gradient
    correction = 1 - 0.5 ** (off + 2)
    wanted = -LR * grad[1].sign() * momentum / correction
    torch.testing.assert_close(steps["rows"][1], wanted, rtol=1e-3, atol=1e-6)
    if off == 600:
        assert (steps["plain"][1] / wanted > 9).all()


def test_a_row_that_starts_late_or_again_begins_with_the_size_of_its_gradient():
    p = torch.zeros(2, 2, requires_grad=True)
    optimiser = RowAdam([p], [], LR, BETAS)
    always, late = torch.tensor([[1.0, 1.0], [0.0, 0.0]]), torch.tensor([[1.0, 1.0], [3.0, 4.0]])
    for _ in range(50):
        stepped(optimiser, p, always.clone())
    size = 12.5**0.5  # of (3, 4), a coordinate
    for step in (51, 52):
        square = 0.99 * size**2 * (1 - 0.99 ** (step - 1)) + 0.01 * torch.tensor([9.0, 16.0])
        wanted = -LR * 0.5 * late[1] / (square / (1 - 0.99**step)).sqrt()
        torch.testing.assert_close(stepped(optimiser, p, late.clone())[1], wanted, rtol=1e-3, atol=1e-6)
        optimiser.restart(torch.tensor([1]))


def sparse_rows(rows, features=192, d=48, seed=0):
    """Rows of about four features out of 192 each, most of them rare: on in one row of a hundred down to one of a thousand."""
    generator = torch.Generator().manual_seed(seed)
    directions = torch.nn.functional.normalize(torch.randn(features, d, generator=generator), dim=1)
    often = 0.25 / torch.arange(1, features + 1) ** 1.05
    on = torch.rand(rows, features, generator=generator) < often.clamp_min(0.001)
    return (on * (1 + 0.3 * torch.rand(rows, features, generator=generator))) @ directions


def test_rare_features_stay_alive():
    """Plain Adam leaves 7 % of these dead."""
    x = sparse_rows(4_000)
    sae = gl.TrainedSAE(d_sae=224, k=2, samples=50_000, batch_size=128).train(x)
    f = sae.encode(x)
    assert float((f > 0).any(0).logical_not().float().mean()) < 0.03
    assert float((f > 0).sum()) / len(x) == pytest.approx(2, abs=0.1)


def test_rounding_errors_change_no_more_than_they_are():
    """As another number of threads makes them: here in the rows. Whom a dead feature follows is drawn apart from the order of rows."""
    x = sparse_rows(1_000)
    rounded = x * (1 + 1e-7 * torch.randn(x.shape, generator=torch.Generator().manual_seed(1)))
    recipe = gl.TrainedSAE(d_sae=96, k=2, samples=15_000, batch_size=100)
    found = [recipe.train(rows).W_dec for rows in (x, rounded)]
    same = torch.nn.functional.cosine_similarity(*found) > 0.999
    assert float(same.float().mean()) > 0.98


def test_a_feature_more_that_is_dead_leaves_the_others_rows():
    x = sparse_rows(500)
    settings = PairTraining(d_sae=64, k=2, samples=2_000, batch_size=100)
    starts = []
    for dead in ([3, 40], [3, 17, 40]):
        run = PairRun(x, x, settings, None)
        run.train()
        run.fired[:] = True
        run.fired[dead] = False
        order = run.generator.get_state()
        run._revive(x, x - x.mean(0))
        assert torch.equal(run.generator.get_state(), order)
        starts.append(run.dictionary.detach().clone())
    assert torch.equal(starts[0][[3, 40]], starts[1][[3, 40]])
    assert (starts[0][17] != starts[1][17]).any()


def test_more_processes_than_rows_of_a_batch_are_refused(monkeypatch):
    """A process without rows would have the mean of nothing, and NaN would go to all."""
    monkeypatch.setattr("gatelens.bases.sae.pair_training.team", lambda: Worker(0, 8))
    settings = PairTraining(d_sae=16, k=2, samples=100, batch_size=4, data_parallel=True)
    with pytest.raises(BasisError, match="8 processes train a dictionary together on batches of 4 rows"):
        PairRun(torch.randn(20, 6), torch.randn(20, 6), settings, None)
