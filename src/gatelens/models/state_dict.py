"""A state dict of transformer-lens in safetensors, with its config beside it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from ..errors import ModelError
from .huggingface import read_json, tokenizer_of
from .tensor_index import TensorIndex

TL_CONFIG, TL_WEIGHTS = "tl_config.json", "tl_state_dict.safetensors"


class StateDictFile:
    """The weights of a .safetensors state dict, or of the one in a folder, with `tl_config.json` beside it."""

    def __init__(self, path: Path):
        self.path = path
        self._folder = path if path.is_dir() else path.parent
        file = path if path.is_file() else path / TL_WEIGHTS
        if not file.is_file():
            raise ModelError(f"{file} is missing: {TL_CONFIG} is there, expected the weights beside it")
        self.settings: Mapping[str, Any] = read_json(self._folder / TL_CONFIG)
        self._tensors = TensorIndex([file])
        self._used: set[str] = set()

    def tokenizer(self) -> Any | None:
        return tokenizer_of(self._folder)

    def outer(self, cfg: Any) -> dict[str, Tensor]:
        return self._named(name for name in self._tensors if not name.startswith("blocks."))

    def block(self, index: int, cfg: Any) -> dict[str, Tensor]:
        return self._named(name for name in self._tensors if name.startswith(f"blocks.{index}."))

    def foreign(self) -> list[str]:
        return sorted(set(self._tensors) - self._used)

    def _named(self, names: Any) -> dict[str, Tensor]:
        found = {name: self._tensors[name] for name in names}
        self._used |= set(found)
        return found
