"""The ladder: every way to replace an MLP, side by side."""

from ..lazy import lazy_names

__getattr__ = lazy_names(__name__, {"measuring": ("measure_ladder", "Measure", "Entry", "Rows"), "rungs": ("Ladder",)})
