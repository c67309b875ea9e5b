"""Ground: what a user told torch for a whole process or thread is put aside while the house works, and put back behind it.

A default type, autocast, inference mode, a default device: each changes what tensors become that nobody gives a type, a
gradient or a device, in our files and in those of the libraries below. The door asks for level ground once, so that a
figure is the same whatever is set around the call.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from . import ConfigError

#: the types of device that can be cast on
_CAST = ("cpu", "cuda", "mps")


class _Depth(threading.local):
    """How many doors this thread is behind."""

    here = 0


_depth = _Depth()


class _DefaultType:
    """The default type is the process's: the first that comes sets it to float32, the last that goes puts back what stood there."""

    def __init__(self) -> None:
        self.lock, self.inside, self.before = threading.Lock(), 0, None

    @contextmanager
    def plain(self, torch: Any) -> Iterator[None]:
        with self.lock:
            if not self.inside:
                self.before = torch.get_default_dtype()
                torch.set_default_dtype(torch.float32)
            self.inside += 1
        try:
            yield
        finally:
            with self.lock:
                self.inside -= 1
                if not self.inside:
                    torch.set_default_dtype(self.before)


_default_type = _DefaultType()


@contextmanager
def level(name: str, gradients: bool = True) -> Iterator[None]:
    """Within the block torch stands as a fresh process has it.

    Args:
        name: who asks, for errors.
        gradients: also where a user keeps no gradients; values' methods leave that to them.

    Raises:
        ConfigError: within one of torch.func's transforms, where tensors are not what they seem; a value's own methods, such as a
            basis' decode, may be transformed.
    """
    torch = sys.modules.get("torch")
    if _depth.here or torch is None:
        yield
        return
    if _within_transform(torch):
        if gradients:
            raise ConfigError(
                f"{name} was called within one of torch.func's transforms (vmap, grad, jvp, ...), where a tensor stands for others: "
                "call it outside, and transform `segment.forward` or your own function of its value"
            )
        yield
        return
    with ExitStack() as aside:
        put = _put_aside(torch, aside, gradients)
        _depth.here += 1
        try:
            yield
        except Exception as error:
            if put:
                error.add_note(f"{name} ran without what was set around it: {', '.join(put)}")
            raise
        finally:
            _depth.here -= 1


def _put_aside(torch: Any, aside: ExitStack, gradients: bool) -> list[str]:
    """Enter what undoes each setting that is not torch's own; what was undone."""
    put: list[str] = []
    if _default_type.inside or torch.get_default_dtype() != torch.float32:
        put.append(f"torch.set_default_dtype({torch.get_default_dtype()})")
        aside.enter_context(_default_type.plain(torch))
    for kind in _CAST:
        if torch.is_autocast_enabled(kind):
            put.append(f"torch.autocast({kind!r})")
            aside.enter_context(torch.autocast(kind, enabled=False))
    if torch.get_default_device().type != "cpu":
        put.append(f"the default device {torch.get_default_device()}")
        aside.enter_context(torch.device("cpu"))
    if torch.is_inference_mode_enabled():
        put.append("torch.inference_mode()")
        aside.enter_context(torch.inference_mode(False))
        aside.enter_context(torch.set_grad_enabled(gradients))
    elif gradients and not torch.is_grad_enabled():
        aside.enter_context(torch.enable_grad())
    return put


def _within_transform(torch: Any) -> bool:
    asked = getattr(torch._C, "_functorch", None)
    return asked is not None and asked.peek_interpreter_stack() is not None
