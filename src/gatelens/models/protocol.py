"""What GateLens asks of a model: three names, found on `HookedRootModule`, `HookedTransformer` and `TransformerBridge`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch

from ..errors import HookNameError


@runtime_checkable
class Model(Protocol):
    """A model with named hook points. Structural: nothing is to be inherited."""

    hook_dict: Any

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


def check_hook_names(model: Model, names: Iterable[str]) -> None:
    """Raise `HookNameError` for the first name that the model lacks.

    transformer-lens itself drops an unknown name in silence and returns an empty cache.
    """
    for name in names:
        if name not in model.hook_dict:
            raise HookNameError(name, model.hook_dict)


def device_of(model: Any) -> torch.device:
    """The device of the model's first parameter (CPU for a model without any)."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))
