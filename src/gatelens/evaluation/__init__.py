"""Evaluation: what the model does with the circuit in place of its own computation, on held-out data."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "splicing": ("splice",),
        "polish": ("Polish",),
        "report": ("Report",),
        "measure": ("evaluate",),
        "baselines": ("baseline_circuits",),
        "removal": ("removals",),
        "coverage": ("Coverage", "CoverageReport", "measure_coverage", "circuit_coverage"),
        "wire_curves": ("WireCurve", "wire_curve", "circuit_wire_curves"),
    },
)
