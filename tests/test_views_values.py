"""What values show in a notebook, comparison of circuits, figures, and exports against their schemas."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from jsonschema import Draft7Validator
from tests.support.pages import HOOK_IN, HOOK_OUT, planted
from tests.test_views import Elements

from gatelens import image_batches, views
from gatelens.basis.linear import Rotation
from gatelens.connectors import Connector
from gatelens.errors import DataError
from gatelens.gates import GateKind
from gatelens.solvers import SgdL1
from gatelens.views import export, figures, matrix, steps
from gatelens.views.contexts import FeatureRows, Windows
from gatelens.views.document import NOTEBOOK_LIMIT
from gatelens.views.wires import Wires
from support.gates import ruled


@pytest.fixture(scope="module")
def made():
    return planted([f" w{i}" for i in range(50)] + ["</script><b>"], outputs=12, inputs=16)


def values(made):
    circuit = made.circuit
    rotation = Rotation(torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(0)))[0])
    return {
        "Circuit": circuit,
        "Gate": circuit.gate(1),
        "Connector": circuit.connectors[circuit.segments[0].name],
        "Rotation": rotation,
    }


@pytest.mark.parametrize("name", ["Circuit", "Gate", "Connector", "Rotation"])
def test_values_show_themselves_small_and_without_scripts(made, name):
    text = values(made)[name]._repr_html_()
    seen = Elements(text)
    assert len(text.encode()) < NOTEBOOK_LIMIT
    assert seen.names.count("script") == 1, "the few lines that make a shadow root"
    assert all((v or "").startswith(("#", "data:")) for n, v in seen.attributes if n in ("src", "href"))
    assert text.startswith('<div class="gl-host"><div class="gl light nb">')
    body = text.split("<script>", 1)[0]
    assert '<svg class="gp' not in body, "drawings are pictures, which notebooks that are not trusted keep"
    assert not {"style", "template", "iframe"} & {*Elements(body).names}
    assert all(value for name, value in seen.attributes if name == "alt"), "each picture in words"


def test_a_wide_connector_falls_back_to_its_printed_form():
    weight = torch.ones(300, 300) * torch.linspace(0.5, 1, 300)
    shown = Connector.from_dense(weight, torch.zeros(300))._repr_html_()
    assert len(shown.encode()) < NOTEBOOK_LIMIT


def test_the_report_shows_its_sentence_and_tables():
    from gatelens.evaluation import Report
    from gatelens.evaluation.rule_counts import gate_summary

    report = Report(
        model={"name": "m", "metric": "accuracy", "clean": 0.9, "ablated": 0.1},
        bases={"a": {"kind": "<b>", "features": 5, "fvu": 0.25, "l0": None, "dead": 0, "spliced": 0.8, "bypassed": 3}},
        connectors={
            "a -> b": {"edges": 7, "median_r2": 0.5, "fvu": None, "max_fan_in": 2, "replaced": 0.7, "gap_closed": 0.75}
        },
        all_replaced={"accuracy": 0.7},
        gates={
            "a -> b": gate_summary(
                [ruled(o, (0,), firings=80, mcc=0.9, grade="verified" if o else "holds") for o in range(4)]
            )
        },
        baselines={
            "shuffled": {
                "edges": 7,
                "median_r2": 0.0,
                "replaced": 0.2,
                "logic": 0,
                "verified": 0,
                "outputs": 4,
            }
        },
    )
    text = "".join(Elements(report._repr_html_()).text)
    for part in (
        "7 wires and a linear map of 3 inputs past them",
        "4 of 4 output features that fire often obey a rule",
        "<b>",
        "0.250",
        "0.700",
        "this circuit",
        "shuffled",
        "0.200",
    ):
        assert part in text


def test_compare_tells_each_wire_its_fate(made):
    circuit = made.circuit
    name = circuit.segments[0].name
    old = circuit.connectors[name]
    weight = old.weight.to_dense().clone()
    rows = [weight[o].nonzero().flatten().tolist() for o in range(4)]
    weight[0, rows[0][0]] *= 1.1  # kept: within a quarter
    weight[1, rows[1][0]] *= 3.0  # reweighted
    weight[2, rows[2][0]] = 0.0  # lost
    weight[3, next(i for i in range(16) if i not in rows[3])] = 0.5  # new
    gates = [replace(g, kind=GateKind.ADDER) if g.out == 3 else g for g in circuit.gates[name]]
    other = replace(circuit, connectors={name: Connector.from_dense(weight, old.bias)}, gates={name: gates})
    text = " ".join("".join(Elements(views.compare(circuit, other, names=("a", "</script>")).text).text).split())
    assert (
        f"Of the {old.wires} wires into them, {old.wires - 2} were kept, 1 changed weight and 1 were lost; 1 are new. 1 gate changed kind."
        in text
    )
    assert "with inputs matched at random" in text


def test_compare_follows_features_that_were_shuffled(made):
    """Permuting input and output features, with everything that names them, changes nothing."""
    circuit = made.circuit
    segment = circuit.segments[0]
    g = torch.Generator().manual_seed(1)
    p_in, p_out = torch.randperm(segment.d_in, generator=g), torch.randperm(segment.d_out, generator=g)
    old = circuit.connectors[segment.name]
    shuffled = Connector.from_dense(old.weight.to_dense()[p_out][:, p_in], old.bias[p_out])
    bases = {
        segment.hook_in: Rotation(torch.eye(segment.d_in)[p_in]),
        segment.hook_out: Rotation(torch.eye(segment.d_out)[p_out]),
    }
    where = {int(o): i for i, o in enumerate(p_out)}
    gates = [replace(gate, out=where[gate.out]) for gate in circuit.gates[segment.name]]
    other = replace(circuit, bases=bases, connectors={segment.name: shuffled}, gates={segment.name: gates})
    assert "Nothing changed." in views.compare(circuit, other).text


def test_wires_are_ordered_by_size_and_counted_at_each_threshold():
    wires = Wires.of([[0.0, -3.0], [1.0, 2.0]])
    assert wires.weight.tolist() == [-3.0, 2.0, 1.0]
    left = matrix._left(wires)
    assert (left[0], left[-1]) == ((0.0, 3), (3.0, 1))
    assert dict(left)[1.5] == 2


def test_the_map_says_how_many_wires_its_outputs_take():
    text = str(matrix.layer_map(np.ones((20, 20)), [3, 4]))
    assert "400 wires between 20 input features and 20 output features; 40 of them lead into 2 outputs" in text
    assert "no wires" in str(matrix.layer_map(np.zeros((2, 2))))


def data_of(text: str, name: str):
    found = next(v for n, v in Elements(text).attributes if n == name)
    return json.loads(found)


def test_the_matrix_holds_its_cells_as_data_unless_it_is_full():
    weight = np.zeros((3, 4))
    weight[0, 2], weight[2, 2], weight[2, 0] = 1.5, -2.0, 0.25
    data = data_of(str(matrix.layer_map(weight, [2, 0])), "data-matrix")
    assert (data["outs"], data["ins"], data["top"]) == ([2, 0], [2, 0], 2.0)
    cells = np.array(data["cells"]).reshape(-1, 3)
    shown = {(data["outs"][int(r)], data["ins"][int(c)]): w for r, c, w in cells}
    assert shown == {(0, 2): 1.5, (2, 2): -2.0, (2, 0): 0.25}
    full = str(matrix.layer_map(np.ones((90, 90))))
    assert "data-matrix" not in full
    assert 'class="bar-tools order"' not in full, "what cannot be ordered offers no order"


def test_a_trace_is_counted_whole_and_cut_to_the_features_of_the_map():
    end = np.array([[1.0, 0.0, 0.0], [0.0, 0.0, -1.0]])
    begin = np.array([[0.5, 0.25, 0.0], [0.0, 0.0, 0.75]])  # the wire from input 1 is lost on the way
    text = str(matrix.layer_map(end, trace=[begin, end]))
    first, second = data_of(text, "data-steps")
    assert first == {"step": 1, "all": 3, "here": 2, "cells": [1, 2, 0.75, 0, 0, 0.5]}
    assert (second["all"], second["here"]) == (2, 2)
    assert "2 steps of the fit were recorded; shown at first is the finished circuit" in text
    with pytest.raises(DataError, match=r"step 0 of the trace is of shape \[1, 3\].*\[2, 3\]"):
        matrix.layer_map(end, trace=[begin[:1]])
    with pytest.raises(DataError, match="mapping segment name -> steps"):
        steps.trace_for([begin], "a -> b", 2)


def test_the_trace_of_a_fit_ends_at_the_fit_and_goes_into_a_page(made):
    f_in, f_out = made.acts[HOOK_IN], made.acts[HOOK_OUT]
    solver = SgdL1(epochs=3, mean_wires=3, lr=1e-2)
    trace, fitted = solver.trace(f_in, f_out), solver.fit(f_in, f_out)
    assert len(trace) == 4
    torch.testing.assert_close(trace[-1].weight.to_dense(), fitted.weight.to_dense())
    assert all(c.wires == fitted.wires for c in trace)
    circuit = replace(made.circuit, connectors={made.circuit.segments[0].name: fitted})
    text = views.page(circuit, made.acts, tokenizer=made.tokenizer, trace=trace).text
    assert len(data_of(text, "data-steps")) == 4


def test_heat_maps_share_a_scale_and_rescaling_wins_nothing():
    a = np.array([[1.0, 0.0], [0.0, 1.0]])
    text = str(figures.heat_maps({"before": a, "after": 0.01 * a}))
    rows = [line.partition("<table>")[2] for line in text.splitlines() if "<table>" in line]
    assert "50" in rows[0], "two entries of four are not zero"
    assert rows[0] == rows[1]
    assert "1 not finite" in str(figures.heat_maps({"x": [[float("nan"), 1.0]]}))


def test_circuit_json_is_whole_and_valid(made):
    value = json.loads(export.dump(made.circuit.to_json()))
    assert made.circuit.to_json() == views.circuit_json(made.circuit)
    Draft7Validator(views.schema("circuit")).validate(value)
    segment = made.circuit.segments[0]
    dense = torch.zeros(segment.d_out, segment.d_in)
    for out, into, weight in value["segments"][0]["connector"]["wires"]:
        dense[out, into] = weight
    torch.testing.assert_close(dense, made.circuit.connectors[segment.name].weight.to_dense())
    broken = json.loads(export.dump(value))
    broken["segments"][0]["gates"][0]["kind"] = "nand"
    assert not Draft7Validator(views.schema("circuit")).is_valid(broken)


def test_logit_effects_go_into_the_feature_file_where_the_unembedding_reads(made):
    class Model:
        W_U = torch.randn(12, 51, generator=torch.Generator().manual_seed(0))

    rows, windows = FeatureRows.of(made.acts[HOOK_OUT]), Windows(made.acts, made.tokenizer)
    basis = made.circuit.bases[HOOK_OUT]
    found = views.feature_examples(rows, 3, windows, model=Model(), hook=HOOK_OUT, basis=basis)
    order = Model.W_U[3].argsort(descending=True).tolist()  # the basis is the identity
    assert found["top_logits"] == [made.tokenizer.decode([i]) for i in order[:10]]
    assert found["bottom_logits"] == [made.tokenizer.decode([i]) for i in order[::-1][:10]]
    Draft7Validator(views.schema("feature_examples")).validate(found)
    elsewhere = views.feature_examples(rows, 3, windows, model=Model(), hook=HOOK_IN, basis=basis)
    assert elsewhere["top_logits"] == [], "not what the unembedding reads"


def test_exports_for_others_are_valid_and_say_what_is_there(made):
    rows, windows = FeatureRows.of(made.acts[HOOK_IN]), Windows(made.acts, made.tokenizer)
    examples = views.feature_examples(rows, 2, windows)
    Draft7Validator(views.schema("feature_examples")).validate(examples)
    assert examples["act_max"] == pytest.approx(float(made.acts[HOOK_IN][:, 2].max()))
    gate = next(g for g in made.circuit.gates[made.circuit.segments[0].name] if g.kind == GateKind.OR)
    row = int((made.acts[HOOK_IN][:, gate.inputs[0]] > 0).nonzero()[20])
    graph = views.attribution_graph(made.circuit, gate, row, rows, windows)
    Draft7Validator(views.schema("attribution_graph")).validate(graph)
    first = next(link for link in graph["links"] if link["source"].split("_")[1] == str(gate.inputs[0]))
    assert first["weight"] == pytest.approx(gate.weights[0] * float(made.acts[HOOK_IN][row, gate.inputs[0]]))
    assert "".join(graph["metadata"]["prompt_tokens"]) == graph["metadata"]["prompt"]
    from_their_classes(graph)
    with pytest.raises(DataError, match="letters, digits"):
        views.attribution_graph(made.circuit, gate, row, rows, windows, slug="../up")
    with pytest.raises(DataError, match="did you mean 'circuit'"):
        views.schema("circiut")


def from_their_classes(graph: dict) -> None:
    """The graph is read by models with the fields of circuit-tracer 0.5.0's (frontend/graph_models), none guessed."""
    from pydantic import BaseModel

    class Metadata(BaseModel):
        slug: str
        scan: str
        transcoder_list: list[str]
        prompt_tokens: list[str]
        prompt: str
        node_threshold: float | None = None
        schema_version: int | None = 1

    class QParams(BaseModel):
        pinnedIds: list[str]
        supernodes: list[list[str]]
        linkType: str
        clickedId: str
        sg_pos: str

    class Node(BaseModel):
        node_id: str
        feature: int
        layer: str
        ctx_idx: int
        feature_type: str
        jsNodeId: str
        clerp: str = ""
        influence: float | None = None
        activation: float | None = None

    class Model(BaseModel):
        metadata: Metadata
        qParams: QParams
        nodes: list[Node]
        links: list[dict]

    read = Model(**graph)
    assert {"prompt", "prompt_tokens", "scan", "slug"} <= set(graph["metadata"]), (
        "asked by neuronpedia 1.2.1 of an upload"
    )
    places = {n.node_id: n for n in read.nodes}
    assert all(link["source"] in places and link["target"] in places for link in read.links)
    for n in read.nodes:
        if n.layer == "E":
            assert (n.feature, n.jsNodeId) == (n.ctx_idx, f"{n.node_id.rpartition('_')[0]}-{n.ctx_idx}")
        else:
            layer, feature, _ = map(int, n.node_id.split("_"))
            assert (n.feature, n.jsNodeId) == (export.cantor(layer, feature), f"{layer}_{feature}-0")


