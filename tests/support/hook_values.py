"""The same ends of the same small models' segments under two versions of transformer-lens: one writes the values, the other compares.

python tests/support/hook_values.py write FOLDER      # makes the models, keeps what their hooks give
python tests/support/hook_values.py compare FOLDER    # by another version: fails where one differs by 1e-4 of its size
"""

from __future__ import annotations

import sys
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

import gatelens as gl
from gatelens.errors import ModelError
from support.small_models import gpt2_folder, llama_folder
from test_families import FAMILIES, PARALLEL, RAW, TOKENS, small

TOLERANCE = 1e-4


def values(folder: Path, bridge: bool) -> dict[str, torch.Tensor]:
    """What both ends of every segment give, and the logits. The MLP's own input has other names, before or after a gain."""
    model = gl.load_model(folder, bridge=bridge, **RAW)
    segments = gl.mlp_segments(model, mlp_in="mlp_in" if folder.name in PARALLEL else "resid_mid")
    ends = {f"{i} in": s.hook_in for i, s in enumerate(segments)} | {
        f"{i} out": s.hook_out for i, s in enumerate(segments)
    }
    with torch.no_grad():
        logits, cache = model.run_with_cache(TOKENS, names_filter=sorted(set(ends.values())))
    return {end: cache[hook].contiguous() for end, hook in ends.items()} | {"logits": logits.contiguous()}


def own_form(folder: Path) -> dict[str, torch.Tensor]:
    """By a HookedTransformer where it knows the family and all its settings, else by a bridge."""
    try:
        return values(folder, bridge=False)
    except ModelError:
        return values(folder, bridge=True)


def main(what: str, root: Path) -> None:
    apart = 0.0
    for family in ("gpt2", "llama", *FAMILIES):
        folder = root / family.replace(" ", "_")
        if what == "write":
            save_file(own_form(made(family, folder)), folder / "hook_values")
            continue
        wanted, found = load_file(folder / "hook_values"), values(folder, bridge=True)
        if set(wanted) != set(found):
            raise SystemExit(f"{family}: {sorted(set(wanted) ^ set(found))} are there with one version alone")
        for end, value in wanted.items():
            off = float((found[end] - value).norm() / value.norm())
            apart = max(apart, off)
            if not off < TOLERANCE:
                raise SystemExit(f"{family}: {end} differs by {off:.1e} of its size between the two versions")
    told = "written" if what == "write" else f"largest difference {apart:.1e} of a value's size"
    print(f"transformer-lens {version('transformer-lens')}: {2 + len(FAMILIES)} families, {told}")


def made(family: str, folder: Path) -> Path:
    """A family's small model in a folder."""
    if family in FAMILIES:
        return small(folder, *FAMILIES[family])
    return {"gpt2": gpt2_folder, "llama": llama_folder}[family](folder)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
