"""What a user is told: the few things that can go wrong, each with its sentence. Beside it the check at the door, and the bars.

Every error that a user can cause is a `GateLensError`. Its message says what was expected, what came, and what to do
next; the command prints it and exits with 2. Anything else that escapes is our own fault and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GateLensError(Exception):
    """Something that the user can put right; the message says how."""


class ConfigError(GateLensError):
    """A config file or a setting that does not say what GateLens can do."""


class ModelError(GateLensError):
    """A model that cannot be loaded, or that lacks what the walk needs."""


class HookNameError(GateLensError):
    """A hook name that the model does not have."""

    def __init__(self, name: str, known: Iterable[str]):
        known = list(known)
        self.name, self.nearest = name, nearest(name, known)
        super().__init__(
            f"the model has no hook point {name!r}{out_of_range(name, known)}; the nearest of its {len(known)} are "
            f"{', '.join(self.nearest) or 'none'}. `gatelens hooks CONFIG` lists them all"
        )


class SegmentError(GateLensError):
    """A stretch between two hook points that does not compute what it says."""


class DataError(GateLensError):
    """Data that is missing, empty, too small or of the wrong kind."""


class NonFiniteError(GateLensError):
    """NaN or infinity where a number was expected."""


class BasisError(GateLensError):
    """A basis that does not belong to the hook point, or that cannot be used."""


class SolverError(GateLensError):
    """Features or settings that a solver cannot work with."""


class TooLargeError(GateLensError):
    """Work that would not fit in memory or on disk; refused before it starts."""


class StoreError(GateLensError):
    """A stored artefact that is damaged, foreign, locked or from another run."""


class HubError(GateLensError):
    """A hub that is out of reach, or that lacks what was asked of it."""


class GateLensWarning(UserWarning):
    """A result that stands, with something about it that the reader must know."""


def nearest(name: str, known: Iterable[str], count: int = 3) -> list[str]:
    """The `count` known names most like `name`, the likest first."""
    return difflib.get_close_matches(name, list(known), n=count, cutoff=0.0)


#: of what a user gave, so much is shown again
ECHOED = 200


def shown(value: object) -> str:
    """A value as a user gave it, in so few letters that an error stays readable whatever it was."""
    text = repr(value)
    return text if len(text) <= ECHOED else f"{text[:ECHOED]}... ({len(text):,} letters)"


def unknown(kind: str, name: str, known: Iterable[str]) -> str:
    """The sentence for an unknown name: what came, the nearest known, and all of them when they are few."""
    known, name = sorted(known), name[:ECHOED]
    listing = f" (known: {', '.join(known)})" if len(known) <= 12 else ""
    close = nearest(name, known, 1)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"unknown {kind} {name!r}{hint}{listing}"


def out_of_range(name: str, known: Iterable[str]) -> str:
    """For `blocks.17...` in a model of 4 layers: a clause that states the range, else nothing."""
    parts = name.split(".")
    for place, part in enumerate(parts):
        if not part.isdigit():
            continue
        head = parts[:place]
        layers = {
            int(other[place])
            for other in (k.split(".") for k in known)
            if len(other) > place and other[:place] == head and other[place].isdigit()
        }
        if layers and int(part) not in layers:
            return f" (layer {part} is out of range: {min(layers)}..{max(layers)})"
    return ""
