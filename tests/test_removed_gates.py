"""evaluate: the first gates removed, the four rates beside their controls, and a model of which only the first blocks were loaded."""

from __future__ import annotations

import re
import statistics
from dataclasses import replace

import pytest
import torch

import gatelens as gl
from gatelens.evaluation.removal import removals
from gatelens.evaluation.removed_gates import first_gates
from gatelens.evaluation.rule_counts import gate_summary, rates_line, removal_line
from gatelens.gates import Grade
from gatelens.gates.effects import Effect
from gatelens.gates.stage import sparse_rows


@pytest.fixture(scope="module")
def read(digits):
    """A circuit of the digits network with gates, tried in the model."""
    model, fit, held_out = digits
    segments = gl.mlp_segments(model)[-1:]
    acts, unseen = (gl.collect(model, part, segments) for part in (fit, held_out))
    bases = {h: gl.Neurons().fit(segments, acts)[h] for s in segments for h in (s.hook_in, s.hook_out)}
    circuit = gl.build_circuit(model, segments, bases, acts, held_out=unseen, mcc_bar=0.3)
    return model, circuit, held_out, unseen


def test_the_first_gates_are_removed_and_stand_beside_another_direction(read):
    model, circuit, held_out, unseen = read
    (segment,) = circuit.segments
    gates = circuit.gates[segment.name]
    report = gl.evaluate(model, circuit, held_out, acts=unseen, removals=5, seed=3)
    found = report.gates[segment.name]["removal"]
    outs = [g.out for g in first_gates(gates, 5)]
    levels = torch.tensor([g.level for g in gates]).numpy()
    f = sparse_rows(unseen[segment.hook_out])
    alone = removals(model, segment.hook_out, torch.eye(f.shape[1]), f, levels, outs, held_out, seed=3)
    assert found["gates"] == len(alone) == 5
    assert found["own"] == pytest.approx(statistics.median(r.own for r in alone.values()))
    assert list(found["by_output"]) == [str(out) for out in alone]
    assert re.search(r"the first 5 gates removed.*another output's", repr(report))
    page = gl.views.page(circuit, unseen, report, batches=held_out, model=model).text
    assert "removed" in page
    assert "another direction" in page
    assert gl.evaluate(model, circuit, held_out, acts=unseen).gates[segment.name]["removal"] is None
    assert removal_line({"a": {"removal": None}}) == ""


def test_gates_are_ordered_by_grade_then_agreement(read):
    _, circuit, _, _ = read
    gate = next(g for g in circuit.gates[circuit.segments[0].name] if g.rule is not None)
    effect = Effect("tokens", (), (), (), 9, 0.1, 2.0)
    gates = [
        replace(gate, out=0, grade=Grade.WEAK, effect=replace(effect, t=50.0)),
        replace(gate, out=1, grade=Grade.HOLDS, effect=effect),
        replace(gate, out=2, grade=Grade.HOLDS, effect=replace(effect, t=7.0)),
        replace(gate, out=3, grade=Grade.VERIFIED, effect=None),
        replace(gate, out=4, rule=None),
    ]
    assert [g.out for g in first_gates(gates, 10)] == [3, 2, 1, 0]


def test_the_report_has_the_four_rates_beside_unrelated_features(read):
    _, circuit, _, _ = read
    (segment,) = circuit.segments
    gates = circuit.gates[segment.name]
    tried = [g.tried for g in gates if g.tried is not None]
    assert tried
    rates = gate_summary(gates)["rates"]
    for name in ("on_on", "off_off", "on_off", "off_on"):
        for which, where in (("rule", tried[0].rates), ("control", tried[0].control)):
            known = [v for t in tried if (v := (t.rates if where is tried[0].rates else t.control)[name]) is not None]
            assert rates[name][which] == (pytest.approx(statistics.fmean(known)) if known else None)
    assert f"as {len(tried):,} rules say" in rates_line({"a": gate_summary(gates) | {"tried": len(tried)}})
    gate = next(g for g in gates if g.tried is not None)
    card = gl.views.card(gate).text
    assert "one literal" in card
    words = {"on_on": "stays on", "off_off": "stays off", "on_off": "switches off", "off_on": "switches on"}
    for name, rate in gate.tried.rates.items():
        assert (words[name] in card) is (rate is not None)


def test_a_model_that_ends_early_gives_nulls_with_their_reason(data_folder):
    model = gl.load_model(str(data_folder / "models" / "gpt2-mini"), first_layers=2)
    text = str(data_folder / "text" / "lambada_test.txt")
    fit, held = gl.text_batches(model, text, rows=(12, 6), length=24, seed=0)
    segments = gl.mlp_segments(model, layers=[1])
    acts = gl.collect(model, fit, segments)
    circuit = gl.build_circuit(model, segments, gl.Neurons().fit(segments, acts), acts, gates=False)
    report = gl.evaluate(model, circuit, held, removals=3)
    assert report.model["clean"] is report.model["ablated"] is None
    assert "first_layers=2" in report.model["missing"]
    assert set(report.all_replaced.values()) == {None}
    (connector,) = report.connectors.values()
    assert connector["replaced"] is connector["gap_closed"] is None
    assert connector["median_r2"] is not None
    assert "first_layers=2" in repr(report)


def test_removals_read_the_tokens_that_predictions_are_measured_on(read):
    """Not all held-out rows, of which there are more."""
    _, known, _, _ = read
    gate = next(g for g in known.gates[known.segments[0].name] if g.rule is not None)
    model = gl.load_model("gpt2-mini")
    fit, held = gl.text_batches(model, "gpt2-mini-sample", rows=(12, 8), length=24, seed=0)
    segments = gl.mlp_segments(model, layers=[3])
    acts = gl.collect(model, fit, segments)
    circuit = gl.build_circuit(model, segments, gl.Neurons().fit(segments, acts), acts, gates=False)
    circuit = replace(circuit, gates={segments[0].name: [replace(gate, out=i, level=0.0) for i in range(3)]})
    report = gl.evaluate(model, circuit, held, removals=2, tokens=held.rows // 2)
    assert report.model["tokens"] < held.rows
    assert report.gates[segments[0].name]["removal"]["gates"] == 2
