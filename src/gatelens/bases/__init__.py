"""Bases of one hook point that are fitted: rotations that make Jacobians sparse, sparse autoencoders."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "rotation": ("JacobianRotation", "fit_rotation"),
        "sae": ("TrainedSAE", "PretrainedSAE", "SegmentSAE"),
    },
)