def test_examples_mark_their_own_token_and_repeated_texts(made):
    rows, windows = FeatureRows.of(made.acts[HOOK_IN]), Windows(made.acts, made.tokenizer)
    found = views.feature_examples(rows, 2, windows)
    for group in found["examples_quantiles"]:
        texts = [tuple(e["tokens"]) for e in group["examples"]]
        for k, example in enumerate(group["examples"]):
            assert example["tokens_acts_list"][example["train_token_ind"]] > 0
            assert example["is_repeated_datapoint"] == (texts[k] in texts[:k])


def test_a_circuit_and_a_report_are_tables(made):
    table = made.circuit.to_dataframe()
    gates = made.circuit.gates[made.circuit.segments[0].name]
    assert len(table) == len(gates)
    for gate, row in zip(gates, table.to_dict("records"), strict=True):
        assert (row["out"], row["kind"], row["inputs"]) == (gate.out, str(gate.kind), list(gate.inputs))
        assert row["mcc"] == pytest.approx(gate.mcc)
    from gatelens.evaluation import Report

    report = Report(model={"name": "m", "metric": "ce", "clean": 3.0, "ablated": None}, bases={"a": {"fvu": 0.25}},
                    connectors={}, all_replaced={}, gates={}, baselines={})  # fmt: skip
    table = report.to_dataframe().set_index(["section", "figure"])["value"]
    assert table["bases", "a.fvu"] == 0.25
    assert table["model", "name"] == "m"


def test_pairing_is_one_to_one():
    pairs = {export.cantor(a, b) for a in range(30) for b in range(30)}
    assert len(pairs) == 900
    assert export.cantor(1, 2) == 8


def test_a_config_says_whether_token_panels_are_drawn(made, tmp_path, monkeypatch):
    from gatelens.evaluation import Report
    from gatelens.pipeline import finishing
    from gatelens.pipeline.config import check_config
    from gatelens.pipeline.running import state_of

    plain = {"name": "x", "model": {}, "data": {}, "bases": {"use": "Neurons"}}
    asked = []
    monkeypatch.setattr(
        views, "page", lambda *a, **k: asked.append(k["token_panels"]) or views.Html("page"), raising=False
    )
    for extra in ({}, {"views": {"token_panels": True}}):
        state = state_of(check_config(plain | extra), tmp_path)
        for name in ("circuit", "model"):
            state.__dict__[name] = None
        state.__dict__["acts"] = (None, None)
        state.source.__dict__["batches"] = image_batches("digits", rows=(20, 10))
        state.__dict__["recipes"] = {}
        finishing.draw(state, Report({}, {}, {}, {}, {}))
    assert asked == [False, True]
