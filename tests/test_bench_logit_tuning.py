"""Gates tuned on logits: the divergence by hand, a lower one afterwards, the same wires, a model that is left alone."""

from __future__ import annotations

import pytest
import torch
from _logit_tuning import LogitTuning, _Trained, divergence, mean_divergence
from transformer_lens import HookedRootModule
from transformer_lens.hook_points import HookPoint

from gatelens.connectors import Connector
from gatelens.data import Batches
from gatelens.errors import BasisError
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.segments import Segment
from support.dictionaries import Nonnegative

INPUTS, GATES, CLASSES = 8, 4, 3


class Gated(HookedRootModule):
    """x -> relu(A x - 1.2) at the hook points, then a linear head; its gradients must stay untouched."""

    def __init__(self):
        super().__init__()
        self.hook_in, self.hook_out = HookPoint(), HookPoint()
        self.A = torch.zeros(GATES, INPUTS).scatter_(1, torch.arange(INPUTS).view(GATES, 2), 1.0)
        self.head = torch.nn.Parameter(2 * torch.randn(GATES, CLASSES, generator=torch.Generator().manual_seed(5)))
        self.setup()

    def forward(self, x):
        return self.hook_out((self.hook_in(x) @ self.A.T - 1.2).clamp_min(0)) @ self.head


@pytest.fixture(scope="module")
def world():
    model = Gated()
    generator = torch.Generator().manual_seed(0)
    x = (torch.rand(1200, INPUTS, generator=generator) < 0.5) * (
        0.8 + 0.4 * torch.rand(1200, INPUTS, generator=generator)
    )
    zero = torch.zeros(len(x), dtype=torch.long)
    data = [
        Batches(part, zero[: len(part)], torch.ones(len(part), dtype=torch.bool), zero[: len(part)], 100)
        for part in x.split(900)
    ]
    segment = Segment("hook_in", "hook_out", lambda x: (x @ model.A.T - 1.2).clamp_min(0), INPUTS, GATES)
    start = Connector.from_dense(0.6 * model.A, torch.full((GATES,), -0.4))
    gates = GateBasis(
        Nonnegative(INPUTS), start, torch.eye(GATES), torch.zeros(GATES), INPUTS, None, "hook_in", "hook_out"
    )
    return model, segment, gates, *data


def test_the_divergence_is_the_definition(world):
    model, segment, gates, _, held_out = world
    batch = held_out.batch(0)
    loss, count = divergence(model, batch, segment, gates.reconstruct)
    with torch.no_grad():
        p = model(batch.inputs).softmax(-1)
        q = (gates.reconstruct(batch.inputs) @ model.head).softmax(-1)
    assert count == len(batch.inputs)
    assert loss.item() == pytest.approx(float((p * (p / q).log()).sum()), rel=1e-4)
    assert divergence(model, batch, segment, segment.forward)[0].item() == pytest.approx(0, abs=1e-4)


def test_tuning_lowers_it_on_other_rows_and_keeps_the_wires(world):
    model, segment, gates, fit, held_out = world
    tuned = LogitTuning(model, fit, passes=8, lr=2e-2).tune(gates, segment)
    before, after = (mean_divergence(model, held_out, segment, g) for g in (gates, tuned))
    assert after < 0.5 * before
    assert torch.equal(tuned.connector.weight.col_indices(), gates.connector.weight.col_indices())
    assert tuned.info["tuned"].startswith("KL")
    assert model.head.grad is None
    assert torch.equal(gates.connector.bias, torch.full((GATES,), -0.4)), "the gates that were given stay as they were"


def test_bad_input_is_refused(world):
    model, segment, gates, fit, _ = world
    with pytest.raises(BasisError, match=r"passes must be at least 1"):
        LogitTuning(model, fit, passes=0)
    with pytest.raises(BasisError, match=r"made for hook_in -> hook_out"):
        LogitTuning(model, fit).tune(gates, Segment("hook_in", "elsewhere", segment.forward, INPUTS, GATES))


def test_a_bypass_is_kept_and_counts(world):
    """What is trained says what the dictionary with its bypass says, and hands the bypass on."""
    model, _, gates, fit, _ = world
    bypass = 0.1 * torch.rand(INPUTS, GATES, generator=torch.Generator().manual_seed(3))
    beside = GateBasis(
        Nonnegative(INPUTS), gates.connector, gates.W_dec, gates.b_dec, INPUTS, bypass, "hook_in", "hook_out"
    )
    exact = Segment("hook_in", "hook_out", lambda x: beside.reconstruct(x), INPUTS, GATES)
    tuned = LogitTuning(model, fit).tune(beside, exact)
    assert tuned.bypass_in is bypass
    x = fit.inputs[:50]
    torch.testing.assert_close(_Trained(beside)(x).detach(), beside.reconstruct(x))
