"""Placing: the device of the model is the device of the work.

Rows, fitted bases, connectors and gates rest on the host, so that what is saved is the same from every device. Whoever works
with a model brings what it needs to the model's device (`there`), a few thousand rows at a time, and takes the answer back
(`host`). Nothing is copied where everything is on the host already.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from ..errors import ConfigError
from .protocol import Model

T = TypeVar("T")
HOST = torch.device("cpu")
#: rows are brought to a device as a whole where they take less than this share of its free memory; else batch by batch
_SHARE = 0.25


def devices() -> list[str]:
    """The devices of this machine, the fastest first; the processor is always one."""
    found = {"cuda": torch.cuda.is_available, "mps": torch.backends.mps.is_available}
    return [name for name, is_there in found.items() if is_there()] + ["cpu"]


def device_named(name: Any) -> torch.device:
    """The device of that name ("cuda", "cuda:1", "mps", "cpu"); "auto" is the fastest that there is.

    Of several processes on a machine, "cuda" and "auto" give each the GPU of its local rank.

    Raises:
        ConfigError: one that is not there, with those that are.
    """
    there = devices()
    name = there[0] if name == "auto" else name
    if name == "cuda" and there[0] == "cuda" and os.environ.get("LOCAL_RANK", "").isdigit():
        name = f"cuda:{int(os.environ['LOCAL_RANK']) % torch.cuda.device_count()}"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    count = torch.cuda.device_count() if device is not None and device.type == "cuda" else 1
    if device is None or device.type not in there or (device.index or 0) >= count:
        known = [f"cuda:0 to cuda:{count - 1}" if one == "cuda" and count > 1 else one for one in there]
        raise ConfigError(
            f"device {str(name)[:40]!r} is not there: this machine has {', '.join(known)} (or give 'auto')"
        )
    return device


def same_device(a: torch.device, b: torch.device) -> bool:
    """Whether tensors on the two can be mixed; "cuda" without a number is any."""
    return a.type == b.type and (a.index == b.index or None in (a.index, b.index))


def place_of(value: Any, otherwise: torch.device = HOST) -> torch.device:
    """Where the first tensor lies of which a value is made: a basis, a connector, a module."""
    return next((tensor.device for tensor in _tensors(value, set())), otherwise)


def there(value: T, device: torch.device | str) -> T:
    """A value with all the tensors in it on a device: itself where they are there already, else a copy of it."""
    return _moved(value, torch.device(device), {})


def host(value: T) -> T:
    """A value with all the tensors in it in the host's memory."""
    return there(value, HOST)


def blockwise(function: Callable[..., Tensor], device: torch.device, *rows: Tensor, size: int = 4_096) -> Tensor:
    """A function of rows, some thousand of them at a time on a device; the answer lies where the first rows do."""
    back = rows[0].device
    parts = zip(*(part.split(size) for part in rows), strict=True)
    return torch.cat([function(*(x.to(device) for x in part)).to(back) for part in parts])


def fits(x: Tensor, device: torch.device) -> bool:
    """Whether rows may be brought to a device as a whole, with room left for the work on them."""
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return x.numel() * x.element_size() <= _SHARE * free


def rows_there(x: Tensor, device: torch.device) -> Tensor:
    """Rows to draw batches from: on the device where they fit, else in memory of the host from which copies are fast."""
    if same_device(x.device, device):
        return x
    if fits(x, device):
        return x.to(device)
    return x.pin_memory()


def batch_there(x: Tensor, index: Tensor, device: torch.device) -> Tensor:
    """Some of the rows, on the device, wherever the rows lie."""
    return x[index.to(x.device)].to(device, non_blocking=True)


def _tensors(value: Any, seen: set[int]) -> Any:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, nn.Module):
        yield from value.parameters()
        yield from value.buffers()
    elif id(value) not in seen:
        seen.add(id(value))
        for part in _parts(value).values():
            yield from _tensors(part, seen)


def _parts(value: Any) -> Mapping[Any, Any]:
    """What a value is made of, by name; nothing for what holds no tensors (functions, classes, models)."""
    if isinstance(value, Mapping):
        return value
    if isinstance(value, list | tuple):
        return dict(enumerate(value))
    if (callable(value) and hasattr(value, "__qualname__")) or isinstance(value, type | Model):
        return {}
    return getattr(value, "__dict__", {})


def _moved(value: Any, device: torch.device, memo: dict[int, Any]) -> Any:
    if isinstance(value, Tensor):
        return value if same_device(value.device, device) else value.to(device)
    if id(value) in memo:
        return memo[id(value)]
    if isinstance(value, nn.Module):
        memo[id(value)] = value if same_device(place_of(value), device) else copy.deepcopy(value).to(device)
        return memo[id(value)]
    memo[id(value)] = value  # a circle ends here
    old = _parts(value)
    new = {name: _moved(part, device, memo) for name, part in old.items()}
    if all(new[name] is part for name, part in old.items()):
        return value
    memo[id(value)] = _rebuilt(value, new)
    return memo[id(value)]


def _rebuilt(value: Any, parts: dict[Any, Any]) -> Any:
    if isinstance(value, Mapping):
        return parts
    if isinstance(value, list | tuple):
        if isinstance(value, list):
            return list(parts.values())
        return type(value)(*parts.values()) if hasattr(value, "_fields") else tuple(parts.values())
    made = copy.copy(value)
    vars(made).update(parts)
    return made
