"""A device beside the processor that refuses to mix with it, on any machine: "lazy", torch's name for one without a backend.

Its tensors hold ordinary ones and compute with them, so that work which branches on what it finds can be walked; but what a
GPU refuses is refused here: operands on two devices, host indices where torch wants them beside the values, a generator of
the processor, numpy's look into the memory. What a GPU allows is allowed: copies, numbers without dimensions, host indices
between brackets.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import torch
from torch.utils._python_dispatch import return_and_correct_aliasing
from torch.utils._pytree import tree_leaves, tree_map

NAME = "lazy"
DEVICE = torch.device(NAME, 0)
aten = torch.ops.aten
#: what takes host tensors beside its own: copies, and indices between brackets
_COPIES = (aten.copy_.default, aten._to_copy.default)
_INDEXED = (aten.index.Tensor, aten.index_put.default, aten.index_put_.default, aten._unsafe_index_put.default)


class Mixed(RuntimeError):
    """Tensors of two devices in one operation."""


class There(torch.Tensor):
    """A tensor on the other device; `inner` holds its numbers."""

    inner: torch.Tensor
    __torch_function__ = torch._C._disabled_torch_function_impl  # pyright: ignore

    @staticmethod
    def __new__(cls, inner: torch.Tensor) -> There:
        how: dict[str, Any] = {"dtype": inner.dtype, "device": DEVICE, "layout": inner.layout, "requires_grad": False}
        if inner.layout == torch.strided:
            how |= {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        else:
            how |= {"dispatch_layout": True, "layout": torch.strided}
        made = torch.Tensor._make_wrapper_subclass(cls, inner.shape, **how)  # pyright: ignore
        made.inner = inner
        return made

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.prim.layout.default:
            return args[0].inner.layout
        kwargs = dict(kwargs or {})
        if func is aten._to_copy.default and torch.device(kwargs.get("device") or DEVICE).type == "cpu":
            return func(_inner(args[0]), **kwargs)
        _refuse(func, args, kwargs)
        given = {name: tree_map(_inner, value) for name, value in kwargs.items()}
        if given.get("device") is not None:
            given["device"] = "cpu"
        out = func(*tree_map(_inner, args), **given)
        if func is aten.copy_.default:
            return args[0]
        return (
            return_and_correct_aliasing(func, args, kwargs, tree_map(_outer, out))
            if _strided(out)
            else tree_map(_outer, out)
        )

    def tolist(self) -> Any:
        """Numbers, as from any device."""
        return self.inner.tolist()

    def __deepcopy__(self, memo: Any) -> torch.Tensor:
        with torch.no_grad():
            made = There(self.inner.clone()).requires_grad_(self.requires_grad)
        if isinstance(self, torch.nn.Parameter):
            made = torch.nn.Parameter(made, self.requires_grad)
        memo[id(self)] = made
        return made


def _inner(x: Any) -> Any:
    return x.inner if isinstance(x, There) else x


def _outer(x: Any) -> Any:
    return There(x) if isinstance(x, torch.Tensor) and not isinstance(x, There) else x


def _strided(out: Any) -> bool:
    return all(x.layout == torch.strided for x in tree_leaves(out) if isinstance(x, torch.Tensor))


def _refuse(func: Any, args: Any, kwargs: Any) -> None:
    if func in _COPIES:
        return
    if func in _INDEXED and isinstance(args[0], There):
        args = (args[0], *args[2:])
    host = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor) and not isinstance(x, There)]
    if any(x.ndim for x in host):
        shapes = [list(x.shape) for x in host if x.ndim]
        raise Mixed(f"{func}: expected all tensors to be on the same device, found {DEVICE} and cpu ({shapes})")
    if isinstance(kwargs.get("generator"), torch.Generator):
        raise Mixed(f"{func}: expected a {NAME!r} device type for generator but found 'cpu'")


def _made(factory: Any, *names: str) -> None:
    """Let torch make tensors of the other device by the function that makes them on the host."""

    def make(*args: Any, **how: Any) -> torch.Tensor:
        if isinstance(how.get("generator"), torch.Generator):
            raise Mixed(f"{names[0]}: expected a {NAME!r} device type for generator but found 'cpu'")
        how = {name: value for name, value in how.items() if name in ("dtype", "memory_format") and value is not None}
        return There(factory(*args, **how))

    for name in names:
        _library.impl(name, make, "Lazy")


def _copied(x: torch.Tensor, to: Any, non_blocking: bool = False) -> Any:
    """What torch.tensor(list, device=...) ends in, beneath the tensors' own dispatch."""
    to.inner.copy_(_inner(x))
    return to


_library = torch.library.Library("aten", "IMPL", "Lazy")
_made(torch.empty, "empty.memory_format")
_made(torch.empty_strided, "empty_strided")
_made(torch.zeros, "_efficientzerotensor")
# what torch makes empty and then sizes, which a tensor with an inner one cannot follow
_made(torch.arange, "arange", "arange.start", "arange.start_step")
_made(torch.eye, "eye", "eye.m")
_made(torch.linspace, "linspace")
_made(torch.randperm, "randperm", "randperm.generator")
_library.impl("_copy_from", _copied, "Lazy")

_adam = import_module("torch.optim.adam")
_fused = _adam._device_dtype_check_for_fused


def _checked(parameter: torch.Tensor, **how: Any) -> None:
    _fused(_inner(parameter), **how)


_adam._device_dtype_check_for_fused = _checked  # fused Adam runs there as it does on a GPU
