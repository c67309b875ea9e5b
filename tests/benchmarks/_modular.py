"""A one-layer ReLU transformer trained on addition modulo p, saved as any user's tl_config.json and safetensors.

The task and the way of training (full batch, AdamW with strong weight decay, part of the pairs held out) follow Nanda et al.,
"Progress measures for grokking via mechanistic interpretability", 2023; smaller, so that a few CPU minutes do.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch.nn import functional as F

from gatelens.data import Batches


def pairs(p: int, seed: int, share: float = 0.8) -> tuple[Batches, Batches]:
    """All a + b = ? modulo p, as tokens [a, b, =]; the answer is the target at the last position. A share to fit on."""
    a, b = torch.meshgrid(torch.arange(p), torch.arange(p), indexing="ij")
    tokens = torch.stack([a.flatten(), b.flatten(), torch.full((p * p,), p)], 1)
    targets = torch.full_like(tokens, -100)
    targets[:, 2] = (tokens[:, 0] + tokens[:, 1]) % p
    order = torch.randperm(p * p, generator=torch.Generator().manual_seed(seed))
    cut = round(share * p * p)
    return _batches(tokens[order[:cut]], targets[order[:cut]]), _batches(tokens[order[cut:]], targets[order[cut:]])


def _batches(tokens: torch.Tensor, targets: torch.Tensor) -> Batches:
    document = torch.arange(len(tokens))[:, None].expand_as(tokens)
    return Batches(tokens, targets, targets >= 0, document, 512, "accuracy", "addition modulo p")


def train(folder: Path, p: int = 31, seed: int = 0, steps: int = 4000, tell=lambda line: None) -> Path:
    """Train for `steps` and keep the last weights; a folder that is there already is used.

    Never the best weights by held-out accuracy, which is a figure here; and long past the step at which most held-out pairs
    are right, since what was memorised is only then cleaned up by weight decay.
    """
    if (folder / "tl_state_dict.safetensors").is_file():
        return folder
    from transformer_lens import HookedTransformer, HookedTransformerConfig

    settings = {
        "n_layers": 1,
        "d_model": 64,
        "n_ctx": 3,
        "d_head": 16,
        "n_heads": 4,
        "d_mlp": 128,
        "d_vocab": p + 1,
        "d_vocab_out": p,
        "act_fn": "relu",
        "normalization_type": None,
        "seed": seed,
    }
    torch.manual_seed(seed)
    model = HookedTransformer(HookedTransformerConfig(**settings))
    fit, held_out = pairs(p, seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1.0, betas=(0.9, 0.98))
    for step in range(steps):
        loss = F.cross_entropy(model(fit.inputs)[:, 2], fit.targets[:, 2])
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        if step % 500 == 499:
            with torch.no_grad():
                right = (model(held_out.inputs)[:, 2].argmax(-1) == held_out.targets[:, 2]).float().mean().item()
            tell(f"{step + 1} loss {loss.item():.5f} held-out accuracy {right:.3f}")
    weights = {k: v.detach() for k, v in model.state_dict().items() if not k.endswith(("mask", "IGNORE"))}
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tl_config.json").write_text(json.dumps(settings))
    save_file({k: v.contiguous() for k, v in weights.items()}, folder / "tl_state_dict.safetensors")
    return folder
