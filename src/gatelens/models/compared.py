"""A converted model against the original beside it: the same logits on random tokens, or it is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from ..errors import GateLensWarning, ModelError
from ..store.estimate import available_memory
from ..store.files import readable
from .protocol import device_of

#: relative difference of log-probabilities, by the type that both compute in
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


def check_against_original(model: Any, folder: Path) -> None:
    """Run transformers' own model of the folder and the converted one on the same tokens.

    What a config sets and a conversion drops shows here whatever it is called.

    Raises:
        ModelError: they differ, with the relative error; or the original cannot be loaded.
    """
    size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    free = available_memory()
    if free is not None and 1.5 * size > free:
        warnings.warn(
            f"{folder} was not compared with the original, which would take {readable(size)} more memory",
            GateLensWarning,
            stacklevel=3,
        )
        return
    dtype = next(model.parameters()).dtype
    theirs, draw = _original(folder, dtype), torch.Generator().manual_seed(0)
    known = min(int(model.cfg.d_vocab), int(theirs.config.vocab_size))
    tokens = torch.randint(known, (2, min(16, int(model.cfg.n_ctx))), generator=draw)
    with torch.no_grad():
        wanted = theirs(tokens).logits.float().log_softmax(-1)
        found = model(tokens.to(device_of(model))).float().cpu().log_softmax(-1)
    if found.shape != wanted.shape:
        raise ModelError(
            f"{folder}: the converted model gives logits {list(found.shape)}, the original {list(wanted.shape)}"
        )
    error = float((found - wanted).norm() / wanted.norm())
    if not error <= TOLERANCES.get(dtype, 1e-3):
        raise ModelError(
            f"{folder}: the converted model's log-probabilities differ from the original's by a relative {error:.2g} "
            f"(at most {TOLERANCES.get(dtype, 1e-3):g} is accepted): something in config.json or the weights is lost on the way. "
            "Load it as a bridge, which runs the original: load_model(folder, bridge=True)"
        )


def _original(folder: Path, dtype: torch.dtype) -> Any:
    from transformers import AutoModelForCausalLM

    try:
        return AutoModelForCausalLM.from_pretrained(
            str(folder), local_files_only=True, use_safetensors=True, dtype=dtype
        ).eval()
    except Exception as error:  # whatever transformers makes of files that somebody else wrote
        raise ModelError(
            f"{folder} could not be loaded by transformers to be compared with ({type(error).__name__}: {str(error)[:200]}). "
            "Download or save the model again"
        ) from error
