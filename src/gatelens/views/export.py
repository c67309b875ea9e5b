"""Export: a circuit as JSON of our own schema, and, lossy, the files that Neuronpedia and circuit-tracer read.

Our own JSON is whole. The feature-example file and the attribution graph follow what those projects publish: the classes of
circuit-tracer 0.5.0's frontend, and the feature files that it and Neuronpedia read;
a graph there is of one prompt, a circuit of ours of a whole corpus, so a graph holds one gate in one context. Experimental.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import torch

from .. import __version__
from ..basis.linear import basis_kind, directions
from ..circuits import Circuit
from ..connectors import Connector
from ..data.told import unembedding
from ..errors import DataError, unknown
from ..gates import Gate
from ..gates.saving import gate_to_dict
from .contexts import FeatureRows, Windows, groups, histogram
from .document import finite
from .logits import readout_of
from .wires import Wires

#: version of the schema of `circuit_json`
SCHEMA_VERSION = 1
#: tokens at either end of a feature's logit effects, in a feature-example file
LOGITS = 10
SCHEMAS = ("circuit", "feature_examples", "attribution_graph")


@cache
def schema(name: str) -> dict[str, Any]:
    """A draft-07 JSON schema: "circuit" (ours), "feature_examples" or "attribution_graph" (theirs, written from their field lists)."""
    if name not in SCHEMAS:
        raise DataError(unknown("schema", name, list(SCHEMAS)))
    file = resources.files("gatelens.views").joinpath("schemas").joinpath(f"{name}.schema.json")
    return json.loads(file.read_text("utf-8"))


def circuit_json(circuit: Circuit) -> dict[str, Any]:
    """A circuit as plain JSON: wires as lists of [out, in, weight], gates with their tables and figures. Bases are described, not held."""
    return finite(
        {
            "schema_version": SCHEMA_VERSION,
            "generator": {"name": "gatelens", "version": __version__},
            "info": dict(circuit.info),
            "bases": {
                hook: {"kind": type(basis).__name__, "label": basis_kind(basis)}
                for hook, basis in circuit.bases.items()
            },
            "segments": [_segment(circuit, s) for s in circuit.segments],
        }
    )


def _segment(circuit: Any, segment: Any) -> dict[str, Any]:
    connector = circuit.connectors.get(segment.name)
    return {
        "name": segment.name,
        "hook_in": segment.hook_in,
        "hook_out": segment.hook_out,
        "connector": None if connector is None else _connector(connector),
        "gates": [gate_to_dict(g) for g in circuit.gates.get(segment.name, [])],
    }


def _connector(connector: Any) -> dict[str, Any]:
    wires = Wires.of(connector)
    sides = [_connector(side) for side in connector.sides] if len(connector.sides) > 1 else []
    return ({"sides": sides} if sides else {}) | {
        "outputs": wires.outputs,
        "inputs": wires.inputs,
        "solver": connector.solver,
        "activation": connector.activation,
        "wires": [
            [o, i, w] for o, i, w in zip(wires.out.tolist(), wires.into.tolist(), wires.weight.tolist(), strict=True)
        ],
        "bias": connector.bias.tolist(),
        "threshold": None if connector.threshold is None else connector.threshold.tolist(),
    }


def feature_examples(
    features: FeatureRows,
    feature: int,
    windows: Windows,
    top: int = 20,
    each: int = 5,
    model: Any = None,
    hook: str = "",
    basis: Any = None,
) -> dict[str, Any]:
    """A feature's examples as circuit-tracer's frontend reads them: groups of token windows with values, a histogram.

    Args:
        features, windows: values and contexts over the same rows.
        top, each: examples of the strongest group, and of each interval.
        model, hook, basis: for the tokens that the feature raises and lowers most, straight through the unembedding;
            these lists are empty without them, and at a hook point that the unembedding does not read.
    """
    up, down = _logits(model, hook, basis, feature, windows)
    _, values = features.on(feature)
    counts, largest = histogram(values)
    return finite(
        {
            "index": int(feature),
            "examples_quantiles": [
                {"quantile_name": g.name, "examples": _examples(windows, features, feature, g.rows)}
                for g in groups(features, feature, top, each, windows.marks())
            ],
            "top_logits": up,
            "bottom_logits": down,
            "act_min": 0.0,
            "act_max": largest,
            "quantile_values": [float(q) for q in np.quantile(values, np.linspace(0, 1, 11))] if len(values) else [],
            "histogram": counts.tolist(),
            "activation_frequency": len(values) / max(features.rows, 1),
        }
    )


def _logits(model: Any, hook: str, basis: Any, feature: int, windows: Windows) -> tuple[list[str], list[str]]:
    matrix = unembedding(model)
    if matrix is None or basis is None:
        return [], []
    width = matrix.shape[0]
    readout = readout_of(model, hook, width, windows.tokenizer)
    if readout is None:
        return [], []
    up, down = readout.ends(directions(basis, width)[feature], LOGITS)
    return [windows.text(i) for i, _ in up], [windows.text(i) for i, _ in down]


def _examples(windows: Windows, features: FeatureRows, feature: int, rows: np.ndarray) -> list[dict[str, Any]]:
    """Windows with the place of their own token, and whether the same text stood there before."""
    found, seen = [], set()
    for row in rows:
        shown = windows.window(int(row), features, feature)
        tokens = [t.text for t in shown]
        found.append(
            {
                "tokens": tokens,
                "tokens_acts_list": [float(t.value) for t in shown],
                "train_token_ind": next((k for k, t in enumerate(shown) if t.centre), 0),
                "is_repeated_datapoint": tuple(tokens) in seen,
            }
        )
        seen.add(tuple(tokens))
    return found


def _product(gate: Gate, values: dict[int, float]) -> float:
    """The value of a product of two sums where its inputs have these values."""
    first, second = (
        sum(w * values.get(i, 0.0) for i, w in zip(*wires, strict=True)) + bias for *wires, bias in gate.sums
    )
    return float(Connector.activate(torch.tensor([[first]]), None, gate.activation)) * second


def attribution_graph(
    circuit: Circuit,
    gate: Gate,
    row: int,
    f_in: FeatureRows,
    windows: Windows,
    slug: str = "gate",
    scan: str = "gatelens",
    segment: str | None = None,
) -> dict[str, Any]:
    """One gate in one context as an attribution graph: its inputs that are on, the output, and the tokens of the window.

    A link's weight is weight times the input's value there: what the wire adds. The output's value is the equation's.
    Lossy: everything else of the circuit is left out, and the tokens carry no links, for none was measured. Experimental.

    Raises:
        DataError: a slug or scan with other characters than letters, digits, `_`, `.` and `-`.
    """
    for what, text in (("slug", slug), ("scan", scan)):
        if not re.fullmatch(r"[A-Za-z0-9_.-]+", text):
            raise DataError(f"a graph's {what} may hold letters, digits, '_', '.' and '-' only; got {text!r}")
    part = circuit.segment(segment)
    layer = _layer(part.hook_in)
    rows = windows.rows(row)
    tokens = [windows.text(int(windows.token[r])) for r in rows]
    place = rows.index(row)
    values = {i: float(f_in.value(i, [row])[0]) for i in gate.inputs}
    ends = [(i, w * values[i]) for i, w in zip(gate.inputs, gate.weights, strict=True) if values[i] > 0]
    out_id = f"{layer + 1}_{gate.out}_{place}"
    into = [
        _node(f"{layer}_{i}_{place}", layer, i, place, "cross layer transcoder", f"IF_{i}", values[i]) for i, _ in ends
    ]
    total = _product(gate, values) if gate.sums else max(sum(added for _, added in ends) + gate.bias, 0.0)
    nodes = [
        *(
            _node(f"E_{int(windows.token[r])}_{p}", 0, int(windows.token[r]), p, "embedding", tokens[p], None, kind="E")
            for p, r in enumerate(rows)
        ),
        *into,
        _node(out_id, layer + 1, gate.out, place, "cross layer transcoder", f"OF_{gate.out}: {gate.kind}", total),
    ]
    links = [{"source": f"{layer}_{i}_{place}", "target": out_id, "weight": added} for i, added in ends]
    return finite(
        {
            "metadata": {
                "slug": slug,
                "scan": scan,
                "transcoder_list": [_dictionary(circuit, part.hook_in), _dictionary(circuit, part.hook_out)],
                "prompt_tokens": tokens,
                "prompt": "".join(tokens),
                "schema_version": 1,
                "info": {"generator": {"name": "gatelens", "version": __version__}},
            },
            "qParams": {"pinnedIds": [out_id], "supernodes": [], "linkType": "both", "clickedId": out_id, "sg_pos": ""},
            "nodes": nodes,
            "links": links,
        }
    )


def _dictionary(circuit: Any, hook: str) -> str:
    """Which dictionary stands at a hook point."""
    return f"{hook}: {basis_kind(circuit.bases[hook])}"


def _layer(hook: str) -> int:
    found = re.search(r"\.(\d+)", hook)
    return 2 * int(found[1]) if found else 0


def _node(
    node_id: str, layer: int, index: int, place: int, kind_name: str, clerp: str, value: float | None, kind: str = ""
) -> dict[str, Any]:
    return {
        "node_id": node_id,
        "feature": place if kind == "E" else cantor(layer, index),
        "layer": "E" if kind == "E" else str(layer),
        "ctx_idx": place,
        "feature_type": kind_name,
        "token_prob": 0.0,
        "is_target_logit": False,
        "run_idx": 0,
        "reverse_ctx_idx": 0,
        "jsNodeId": f"E_{index}-{place}" if kind == "E" else f"{layer}_{index}-0",
        "clerp": clerp,
        "activation": value,
    }


def cantor(a: int, b: int) -> int:
    """Cantor's pairing of two counts, by which graph files of schema version 1 name a feature of a layer."""
    return (a + b) * (a + b + 1) // 2 + b


def dump(value: Mapping[str, Any] | Sequence[Any]) -> str:
    """JSON text without NaN."""
    return json.dumps(value, allow_nan=False, ensure_ascii=False, indent=1)
