"""A converted or bridged model against the original beside it: the same logits on random tokens, or it is refused."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch

from ..errors import GateLensWarning, ModelError
from ..store.estimate import available_memory
from ..store.files import readable
from .protocol import device_of

#: what to do where a conversion, or a bridge, is not the original
CONVERTED = "Load it as a bridge, which runs the original's own layers: load_model(folder, bridge=True)"
BRIDGED = (
    "transformer-lens' bridge leaves out something of this family: another version of it may not, or take another model"
)
#: relative difference of centred logits, by the type that both compute in
TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3, torch.float16: 2e-2, torch.bfloat16: 6e-2}


class Original:
    """What transformers' own model of a folder says of a few random tokens; the model itself is let go at once.

    What a config sets and a conversion drops shows in the comparison, whatever it is called. It comes before the
    conversion, so that the two are never held together; what is wrong with the folder the conversion says better, so
    what transformers makes of it is raised only behind.
    """

    def __init__(self, folder: Path, dtype: torch.dtype):
        self.folder, self.dtype = folder, dtype
        self.error: ModelError | None = None
        self.wanted: torch.Tensor | None = None
        size = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
        free = available_memory()
        if free is not None and 1.5 * size > free:
            warnings.warn(
                f"{folder} was not compared with the original, which would take {readable(size)} of memory",
                GateLensWarning,
                stacklevel=3,
            )
            return
        try:
            self.tokens, self.wanted = _said_by_original(folder, dtype)
        except ModelError as error:
            self.error = error

    def check(self, model: Any, advice: str = CONVERTED) -> None:
        """Run the model on the same tokens.

        Raises:
            ModelError: they differ, with the relative error; or the original could not be loaded.
        """
        if self.error is not None:
            raise self.error
        if self.wanted is None:
            return
        with torch.no_grad():
            found = _centred(model(self.tokens.to(device_of(model))))
        if found.shape != self.wanted.shape:
            raise ModelError(
                f"{self.folder}: the loaded model gives logits {list(found.shape)}, the original {list(self.wanted.shape)}. {advice}"
            )
        error = float((found - self.wanted).norm() / self.wanted.norm().clamp_min(1e-30))
        most = TOLERANCES.get(self.dtype, 1e-3)
        if not error <= most:
            raise ModelError(
                f"{self.folder}: the loaded model's logits differ from the original's by a relative {error:.2g} "
                f"(at most {most:g} is accepted): something in config.json or the weights is lost on the way. {advice}"
            )


def _said_by_original(folder: Path, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    theirs, draw = _original(folder, dtype), torch.Generator().manual_seed(0)
    length = min(16, int(getattr(theirs.config, "max_position_embeddings", 16)))
    tokens = torch.randint(int(theirs.config.vocab_size), (2, length), generator=draw)
    try:
        with torch.no_grad():
            return tokens, _centred(theirs(tokens).logits)
    except Exception as error:  # settings that no model of its family runs with
        raise ModelError(
            f"{folder}: transformers cannot run the model itself on tokens ({type(error).__name__}: {str(error)[:200]}). "
            "Check its config.json"
        ) from error


def _centred(logits: torch.Tensor) -> torch.Tensor:
    """Logits less their mean, which no probability depends on. Log-probabilities hide what small logits lack: log n outweighs it."""
    found = logits.float().cpu()
    return found - found.mean(-1, keepdim=True)


def _original(folder: Path, dtype: torch.dtype) -> Any:
    """Of the class that wrote the folder: an encoder is no model of the next token."""
    import transformers

    try:
        named = transformers.AutoConfig.from_pretrained(str(folder), local_files_only=True).architectures or [""]
        kind = getattr(transformers, named[0], transformers.AutoModelForCausalLM)
        return kind.from_pretrained(str(folder), local_files_only=True, use_safetensors=True, dtype=dtype).eval()
    except Exception as error:  # whatever transformers makes of files that somebody else wrote
        raise ModelError(
            f"{folder} could not be loaded by transformers to be compared with ({type(error).__name__}: {str(error)[:200]}). "
            "Download or save the model again"
        ) from error
