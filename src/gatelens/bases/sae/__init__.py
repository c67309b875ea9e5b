"""Sparse autoencoders: trained here, published ones, their files, and whether one fits the model that it is used on."""

from ...lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {
        "trained": ("TrainedSAE", "SegmentSAE"),
        "pretrained": ("PretrainedSAE",),
    },
)
