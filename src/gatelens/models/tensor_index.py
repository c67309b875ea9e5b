"""The tensors of several safetensors files by name, mapped a few at a time, so that a large model is never held twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from ..errors import ModelError


class TensorIndex(Mapping[str, Tensor]):
    """name -> tensor, over all the files; each look-up opens the file anew, so that what was used is let go.

    Args:
        checked: called with a file before it is read for the first time, to see that it is whole.

    Raises:
        ModelError: for a file that is no whole safetensors file.
    """

    def __init__(self, files: Iterable[Path], checked: Callable[[Path], object] | None = None):
        self._checked, self._seen = checked, set[Path]()
        self._file: dict[str, Path] = {}
        for file in files:
            with _opened(file) as tensors:
                self._file |= dict.fromkeys(tensors.keys(), file)

    def __getitem__(self, name: str) -> Tensor:
        file = self._file[name]
        if self._checked is not None and file not in self._seen:
            self._checked(file)
            self._seen.add(file)
        with _opened(file) as tensors:
            value = tensors.get_tensor(name)
        return value.float() if value.dtype in (torch.float16, torch.bfloat16) else value

    def __contains__(self, name: object) -> bool:
        return name in self._file

    def __iter__(self) -> Iterator[str]:
        return iter(self._file)

    def __len__(self) -> int:
        return len(self._file)


@contextmanager
def _opened(file: Path) -> Iterator[object]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as tensors:
            yield tensors
    except SafetensorError as error:
        raise ModelError(f"{file} is not a whole safetensors file ({error}). Copy or convert it again") from error
    except OSError as error:
        raise ModelError(f"{file} cannot be read ({error}). Check the path and its permissions") from error
