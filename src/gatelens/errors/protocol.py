"""An object of a user's completed with the answers that a protocol has for those who do not say."""

from __future__ import annotations

from typing import Any

from . import GateLensError


class Foreign:
    """Somebody else's object: what it has of a protocol is its own. A subclass, beside the protocol's defaults, answers the rest.

    Attributes:
        own: the object.
    """

    def __init__(self, own: Any):
        self.own = own
        for name in dir(type(self)):
            if not name.startswith("_") and name not in vars(type(self)) and hasattr(own, name):
                setattr(self, name, getattr(own, name))

    def __repr__(self) -> str:
        return repr(self.own)


def completed(
    thing: Any, kind: str, defaults: type, foreign: type[Foreign], error: type[GateLensError], fit: str
) -> Any:
    """The object as it is where it knows the whole protocol, else as `foreign` completes it.

    Args:
        kind: what it should be, in a word. defaults: the class that knows the whole protocol. fit: what is asked of it at least.

    Raises:
        GateLensError: of the kind `error`, for an object without `fit`, or the class instead of an object of it.
    """
    if isinstance(thing, defaults):
        return thing
    if isinstance(thing, type):
        name = thing.__name__
        raise error(f"the {kind} is the class {name}, not an object of it: write {name}(...)")
    if not callable(getattr(thing, "fit", None)):
        raise error(f"{type(thing).__name__} has no {fit}")
    return foreign(thing)
