"""Makes the README's picture: a verified gate of SmolLM2, drawn with its evidence, and the figures of the gate as JSON.

    python tools/make_picture.py --data FOLDER    # FOLDER/text: the texts

Drawn is the verified gate of two inputs or more that is furthest ahead of the tables of tokens, among those whose
inputs and output are named by words, no two inputs by the same ones in whatever order: the best of its kind, no typical one.
Texts that the dictionaries saw are kept for fitting; the others are held out. Writes docs/pictures/gate.svg and docs/results/picture.json.
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gatelens as gl
from gatelens import bench
from gatelens.data.seen import is_kept_apart

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
ROWS, LENGTH, SEED = (320, 160), 128, 0


def read(data: Path) -> tuple[Any, Any, Any]:
    """(model, circuit, held-out activations) of layer 1."""
    from _smollm import MOST, documents

    model = gl.load_model("smollm2")
    texts = documents(data)
    random.Random(SEED).shuffle(texts)
    fit, held = ([t[:MOST] for t in texts if is_kept_apart(t) is apart] for apart in (False, True))
    parts = gl.text_batches(model, fit, rows=ROWS, length=LENGTH, held_out=held, batch_size=32, seed=SEED)
    segments = gl.mlp_segments(model, layers=[1])
    acts, unseen = (gl.collect(model, part, segments) for part in parts)
    bases = gl.PretrainedSAE("smollm2").fit(segments, acts)
    return model, gl.build_circuit(model, segments, bases, acts, held_out=unseen), unseen


def figures(gate: gl.Gate, gates: list[gl.Gate]) -> list[dict[str, Any]]:
    """The gate's evidence, and of how many it is one."""
    controls = gate.controls
    tables = {"a table of tokens": controls.token, "a table of two tokens": controls.token_pair} if controls else {}
    beside = {"random parents": gate.control_mcc} | tables
    found = [
        bench.Figure(f"MCC of OF_{gate.out} with its rule {gate.rule}, held out", gate.mcc, baselines=beside),
        bench.Figure(
            "outputs whose gate is verified",
            sum(g.verified is True for g in gates),
            baselines={"tried": sum(g.verified is not None for g in gates)},
        ),
        bench.Figure(
            "outputs that obey a rule that holds",
            sum(str(g.grade) in ("verified", "holds") for g in gates),
            baselines={"of": len(gates)},
        ),
    ]
    return [{**f.__dict__, "holds": f.holds} for f in found]


def ahead(gate: Any) -> float:
    """By how much a gate's rule beats the better of both tables of tokens."""
    return gate.mcc - max(gate.controls.token or 0.0, gate.controls.token_pair or 0.0)


def tells_itself(gate: Any, known: Any) -> bool:
    """Whether a gate can be understood from its names alone: each end named by words, no two inputs by the same ones."""
    names = [str(known.label("in", feature)) for feature in gate.rule.features]
    words = all(any(c.isalpha() for c in name) for name in (*names, str(known.label("out", gate.out))))
    different = {frozenset(name.casefold().split()) for name in names}  # "to | of" and "of | to" tell nobody apart
    return words and not known.marks(gate.out) and len(different) == len(names)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    began = time.time()
    model, circuit, unseen = read(options.data)
    gates = list(circuit.gates[circuit.segments[0].name])
    verified = [g for g in gates if g.verified is True and len(g.rule.literals) > 1]
    verified.sort(key=ahead, reverse=True)
    for gate in verified:
        sys.stderr.write(f"{str(gate)[:200]}\n")
    known = gl.views.known(circuit, unseen, model=model)
    gate = next(g for g in verified if tells_itself(g, known))
    for other in verified:
        gl.views.gate(other, known).save(ROOT / "runs" / "pictures" / f"{other.out}.svg")
    gl.views.gate(gate, known).save(ROOT / "docs" / "pictures" / "gate.svg")
    result = {
        "bench": "picture",
        "title": "The README's picture",
        "note": f"SmolLM2-135M, layer 1, {ROWS[0]} fitting and {ROWS[1]} held-out windows of {LENGTH} tokens, held out by document. "
        "Drawn: the verified gate of two inputs or more that is furthest ahead of the tables of tokens, among those "
        "whose inputs and output are named by words, no two inputs by the same ones in whatever order.",
        "date": datetime.now(UTC).date().isoformat(),
        "commit": bench.commit(),
        "seeds": [SEED],
        "machine": bench.machine(),
        "seconds": round(time.time() - began),
        "figures": figures(gate, gates),
    }
    path = ROOT / "docs" / "results" / "picture.json"
    path.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    sys.stdout.write(f"{path}\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
