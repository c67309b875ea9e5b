"""The card of a shared circuit: what it is, what was measured beside which nulls, how to load it."""

from __future__ import annotations

import json

from ..circuits import Circuit
from ..evaluation.report import Report

_HEAD = """---
library_name: gatelens
tags: [gatelens, interpretability, transformer-lens, circuits]
---

# {repo}

A circuit read by [GateLens](https://github.com/gatelens/gatelens): sparse wires between the features at two hook points of a model,
and the rule that each output feature obeys.

```python
import gatelens as gl

model = ...                      # {model}
circuit = gl.Circuit.from_pretrained("{repo}")
print(circuit)
circuit.on(model, "a prompt")    # refused on a model of other weights
```

Safetensors and JSON alone; every file's hash is checked when it is loaded.
"""


def card(circuit: Circuit, report: Report | None, repo: str) -> str:
    """Markdown with the front matter that the hub reads."""
    model = f"the model it was made from: {circuit.info.get('model', 'not recorded')}"
    if weights := circuit.info.get("weights"):
        model += f", weights {weights}"
    parts = [
        _HEAD.format(repo=repo, model=model),
        "## What is in it",
        *_segments(circuit),
        *_measured(report),
        *_made(circuit),
    ]
    return "\n\n".join(parts) + "\n"


def _segments(circuit: Circuit) -> list[str]:
    rows = ["| segment | wires | outputs that obey a rule | verified in the model |", "|---|---|---|---|"]
    for segment in circuit.segments:
        gates = circuit.gates.get(segment.name, [])
        connector = circuit.connectors.get(segment.name)
        wires = f"{connector.wires:,}" if connector is not None else "none"
        rows.append(
            f"| `{segment.name}` | {wires} | {sum(g.read for g in gates):,} of {len(gates):,} | "
            f"{sum(g.verified is True for g in gates):,} |"
        )
    return ["\n".join(rows)]


def _measured(report: Report | None) -> list[str]:
    if report is None:
        return [
            "## What was measured",
            "No report came with this circuit: how well it describes the model is not known here.",
        ]
    return [
        "## What was measured",
        "On held-out rows, beside nulls; whole in `report.json`.",
        f"```\n{report}\n```",
        "A rule that holds on data is not yet one that the model uses: `verified` gates alone were tried by setting their inputs in "
        "the model. Where a table of tokens does as well, a rule may be no more than that table.",
    ]


def _made(circuit: Circuit) -> list[str]:
    if not circuit.info:
        return []
    return ["## How it was made", f"```json\n{json.dumps(dict(circuit.info), indent=1, default=str)}\n```"]
