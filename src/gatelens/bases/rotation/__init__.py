"""Rotations in which the Jacobians of many inputs are sparse at once: one recipe, several methods, and what they answer."""

from ...lazy import lazy_names
from .fit import METHODS as METHODS
from .fit import fit_rotation as fit_rotation
from .recipe import JacobianRotation as JacobianRotation
from .result import FittedRotation as FittedRotation
from .result import Invertible as Invertible

__getattr__ = lazy_names(
    __name__,
    {
        "absorbed": ("RotatedMLP", "absorb", "rotated_segment"),
        "baselines": ("Answer", "baseline_table", "inputs_needed", "rotation_against_neurons"),
        "picture": ("JacobianPicture", "jacobian_picture", "rotation_pictures"),
    },
)
