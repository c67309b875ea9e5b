"""The walk through all rooms: in one call for a model at hand, or from a config into a run folder, resumable."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {"find": ("Found", "find_circuit"), "config": ("Config", "read_config", "preflight"), "running": ("run", "ROOMS")},
)
