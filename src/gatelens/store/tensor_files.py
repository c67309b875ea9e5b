"""Tensors as safetensors bytes and back; torch is imported only where tensors are torch's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors

from ..errors import GateLensError, StoreError

#: what safetensors' readers raise on files that somebody has changed
_MALFORMED = (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError, AttributeError, RuntimeError)
PICKLES = (".pt", ".pth", ".bin", ".pkl", ".pickle", ".npy", ".npz", ".ckpt")


def tensor_bytes(tensors: Mapping[str, Any]) -> bytes:
    """Torch tensors (detached, moved to the CPU) or numpy arrays; the same values give the same bytes."""
    if any(hasattr(value, "detach") for value in tensors.values()):
        from safetensors.torch import save

        return save(_apart(tensors))
    from safetensors.numpy import save as save_arrays

    return save_arrays(dict(tensors))


def _apart(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Each tensor on the CPU with memory of its own, as safetensors wants it; copied only where it shares or views."""
    seen: set[int] = set()
    apart = {}
    for name, value in tensors.items():
        plain = value.detach().cpu().contiguous()
        memory = plain.untyped_storage()
        if memory.nbytes() != plain.nbytes or memory.data_ptr() in seen:
            plain = plain.clone()
        seen.add(plain.untyped_storage().data_ptr())
        apart[name] = plain
    return apart


def load_tensors(path: str | Path, framework: str = "torch") -> dict[str, Any]:
    """The tensors of one safetensors file; as torch's they are mapped from the file and read when used.

    Raises:
        StoreError: a pickle, a damaged file, a header that does not fit the file.
    """
    refuse_pickle(path)
    try:
        if framework == "numpy":
            from safetensors.numpy import load_file as load_arrays

            return load_arrays(str(path))
        from safetensors.torch import load_file

        return load_file(str(path))
    except _MALFORMED as error:
        raise StoreError(
            f"{path} is not a whole safetensors file ({error}). Restore it from a copy, or make it again"
        ) from error


def refuse_pickle(path: str | Path, error: type[GateLensError] = StoreError) -> None:
    """Refuse a file that is a pickle by its name or its first bytes, and a folder whose weights are only there as one.

    Loading a pickle can run any program.

    Raises:
        error: names the conversion that is safe.
    """
    path = Path(path)
    inside = sorted(path.iterdir()) if path.is_dir() else [path]
    if path.is_dir() and any(file.suffix == ".safetensors" for file in inside):
        return
    pickled = next((file for file in inside if file.suffix in PICKLES or _begins_like_a_pickle(file)), None)
    if pickled is not None:
        raise error(
            f"{pickled} is, or may hold, a Python pickle, which can run any program when it is loaded: expected "
            "safetensors. Convert it once, where you trust it: "
            "safetensors.torch.save_file(torch.load(PATH, weights_only=True), 'weights.safetensors')"
        )


def _begins_like_a_pickle(path: Path) -> bool:
    if not path.is_file():
        return False
    with open(path, "rb") as file:
        head = file.read(9)
    # a safetensors file begins with the length of its header, which may look like a pickle's mark, and then a brace
    pickled = len(head) > 1 and head[0] == 0x80 and head[1] in (2, 3, 4, 5) and head[8:] != b"{"
    return pickled or head.startswith((b"PK\x03\x04", b"\x93NUMPY"))
