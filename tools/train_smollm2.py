"""Makes the dictionaries of SmolLM2's MLPs that `PretrainedSAE("smollm2")` loads: of the input, of the output, and a transcoder.

    python tools/train_smollm2.py --data DATA                 # DATA/text holds plain texts; layers 1, 22, 12
    python tools/train_smollm2.py --data DATA --layers 1 --rows 20000 --samples 100000 --out /tmp/trial

What is there already is kept: a run that was stopped goes on with the next dictionary, and activations with the next shard.
A fifth of the documents, told by a hash of their text, is never trained on; what was trained on is listed beside the
dictionaries, so that whoever tests them can leave it out (`gatelens.data.seen`). About 6 CPU minutes a dictionary.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

import gatelens as gl
from gatelens.bases.sae.files import CONFIG, WEIGHTS
from gatelens.data.seen import document_hash, is_kept_apart
from gatelens.models.fingerprint import weights_fingerprint

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
from _texts import documents  # noqa: E402

OUT = ROOT / "dictionaries" / "smollm2" / "src" / "gatelens_smollm2"
WIDTH, K_IN, K_OUT = 3_072, 24, 16
#: held-out rows: one for so many fitting rows
APART = 10
LENGTH = 128
#: rows whose output is so many times the median's length are sinks (punctuation, the first words); they would rule the fit
SINK = 6.0
#: fitting rows a layer: a forward pass to layer 22 costs twelve times one to layer 1
ROWS = {1: 400_000, 12: 150_000, 22: 150_000}


def pieces(text: str, size: int = 4_000) -> list[str]:
    """Text without headings, in runs of whole paragraphs."""
    runs = [""]
    for paragraph in text.split("\n\n"):
        if len(runs[-1]) > size:
            runs.append("")
        runs[-1] += f"{paragraph}\n\n"
    return [run.strip() for run in runs]


def batches(model: Any, data: Path, rows: int) -> tuple[gl.data.Batches, gl.data.Batches, list[str]]:
    """A fitting part of so many rows and a held-out part; the fitting documents' hashes."""
    texts = documents(data, pieces)
    random.Random(0).shuffle(texts)
    fit = [text for text in texts if not is_kept_apart(text)]
    held = [text for text in texts if is_kept_apart(text)]
    windows = rows // (LENGTH - 1), rows // APART // (LENGTH - 1)
    parts = gl.text_batches(model, fit, rows=windows, length=LENGTH, held_out=held, batch_size=32, seed=0)
    order = list(fit)
    random.Random(0).shuffle(order)  # as text_batches goes through them
    used = order[: int(parts[0].document.max()) + 1]
    return *parts, sorted(document_hash(text) for text in used)


def without_sinks(acts: gl.Activations, layer: int) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Both ends of the layer's MLP over the rows that are no sinks, and how many were dropped."""
    x, y = (acts[hook] for hook in hooks(layer))
    size = y.norm(dim=1)
    kept = size <= SINK * size.median()
    return x[kept], y[kept], int((~kept).sum())


def hooks(layer: int) -> tuple[str, str]:
    return f"blocks.{layer}.ln2.hook_normalized", f"blocks.{layer}.hook_mlp_out"


def train(kind: str, x: torch.Tensor, y: torch.Tensor, layer: int, samples: int) -> Any:
    """The sae-lens module of one dictionary."""
    hook_in, hook_out = hooks(layer)
    shared = {"d_sae": WIDTH, "samples": samples, "seed": 0, "progress": True, "batch_size": 1024}
    if kind == "transcoder":
        return gl.Transcoder(k=K_OUT, **shared).train(x, y, hook_in, hook_out).transcoder
    rows, hook, k = (x, hook_in, K_IN) if kind == "x" else (y, hook_out, K_OUT)
    return gl.TrainedSAE("batchtopk", trainer="sparse", k=k, **shared).train(rows, hook)


@torch.no_grad()
def figures(kind: str, module: Any, fit: tuple[torch.Tensor, ...], held: tuple[torch.Tensor, ...]) -> dict[str, float]:
    """Held out by document: FVU, mean number of active features; dead: on in no row of either part."""
    source, target = {"x": (0, 0), "y": (1, 1), "transcoder": (0, 1)}[kind]
    fired = torch.zeros(WIDTH, dtype=torch.bool)
    for rows in fit[source].split(4096):
        fired |= (module.encode(rows) > 0).any(0)
    left, active = 0.0, 0
    for rows, wanted in zip(held[source].split(4096), held[target].split(4096), strict=True):
        f = module.encode(rows)
        fired |= (f > 0).any(0)
        active += int((f > 0).sum())
        left += float((module.decode(f) - wanted).double().square().sum())
    y = held[target].double()
    return {
        "fvu": round(left / float((y - y.mean(0)).square().sum()), 4),
        "l0": round(active / len(y), 2),
        "dead": round(float((~fired).float().mean()), 4),
        "held_out_rows": len(y),
    }


