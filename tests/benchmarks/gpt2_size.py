"""configs/gpt2.yaml at full size: GPT-2 small's widths and two dictionaries of 32,768 features, with weights of our own.

What is measured is memory and time, and that nothing of the size of features squared is ever formed; the weights are
random, so no figure says anything about GPT-2. The model has two of the twelve layers, all that layer 1 needs.
"""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from gatelens.bench import Figure
from gatelens.pipeline.state import State
from support.small_models import flat_topk_config, gpt2_folder, in_hub_cache, sae_folder

SEEDS = (0,)
WIDTH, FEATURES, K, VOCABULARY = 768, 32_768, 32, 50_257
ROWS = 24


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Peak resident memory of this process: everything from the cache to the connector."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        hub = _model(Path(folder))
        _dictionaries(Path(folder), hub, seeds[0], {})
        acts = _walk(Path(folder), hub, "collect").acts[0]
        _dictionaries(Path(folder), hub, seeds[0], {hook: _centre(x) for hook, x in acts.items()})
        made = time.process_time() - began
        walk = _walk(Path(folder), hub, "connect")
        connector = walk.connected.connectors[walk.segments[0].name]
        seconds = time.process_time() - began - made
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    yield Figure(
        "peak memory of configs/gpt2.yaml up to the connector (GiB)",
        peak,
        6.0,
        "lower",
        {
            "one dense matrix of features x features": FEATURES**2 * 4 / 2**30,
            "CPU seconds": seconds,
            "edges": connector.wires,
        },
        f"{ROWS} windows of 64 tokens, dictionaries of {connector.weight.shape[1]} and {connector.weight.shape[0]} features; the fixture is in this process too",
    )


def _model(folder: Path) -> Path:
    """A hub cache of the published layout with a model of GPT-2 small's sizes."""
    hub = folder / "hub"
    model = gpt2_folder(folder / "gpt2", n_embd=WIDTH, n_head=12, n_ctx=1024, vocab=VOCABULARY)
    names = ("config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")
    in_hub_cache(hub, "gpt2", {name: model / name for name in names})
    return hub


def _dictionaries(folder: Path, hub: Path, seed: int, centres: Mapping[str, torch.Tensor]) -> None:
    """The published pair's files; centred on what the model gives, without which they would explain less than the mean."""
    for part, hook in (("resid-mid", "blocks.1.hook_resid_mid"), ("mlp-out", "blocks.1.hook_mlp_out")):
        sae = sae_folder(
            folder / part, flat_topk_config(hook, WIDTH, FEATURES, K), _dictionary(seed, centres.get(hook))
        )
        files = {f"v5_32k_layer_1/{name}": sae / name for name in ("cfg.json", "sae_weights.safetensors")}
        in_hub_cache(hub, f"jbloom/GPT2-Small-OAI-v5-32k-{part}-SAEs", files)


def _centre(x: torch.Tensor) -> torch.Tensor:
    """The mean of the rows as such SAEs see them: mean off, divided by the standard deviation."""
    return torch.nn.functional.layer_norm(x[:], x.shape[-1:]).mean(0)


def _dictionary(seed: int, centre: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """Orthonormal directions in either sense, which explain something, and small random ones, which fill the width."""
    generator = torch.Generator().manual_seed(seed)
    axes = torch.eye(WIDTH)
    rest = torch.randn(FEATURES - 2 * WIDTH, WIDTH, generator=generator)
    decoder = torch.cat([axes, -axes, torch.nn.functional.normalize(rest, dim=1)])
    return {
        "W_dec": decoder,
        "W_enc": (decoder * torch.cat([torch.ones(2 * WIDTH), torch.full((len(rest),), 0.05)])[:, None]).T.contiguous(),
        "b_enc": torch.zeros(FEATURES),
        "b_dec": torch.zeros(WIDTH) if centre is None else centre,
    }


def _walk(folder: Path, hub: Path, until: str) -> State:
    from support.small_models import TEXT

    os.environ["HF_HUB_CACHE"] = str(hub)
    import huggingface_hub.constants

    huggingface_hub.constants.HF_HUB_CACHE = str(hub)
    from gatelens.pipeline import read_config, run

    text = folder / "text.txt"
    text.write_text("<|endoftext|>".join(" ".join(TEXT[i:] + TEXT[:i]) for i in range(len(TEXT))), encoding="utf-8")
    config = Path(__file__).resolve().parents[2] / "configs" / "gpt2.yaml"
    settings = [f"data.source={text}", f"data.rows=[{ROWS}, 16]"]
    return run(read_config(config, settings), folder / "run", until=until)
