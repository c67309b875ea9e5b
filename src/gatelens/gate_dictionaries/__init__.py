"""Dictionaries of a pair of hook points: transcoders, and dictionaries whose every feature is a gate of few inputs."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "transcoder": ("Transcoder",),
        "gate_first": ("GateDictionary",),
        "input_tuning": ("InputTuning",),
        "pair_bypass": ("PairBypass",),
    },
)
