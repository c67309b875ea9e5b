"""The table of peers: its figures against float64 by hand, rows that are kept, and the whole of it on a small planted network."""

from __future__ import annotations

import json

import pytest
import torch
from torch.nn import functional as F

from gatelens import bench
from gatelens.basis.linear import Rotation
from gatelens.connectors import Connector
from gatelens.data import Batches
from gatelens.errors import ConfigError
from gatelens.gate_dictionaries.gate_basis import GateBasis
from gatelens.ladder.measuring import Rows
from gatelens.models import HookedMLP
from gatelens.segments import MLPWeights, Segment, mlp_segments

peers = bench.load("peers")
import _peer_cases as cases  # noqa: E402
import _peer_forms as forms  # noqa: E402
import _peer_measures as measures  # noqa: E402

WIDTH = 6


class Positive(Rotation):
    """The coordinates themselves, as features that are never negative."""

    def __init__(self, width: int):
        super().__init__(torch.eye(width))

    def encode(self, x):
        return x.clamp_min(0)


def drawn(rows: int, width: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(rows, width, generator=generator) * (torch.rand(rows, width, generator=generator) < 0.5)


def gated(d_in=WIDTH, m=9, d_out=4, seed=0) -> MLPWeights:
    generator = torch.Generator().manual_seed(seed)
    draw = lambda *s: torch.randn(*s, generator=generator)  # noqa: E731
    return MLPWeights(draw(d_in, m), draw(m), draw(m, d_out), draw(d_out), "silu", draw(d_in, m))


def test_r2_of_edits_by_hand_in_float64():
    """Half of the weights of a linear map: 1 - (1 - 1/2)^2 of every step; the edits are what their names say."""
    matrix, x = torch.randn(WIDTH, 3, generator=torch.Generator().manual_seed(1)), drawn(200, WIDTH, 2)
    segment = Segment("in", "out", lambda x: x @ matrix, WIDTH, 3)
    half = forms.of_linear(Connector.from_dense(matrix.T / 2, torch.zeros(3), activation="identity"))
    made = measures.edits_of(segment, Positive(WIDTH), Positive(3), x, seed=0)
    assert set(made) == {"removals", "subsets", "restoring"}
    for name, edits in made.items():
        step = (edits.x[1] - edits.x[0]).double()
        assert torch.allclose(edits.change.double(), step @ matrix.double(), atol=1e-5)
        assert torch.allclose((edits.f[1] - edits.f[0]).double(), step, atol=1e-6)
        assert edits.r2(half) == pytest.approx(0.75, abs=1e-4)
        assert (step > 0).any() == (name == "restoring")
    assert ((made["removals"].x[1] != made["removals"].x[0]).sum(1) <= 1).all()
    # restoring ends at natural rows, and each of them has an output that was off before
    before, after = ((p @ matrix) > 0 for p in made["restoring"].x)
    assert (~before & after).any(1).all()


def test_a_model_with_a_form_in_place_by_hand():
    """CE and KL over targets in float64; where `counts` is False the model's own value stays."""
    model = HookedMLP((WIDTH, 5, 4, 3), seed=1)
    segment = mlp_segments(model)[0]
    x = drawn(64, WIDTH, 3)
    targets, rows = torch.arange(64) % 3, torch.ones(64, dtype=torch.bool)
    batches = Batches(x, targets, rows, torch.arange(64), 32, "accuracy", "rows")
    counts = lambda batch, value: torch.arange(len(value)) % 2 == 0  # noqa: E731
    mean = torch.full((4,), 0.3)
    judge = measures.Judge(model, batches, segment, counts, mean, "ce")
    constant = forms.Form(lambda x, f: torch.zeros(len(x), 4), 4, 0)
    found = judge.of(constant, Positive(5))
    with torch.no_grad():
        own = model(x).double()
        h = model.layers[0](x).clamp_min(0)
        y = model.layers[1](h).clamp_min(0)
        replaced = torch.where((torch.arange(64) % 2 == 0)[:, None], 0.0, y)
        ablated = torch.where((torch.arange(64) % 2 == 0)[:, None], mean, y)
        ce = lambda logits: float(F.cross_entropy(logits.double(), targets))  # noqa: E731
        ours, theirs = model.layers[2](replaced).double(), model.layers[2](ablated).double()
    assert found["metric"] == pytest.approx(ce(ours), rel=1e-5)
    expected = (own.softmax(1) * (own.log_softmax(1) - ours.log_softmax(1))).sum(1).mean()
    assert found["kl"] == pytest.approx(float(expected), rel=1e-4)
    assert judge.bounds == pytest.approx((ce(own), ce(theirs)), rel=1e-5)
    assert found["gap_closed"] == pytest.approx((ce(theirs) - ce(ours)) / (ce(theirs) - ce(own)), rel=1e-3)
    assert judge.kept == 0.5


def test_derivatives_of_a_pair_are_autograds_through_a_gated_mlp():
    mlp, x = gated(), drawn(5, WIDTH, 4)
    inner, outer = forms.TopK(Weights(8, WIDTH, 0), x, 3), forms.TopK(Weights(7, 4, 1), mlp(x), 2)
    on_in, value = inner.active(x)
    x_hat = inner.back(on_in, value)
    on_out, _ = outer.active(mlp(x_hat))
    block = forms.active_jacobian(inner, outer, mlp, x_hat, on_in, on_out)
    for r in range(5):

        def features(v, r=r):
            return (mlp(inner.back(on_in[r : r + 1], v[None])) @ outer.W_enc + outer.b_enc)[0, on_out[r]]

        assert torch.allclose(block[r], torch.autograd.functional.jacobian(features, value[r].detach()), atol=1e-4)


def test_the_pairs_penalty_makes_its_derivatives_smaller():
    mlp, x = gated(), drawn(400, WIDTH, 5)
    sizes = []
    for penalty in (0.0, 0.3):
        ends = forms.TopK(Weights(8, WIDTH, 0), x, 3), forms.TopK(Weights(7, 4, 1), mlp(x), 2)
        forms.train_jacobian_pair(mlp, ends, x, 30_000, 1e-2, penalty, 0)
        on_in, value = ends[0].active(x)
        x_hat = ends[0].back(on_in, value)
        sizes.append(float(forms.active_jacobian(*ends, mlp, x_hat, on_in, ends[1].active(mlp(x_hat))[0]).abs().mean()))
    assert sizes[1] < 0.8 * sizes[0]


class Weights:
    """Weights of a dictionary."""

    def __init__(self, width: int, d: int, seed: int):
        generator = torch.Generator().manual_seed(seed)
        self.W_dec = torch.randn(width, d, generator=generator)
        self.W_enc, self.b_enc, self.b_dec = self.W_dec.T.clone(), torch.zeros(width), torch.zeros(d)


def test_one_feature_moves_each_neuron_and_all_neurons_are_the_mlp():
    mlp, x = gated(), drawn(300, WIDTH, 6)
    segment, basis = Segment("in", "out", mlp, WIDTH, 4, mlp), Positive(WIDTH)
    every = forms.kept_neurons(mlp, x, mlp(x), 9)
    assert torch.allclose(every.rows(x, x), mlp(x), atol=0.05)
    assert every.weights == 9 * (2 * WIDTH + 1 + 4) + 4
    one = forms.one_feature_each(segment, basis, x, mlp(x))
    alone = torch.diag(torch.full((WIDTH,), 0.7))  # rows with a single feature: nothing is left out
    h = one.features(alone, alone)
    post = F.silu(alone @ mlp.W_gate) * (alone @ mlp.W_in + mlp.b_in)
    assert torch.allclose(h, post, atol=1e-5)
    row = torch.tensor([[0.9, 0.4, 0.0, 0.0, 0.0, 0.0]])
    singles = [0.9 * torch.eye(WIDTH)[0], 0.4 * torch.eye(WIDTH)[1]]
    post = torch.stack([F.silu(s @ mlp.W_gate) * (s @ mlp.W_in + mlp.b_in) for s in singles])
    best = post.abs().argmax(0)  # without any feature the gate is silu(0) = 0
    assert torch.allclose(one.features(row, row)[0], post.gather(0, best[None])[0], atol=1e-5)


def test_a_bypass_reads_the_edited_code():
    """On natural rows a form is what its dictionary reconstructs; the bypass of an edited code is that code's, not that of its rows."""
    draw = torch.Generator().manual_seed(9)
    wires = Connector.from_dense(torch.randn(5, WIDTH, generator=draw), torch.randn(5, generator=draw))
    dictionary, past = torch.randn(5, 4, generator=draw), torch.randn(WIDTH, 4, generator=draw)
    basis = GateBasis(Positive(WIDTH), wires, dictionary, torch.zeros(4), WIDTH, past)
    form, x = forms.of_gates(basis), drawn(50, WIDTH, 8)
    assert torch.allclose(form.rows(x, x), basis.reconstruct(x), atol=1e-5)
    edited = x.clone()
    edited[:, 0] = 0
    assert torch.allclose(form.rows(x, edited), wires(edited) @ dictionary + edited @ past, atol=1e-5)
    assert form.weights == 5 * (WIDTH + 2 + 4) + 4 + WIDTH * 4


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """Two hidden maps, of which the second is read through two forms and the mean."""
    peers.FOLDER = tmp_path_factory.mktemp("peers")
    model = HookedMLP((12, 12, 10, 4), seed=0)
    segment = mlp_segments(model)[0]
    x = drawn(3_000, 12, 7)
    with torch.no_grad():
        h = model.layers[0](x).clamp_min(0)
        y = segment.forward(h)
    reading = measures.Reading(outputs=6, tried=2, rows=(1_000, 500), firings=(5, 5))
    sizes = cases.Sizes(1_500, 500, 500, d_sae=16, l0=3, samples=4_000, pairs=1_024, start=1_000, causal=200, reading=reading)  # fmt: skip
    batches = Batches(x[:300], torch.arange(300) % 4, torch.ones(300, dtype=torch.bool), torch.arange(300), 100, "accuracy", "rows")  # fmt: skip
    everywhere = lambda batch, value: torch.ones(len(value), dtype=torch.bool)  # noqa: E731
    judge = measures.Judge(model, batches, segment, everywhere, y.mean(0), "accuracy")
    parts = [Rows(h[a:b], y[a:b]) for a, b in ((0, 1_500), (1_500, 2_000), (2_000, 2_500))]
    made = []

    def make():
        made.append(1)
        return cases.Case("planted", segment, *parts, Positive(12), sizes, judge, {"sinks": 0.0})

    def run():
        some = [f for f in peers.FORMS if f.name in ("mean", "gates, 8 inputs", "ridge", "transcoder")]
        return list(peers.table(peers.Lazy("planted", make, sizes), (0,), some))

    return run(), made, run


def test_the_table_of_a_small_network(planted):
    found = {f.name.removeprefix("planted: "): f for f in planted[0]}
    assert found["mean"].value == pytest.approx(1, abs=0.05)
    assert found["mean"].baselines["removals"] == 0
    for name in ("gates, 8 inputs", "ridge", "transcoder"):
        row = found[name]
        assert row.value < 0.8
        assert row.baselines["seconds to fit"] > 0
        assert set(peers.COLUMNS) <= set(row.baselines)
    assert found["gates, 8 inputs"].baselines["inputs an output"] == 8
    assert found["gates, 8 inputs"].baselines["weights"] == 16 * (8 + 2 + 10) + 10
    assert found["ridge"].baselines["rules"] is None
    assert "its outputs are dimensions of y" in found["ridge"].note
    price = next(f for name, f in found.items() if name.startswith("price of readability"))
    carried = next(f for name, f in found.items() if name.startswith("static wires"))
    assert carried.baselines["removals, 1 wires"] <= carried.value <= 1
    assert carried.baselines["removals, 16 wires"] == pytest.approx(1)  # y has ten dimensions
    assert price.value == pytest.approx(found["gates, 8 inputs"].value / found["transcoder"].value)


def test_rows_that_were_measured_are_not_measured_again(planted):
    first, made, run = planted
    count = len(made)
    again = run()
    assert len(made) == count, "no model is needed for rows that are kept"
    assert [(f.name, f.value, f.baselines) for f in again] == [(f.name, f.value, f.baselines) for f in first]
    rows = [json.loads(p.read_text()) for p in peers.FOLDER.rglob("row-*.json")]
    assert {row["form"] for row in rows if "form" in row} == {"mean", "gates, 8 inputs", "ridge", "transcoder"}


def test_parts_are_chosen_by_name(tmp_path):
    with pytest.raises(ConfigError, match="did you mean 'gpt2-mini'"):
        bench.run("peers", tmp_path, only=["gpt2-mino"])
    with pytest.raises(ConfigError, match="has no parts to choose from"):
        bench.run("pages", tmp_path, only=["x"])
