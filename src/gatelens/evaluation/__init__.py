"""Evaluation: what the model does with the circuit in place of its own computation, on held-out data."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "splice": ("splice",),
        "report": ("Report",),
        "evaluate": ("evaluate",),
        "baselines": ("baseline_circuits",),
        "ladder": ("ladder",),
        "causal": ("causal_figures",),
        "coverage": ("coverage",),
    },
)
