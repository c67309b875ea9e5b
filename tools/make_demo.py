"""Makes what the language demonstration ships beside its model: a text sample that the model wrote, and a pair of SAEs.

    python tools/make_demo.py sample
    python tools/make_demo.py saes --data DATA        # DATA/text holds the texts that gpt2-mini was trained on

Both are deterministic on one machine and one thread. The SAEs take about ten CPU minutes, most of them the model's forward passes.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import gatelens as gl

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "src" / "gatelens" / "demo"
LAYER = 3
DOCUMENTS, TOKENS = 640, 120
ROWS = 665_000


def sample(model, seed: int = 0) -> list[str]:
    """Documents as the model writes them: from BOS on, at temperature .9 among the 200 likeliest tokens."""
    torch.manual_seed(seed)
    bos = model.tokenizer.bos_token_id
    documents = []
    for _ in range(DOCUMENTS // 64):
        start = torch.full((64, 1), bos)
        tokens = model.generate(
            start,
            max_new_tokens=TOKENS,
            temperature=0.9,
            top_k=200,
            stop_at_eos=False,
            verbose=False,
            return_type="tokens",
        )
        for row in tokens[:, 1:].tolist():
            end = row.index(bos) if bos in row else len(row)
            documents.append(model.tokenizer.decode(row[:end]).strip())
    return [d for d in documents if d]


def write_saes(model, data: Path) -> None:
    """One BatchTopK SAE at either end of the MLP, kept in float16."""
    sys.path.insert(0, str(ROOT / "tests" / "benchmarks"))
    from _texts import fitting, held_out

    torch.set_num_threads(1)
    fit, _ = gl.text_batches(
        model, fitting(data), rows=(5_300, 2), length=128, held_out=held_out(data)["passages"], batch_size=32
    )
    segments = gl.mlp_segments(model, [LAYER])
    acts = gl.collect(model, fit, segments, dtype="float16", progress=True)
    recipe = gl.TrainedSAE("batchtopk", d_sae=1024, k=32, samples=200_000, seed=0, progress=True)
    for hook in acts:
        keep(recipe.train(acts[hook][:ROWS], hook), DEMO / "saes" / hook)


def keep(sae, folder: Path) -> None:
    """Save an SAE with its weights in float16; the config says float32, which is what it is loaded as."""
    sae.cfg.metadata.model_name = "gpt2-mini"
    sae.cfg.metadata.prepend_bos = True
    sae.save_model(folder)
    weights = load_file(folder / "sae_weights.safetensors")
    save_file({name: value.half() for name, value in weights.items()}, folder / "sae_weights.safetensors")
    config = json.loads((folder / "cfg.json").read_text())
    # figures of the last training batch go: the exported SAE is measured where it is used
    for figure in ("l0", "num_dead_features"):
        config["metadata"].pop(figure, None)
    (folder / "cfg.json").write_text(json.dumps(config, indent=1, sort_keys=True) + "\n")
    (folder / "sae_weights.safetensors").chmod(0o644)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["sample", "saes"])
    parser.add_argument("--data", type=Path)
    arguments = parser.parse_args()
    model = gl.load_model("gpt2-mini")
    if arguments.what == "sample":
        (DEMO / "sample.txt").write_text("\n<|endoftext|>\n".join(sample(model)) + "\n", encoding="utf-8")
    elif arguments.data is None:
        parser.error("saes: expected --data, the folder that holds text/")
    else:
        write_saes(model, arguments.data)


if __name__ == "__main__":
    main()
