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
        "causal": ("causal_figures",),
        "edge_ablation": ("ablate_edges", "drop_contradicted"),
        "coverage": ("Coverage", "CoverageReport", "measure_coverage", "circuit_coverage"),
        "edge_curves": ("EdgeCurve", "edge_curve", "circuit_edge_curves"),
    },
)
