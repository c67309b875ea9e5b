"""Solvers: one file a way of making a connector; all satisfy `connectors.Solver`."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "gram_lasso": ("GramLasso",),
        "relu_omp": ("ReluOMP",),
        "sgd": ("SgdL1",),
        "virtual_weights": ("VirtualWeights",),
        "mean_jacobian": ("MeanJacobian",),
        "built_in": ("BuiltInWires",),
        "size_rule": ("BySize",),
        "calibration": ("calibrated", "thresholded"),
        "where_on": ("fitted_where_on",),
    },
)
