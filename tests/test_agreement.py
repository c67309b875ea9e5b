"""Whether an output favours what really comes next: against loops, on planted text, and on a small real model."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import scipy.sparse
import torch
from _shuffled_mlp import shuffled_segment

import gatelens as gl
from gatelens.circuits import build_circuit
from gatelens.errors import DataError, SegmentError
from gatelens.evaluation.rule_counts import gate_summary
from gatelens.gates.agreement import LEAST, Rows, agreement
from gatelens.gates.effects import favourites, output_effects
from gatelens.gates.logit_effects import LogitEffects, logit_effects, standardised
from gatelens.segments import MLPWeights, Segment

WORDS, ROWS, DOCUMENTS, OUTPUTS = 30, 4_000, 20, 6


@pytest.fixture(scope="module")
def text():
    """Random text in which word 3 follows word 2 half of the time, and word 4 where an unseen state is on.

    Outputs: 0 is on at word 2 and favours 3 (a table of pairs of tokens knows that); 1 is on in the state and favours 4; 2 is on
    in the state and disfavours 4; 3 is on at random; 4 is hardly ever on; 5 is on wherever word 2 is, above a level.
    """
    rng = np.random.default_rng(0)
    state = rng.random(ROWS) < 0.1
    token = rng.integers(0, WORDS, ROWS)
    target = rng.integers(0, WORDS, ROWS)
    target = np.where((token == 2) & (rng.random(ROWS) < 0.5), 3, target)
    target = np.where(state & (rng.random(ROWS) < 0.5), 4, target)
    on = np.stack([token == 2, state, state, rng.random(ROWS) < 0.1, np.arange(ROWS) < 10, token == 2], 1)
    value = on * rng.uniform(0.5, 1.5, on.shape)
    directions = torch.randn(OUTPUTS, 8, generator=torch.Generator().manual_seed(0)) * 0.3
    readout = torch.randn(8, WORDS, generator=torch.Generator().manual_seed(1))
    to = torch.linalg.pinv(readout)
    directions[0] += 5 * to[3]
    directions[1] += 5 * to[4]
    directions[2] -= 5 * to[4]
    effects = LogitEffects(directions, readout, "tokens")
    rows = Rows(token, np.full(ROWS, -1), target, np.arange(ROWS) * DOCUMENTS // ROWS)
    return effects, scipy.sparse.csr_matrix(value.astype(np.float32)), rows


def by_loops(effects, f, rows, out, level=0.0):
    """The definition, word for word."""
    effect = effects.directions[out].double() @ effects.readout.double()
    z = ((effect - effect.mean()) / effect.std(unbiased=False)).numpy()
    on = [r for r in range(ROWS) if f[r, out] > level]
    mean_all = np.mean([z[t] for t in rows.target])
    excess = [z[rows.target[r]] - mean_all for r in on]
    held, kept = [], []
    for r in on:
        off = [z[rows.target[q]] for q in range(ROWS) if rows.token[q] == rows.token[r] and not f[q, out] > level]
        if off:
            held.append(z[rows.target[r]] - np.mean(off))
            kept.append(r)
    return excess, on, held, kept


def t_by_document(values, rows, which):
    mean = np.mean(values)
    sums = {}
    for v, r in zip(values, which, strict=True):
        d = rows.document[r]
        sums[d] = sums.get(d, 0.0) + v - mean
    g = len(sums)
    return mean / (math.sqrt(sum(s * s for s in sums.values()) * g / (g - 1)) / len(values))


def test_it_is_the_definition(text):
    effects, f, rows = text
    levels = np.zeros(OUTPUTS)
    levels[3] = 1.0
    found = agreement(effects, f, levels, rows)
    dense = f.toarray()
    for out in (0, 1, 3):
        excess, on, held, kept = by_loops(effects, dense, rows, out, levels[out])
        assert found.rows[out] == len(on)
        assert found.mean[out] == pytest.approx(np.mean(excess), abs=1e-4)
        assert found.t[out] == pytest.approx(t_by_document(excess, rows, on), rel=1e-3)
        if len(kept) >= LEAST:
            assert found.held[out] == pytest.approx(np.mean(held), abs=1e-4)
            assert found.held_t[out] == pytest.approx(t_by_document(held, rows, kept), rel=1e-3)


def test_what_a_table_of_pairs_knows_goes_with_the_token_held(text):
    effects, f, rows = text
    found = agreement(effects, f, np.zeros(OUTPUTS), rows)
    assert found.t[0] > 4
    assert math.isnan(found.held_t[0])  # it is on at every occurrence of its word: nothing to compare with
    assert found.held_t[1] > 4
    assert found.t[2] < -4
    assert abs(found.t[3]) < 4
    assert found.rows[4] == 10
    assert math.isnan(found.t[4])
    figures = found.figures()
    assert figures["outputs"] == 5
    assert figures["disagree"] == pytest.approx(1 / 5)
    assert found.figures(np.zeros(OUTPUTS, bool))["agree"] is None


def test_the_null_is_what_other_outputs_favour_on_the_very_same_rows(text):
    effects, f, rows = text
    others = torch.randn(24, 8, generator=torch.Generator().manual_seed(2))
    more = replace(effects, directions=torch.cat([effects.directions, others]))
    wide = scipy.sparse.hstack([f, scipy.sparse.csr_matrix((ROWS, 24), dtype=np.float32)]).tocsr()
    found = agreement(more, wide, np.zeros(OUTPUTS + 24), rows)
    z = standardised(more.directions.double() @ more.readout.double()).numpy()
    for out in (1, 3):
        on = np.flatnonzero(f.toarray()[:, out] > 0)
        excess = [z[k][rows.target[on]] - z[k][rows.target].mean() for k in range(len(z)) if k != out]
        assert found.null[out] == pytest.approx(
            np.quantile([t_by_document(e, rows, on) for e in excess], 0.95), rel=1e-3
        )
    assert found.t[1] > found.null[1] > found.t[3]
    assert np.isnan(agreement(effects, f, np.zeros(OUTPUTS), rows).null).all(), "five others are too few"


def test_rows_without_a_next_token_do_not_count(text):
    effects, f, rows = text
    some = replace(rows, target=np.where(np.arange(ROWS) % 2, rows.target, -1))
    half = agreement(effects, f, np.zeros(OUTPUTS), some)
    there = Rows(rows.token[1::2], rows.before[1::2], rows.target[1::2], rows.document[1::2])
    alone = agreement(effects, f[1::2], np.zeros(OUTPUTS), there)
    assert np.array_equal(half.t, alone.t, equal_nan=True)
    with pytest.raises(DataError, match="there is none"):
        agreement(effects, f, np.zeros(OUTPUTS), replace(rows, target=np.full(ROWS, -1)))
    with pytest.raises(DataError, match="4000 rows, 2000 positions"):
        agreement(effects, f, np.zeros(OUTPUTS), there)


def test_one_document_gives_no_t(text):
    effects, f, rows = text
    found = agreement(effects, f, np.zeros(OUTPUTS), replace(rows, document=np.zeros(ROWS, np.int64)))
    assert np.isnan(found.t).all()
    assert np.isfinite(found.mean[:4]).all()


def test_blocks_of_features_are_what_the_whole_is(text, monkeypatch):
    effects, f, rows = text
    whole = agreement(effects, f, np.zeros(OUTPUTS), rows)
    monkeypatch.setattr("gatelens.gates.logit_effects.BLOCK", 2)
    parts = agreement(effects, f, np.zeros(OUTPUTS), rows)
    assert np.allclose(whole.t, parts.t, equal_nan=True, rtol=1e-4)


def test_effects_of_a_classifier_are_over_classes(digits):
    """The last hidden layer of a plain network: a neuron favours the classes that its weights raise; earlier layers have no way."""
    model, _, held_out = digits
    acts = gl.collect(model, held_out, ["hook_post.1", "hook_post.2"])
    effects = logit_effects(model, "hook_post.2", torch.eye(24))
    assert effects.over == "classes"
    weights = model.layers[-1].weight.detach()
    assert torch.equal(effects.favoured(5, 1)[0], weights[:, 5].argmax())
    assert torch.allclose(effects.of(5), standardised(weights[:, 5][None])[0])
    assert logit_effects(model, "hook_post.1", torch.eye(24)) is None
    f = scipy.sparse.csr_matrix(acts["hook_post.2"].numpy())
    strong = np.quantile(f.toarray(), 0.75, axis=0)  # nearly every neuron is on for nearly every image
    found = agreement(effects, f, strong, Rows.of(acts))
    assert np.isnan(found.held).all()
    assert np.nanmean(found.mean) > 0.3  # what a trained network's last neurons favour is mostly right


def test_what_comes_next_is_read_from_the_rows_of_a_text():
    """Two texts; the second has a gap, as where a position is left out."""
    where = ([0, 0, 0, 1, 1, 1], [1, 2, 3, 1, 2, 4], [10, 11, 12, 20, 21, 22])
    acts = gl.Activations({}, *(torch.tensor(v) for v in where))
    rows = Rows.of(acts)
    assert rows.target.tolist() == [11, 12, -1, 21, -1, -1]
    assert rows.before.tolist() == [-1, 10, 11, -1, 20, -1]
    images = Rows.of(gl.Activations({}, torch.arange(2), torch.zeros(2, dtype=torch.long), torch.tensor([7, 3])))
    assert images.target.tolist() == [7, 3]
    assert images.token.tolist() == [0, 0]


def test_effects_of_a_transformer_hold_the_final_gain():
    class Model:
        W_U = torch.tensor([[1.0, 0.0, 2.0], [0.0, 1.0, 0.0]])
        ln_final = type("Norm", (), {"w": torch.tensor([1.0, 3.0])})()

    effects = logit_effects(Model(), "blocks.0.hook_mlp_out", torch.tensor([[1.0, 1.0]]))
    assert effects.over == "tokens"
    assert torch.allclose(effects.of(0), standardised(torch.tensor([[1.0, 3.0, 2.0]]))[0])
    assert logit_effects(Model(), "blocks.0.hook_resid_mid", torch.eye(2)) is None
    assert logit_effects(Model(), "blocks.0.hook_mlp_out", torch.eye(3)) is None


def test_shuffled_by_row_keeps_every_input_dimension():
    generator = torch.Generator().manual_seed(0)
    W_in, W_gate, W_out = (torch.randn(a, b, generator=generator) for a, b in ((6, 20), (6, 20), (20, 5)))
    W_in[2] *= 100
    mlp = MLPWeights(W_in, torch.zeros(20), W_out, None, "silu", W_gate)
    segment = Segment("in", "out", mlp, 6, 5, mlp)
    null = shuffled_segment(segment)
    for name in ("W_in", "W_gate", "W_out"):
        a, b = getattr(mlp, name), getattr(null.mlp, name)
        assert not torch.equal(a, b)
        assert torch.equal(a.sort(1).values, b.sort(1).values)
    whole = shuffled_segment(segment, by_row=False).mlp
    assert torch.equal(W_in.flatten().sort().values, whole.W_in.flatten().sort().values)
    assert whole.W_in[2].norm() < 0.9 * W_in[2].norm()
    x = torch.randn(3, 6, generator=generator)
    assert torch.equal(null.forward(x), null.mlp(x))
    assert torch.equal(shuffled_segment(segment, 0).mlp.W_in, null.mlp.W_in)
    assert not torch.equal(shuffled_segment(segment, 1).mlp.W_in, null.mlp.W_in)
    with pytest.raises(SegmentError, match="no MLP weights"):
        shuffled_segment(replace(segment, mlp=None))


def test_effects_of_outputs_are_sentences(text):
    effects, f, rows = text
    found = output_effects(effects, f, np.zeros(OUTPUTS), replace(rows, before=np.where(rows.token == 2, 9, 1)))
    first = found[0]
    assert list(first.favoured) == effects.favoured(0).tolist()
    assert 3 in first.favoured
    assert (first.at, first.after) == ((2,), (9,))
    assert first.agrees
    assert first.held_t is None
    names = [f"w{i}" for i in range(WORDS)]
    assert first.sentence(names.__getitem__).startswith(f"w2 (after w9) -> w{first.favoured[0]}, ")
    assert found[1].at == ()  # a state that no token tells
    assert found[1].sentence(names.__getitem__, "IF_1").startswith("IF_1 -> w")
    shares = favourites(found)
    whole = agreement(effects, f, np.zeros(OUTPUTS), rows).figures()
    assert shares == {name: whole[name] for name in shares}
    assert favourites([None])["agree"] is None


def test_gates_say_what_their_outputs_favour(digits, tmp_path):
    """A circuit of the last hidden layer: classes; of the one before: nothing, no linear way leads from there. Both are kept."""
    model, fit, held_out = digits
    segments = gl.mlp_segments(model)
    acts, unseen = (gl.collect(model, part, segments) for part in (fit, held_out))
    bases = gl.Neurons().fit(segments, acts)
    circuit = build_circuit(model, segments, bases, acts, gl.GramLasso(mean_edges=4), held_out=unseen)
    last, first = (circuit.gates[segments[i].name] for i in (-1, 0))
    assert all(g.effect is None for g in first)
    judged = [g.effect for g in last if g.effect.t is not None]
    assert judged
    assert all(e.over == "classes" and e.at == () and len(e.favoured) == 5 for e in judged)
    weights = model.layers[-1].weight.detach()
    assert all(g.effect.favoured[0] == int(weights[:, g.out].argmax()) for g in last)
    circuit.save(tmp_path / "circuit")
    kept = gl.Circuit.load(tmp_path / "circuit").gates[segments[-1].name]
    assert [g.effect for g in kept] == [g.effect for g in last]
    summary = gate_summary(last)
    assert summary["agreement"]["outputs"] == len(judged)
    assert gate_summary(first)["agreement"] is None
