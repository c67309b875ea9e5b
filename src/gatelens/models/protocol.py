"""What GateLens asks of a model: three names, found on `HookedRootModule`, `HookedTransformer` and `TransformerBridge`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol, runtime_checkable

import torch
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from ..errors import HookNameError, ModelError


@runtime_checkable
class Model(Protocol):
    """A model with named hook points. Structural: nothing is to be inherited."""

    hook_dict: Any

    def run_with_cache(self, *args: Any, **kwargs: Any) -> Any: ...

    def run_with_hooks(self, *args: Any, **kwargs: Any) -> Any: ...


def check_hook_names(model: Any, names: Iterable[str]) -> None:
    """Raise `HookNameError` for the first name that the model lacks.

    transformer-lens itself drops an unknown name in silence and returns an empty cache.

    Raises:
        ModelError: for a model without hook points, and for a name that is hidden by an SAE which is attached to the model.
    """
    check_model(model)
    for name in names:
        if name in model.hook_dict:
            continue
        if hiding := [known for known in model.hook_dict if known.startswith(f"{name}.hook_sae")]:
            raise ModelError(
                f"an SAE is attached at {name} and stands in its place ({', '.join(hiding[:3])}): expected the model's own "
                "value there. Take it off with model.reset_saes(), and give it as a basis instead"
            )
        raise HookNameError(name, model.hook_dict)


def check_model(model: Any) -> None:
    """Whether it has hook points at all, and computes the same every time.

    Raises:
        ModelError: with how to wrap a model that has none; a model that draws or learns while it runs.
    """
    missing = [name for name in ("hook_dict", "run_with_cache", "run_with_hooks") if not hasattr(model, name)]
    if not missing:
        _check_settled(model)
        return
    what = f"{type(model).__module__.split('.')[0]}'s {type(model).__name__}"
    if hasattr(model, "name_or_path") and hasattr(model, "config"):
        how = (
            "A Hugging Face model is wrapped by load_model(folder), after model.save_pretrained(folder), or by "
            "transformer_lens.model_bridge.TransformerBridge.boot_transformers(name, hf_model=model)"
        )
    elif isinstance(model, torch.nn.Sequential):
        how = "A chain of Linear and ReLU is wrapped by HookedMLP(model)"
    else:
        how = (
            "Load one with load_model, or derive yours from transformer_lens.HookedRootModule and put HookPoints in it"
        )
    raise ModelError(f"{what} has no hook points ({', '.join(missing)} is missing). {how}")


def _check_settled(model: Any) -> None:
    """Compiled code need not call hooks; in training, dropout draws anew on each pass, batch norm mixes the rows and changes itself."""
    modules = model.named_modules() if isinstance(model, torch.nn.Module) else ()
    for name, module in modules:
        if "_orig_mod" in module._modules or getattr(module, "_compiled_call_impl", None) is not None:
            raise ModelError(
                f"the model is compiled ({name or 'all of it'}): hooks that are put on it afterwards may not run, and nothing would tell. "
                "Give it as it was before torch.compile (compiled._orig_mod)"
            )
        draws = isinstance(module, _DropoutNd) and module.p > 0
        if module.training and (draws or isinstance(module, _BatchNorm)):
            raise ModelError(
                f"the model is in training: its {type(module).__name__} ({name}) computes something else on each pass. "
                "Call model.eval() first"
            )


def device_of(model: Any) -> torch.device:
    """The device of the model's first parameter (CPU for a model without any)."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def cut_off_words(first_layers: int) -> str:
    """What is said of a model of which only so many blocks were loaded."""
    return (
        f"the model was loaded with first_layers={first_layers}, so its logits cannot be had. "
        "Load it whole for losses, ablations and predictions"
    )


def why_no_logits(model: Any) -> str:
    """Why a model's predictions cannot be had; "" where they can."""
    first_layers = getattr(model, "loaded", {}).get("first_layers")
    return "" if first_layers is None else cut_off_words(first_layers)