def keep(module: Any, folder: Path, facts: dict[str, Any]) -> None:
    """In sae-lens' format, the weights in float16; the config says float32, which is what they are loaded as."""
    for name, value in {"model_name": "smollm2", "prepend_bos": True, "context_size": LENGTH, **facts}.items():
        setattr(module.cfg.metadata, name, value)
    scratch = folder.with_name(f".{folder.name}.new")
    module.save_model(scratch)
    weights = load_file(scratch / WEIGHTS)
    save_file({name: value.half() for name, value in weights.items()}, scratch / WEIGHTS)
    config = json.loads((scratch / CONFIG).read_text())
    (scratch / CONFIG).write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (scratch / WEIGHTS).chmod(0o644)
    os.replace(scratch, folder)


def rounded(module: Any) -> Any:
    """The module with its weights as they are kept, so that the figures are those of the file."""
    for value in module.parameters():
        value.data = value.data.half().float()
    return module


def layer_dictionaries(layers: list[int], arguments: argparse.Namespace) -> None:
    """The dictionaries of layers that share one pass over the texts."""
    rows = arguments.rows or min(ROWS[layer] for layer in layers)
    model = gl.load_model("smollm2", first_layers=max(layers) + 1)
    fit, held, hashes = batches(model, arguments.data, rows)
    points = [hook for layer in layers for hook in hooks(layer)]
    work = arguments.work / "-".join(map(str, layers))
    acts = gl.collect(model, fit, points, store=work / "fit", dtype="float16", progress=True)
    unseen = gl.collect(model, held, points, store=work / "held", dtype="float16", progress=True)
    fingerprint = weights_fingerprint(model, points)
    del model
    for layer in layers:
        x, y, sinks = without_sinks(acts, layer)
        held_x, held_y, _ = without_sinks(unseen, layer)
        listed = f"documents-{layer}.json"
        (arguments.out / listed).write_text(json.dumps(hashes, indent=0) + "\n")
        for kind in arguments.kinds:
            folder = arguments.out / (
                hooks(layer)[kind != "x"] if kind != "transcoder" else f"{hooks(layer)[1]}.transcoder"
            )
            if (folder / CONFIG).is_file():
                print(f"{folder.name}: there already")
                continue
            start = time.process_time()
            module = rounded(train(kind, x, y, layer, arguments.samples))
            facts = {
                "training_rows": len(x), "training_samples": arguments.samples, "sinks_dropped": sinks, "seed": 0,
                "training_documents": listed, "weights": fingerprint,
                "measured": figures(kind, module, (x[:200_000], y[:200_000]), (held_x, held_y)),
            }  # fmt: skip
            keep(module, folder, facts)
            print(
                f"{folder.name}: {facts['measured']}, {sinks} sinks, {time.process_time() - start:.0f} CPU s",
                flush=True,
            )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, default=os.environ.get("GATELENS_DATA"), help="the folder that holds text/"
    )
    parser.add_argument("--layers", type=int, nargs="+", default=[1, 22, 12])
    parser.add_argument("--kinds", nargs="*", default=["x", "y", "transcoder"])
    parser.add_argument(
        "--rows", type=int, help="fitting rows; by default 400,000 for layer 1 and 150,000 for later ones"
    )
    parser.add_argument("--samples", type=int, default=3_000_000, help="rows seen in training, with repetition")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "train_smollm2", help="where activations are kept")
    arguments = parser.parse_args()
    if arguments.data is None:
        parser.error("expected --data, the folder that holds text/, or GATELENS_DATA")
    arguments.data = Path(arguments.data)
    arguments.out.mkdir(parents=True, exist_ok=True)
    early, late = [n for n in arguments.layers if n < 6], [n for n in arguments.layers if n >= 6]
    for layers in [[layer] for layer in early] + ([late] if late else []):
        layer_dictionaries(layers, arguments)


if __name__ == "__main__":
    main()
