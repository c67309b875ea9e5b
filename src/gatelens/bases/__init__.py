"""Bases: coordinates at a hook point. A recipe is fitted and gives bases; a basis encodes and decodes."""

from ..lazy import lazy_names
from .linear import PCA as PCA
from .linear import Basis as Basis
from .linear import BasisRecipe as BasisRecipe
from .linear import Neurons as Neurons
from .linear import Rotation as Rotation
from .linear import basis_width as basis_width
from .linear import directions as directions

__getattr__ = lazy_names(
    __name__,
    {
        "rotation": ("JacobianRotation", "fit_rotation"),
        "sae": ("TrainedSAE",),
        "pretrained": ("PretrainedSAE",),
        "transcoder": ("Transcoder",),
        "gate_first": ("GateDictionary",),
        "gate_basis": ("BuiltInWires",),
        "jacobian_pair": ("JacobianSAEPair",),
        "segment_sae": ("SegmentSAE",),
        "input_tuning": ("InputTuning",),
        "logit_tuning": ("LogitTuning",),
        "copies": ("copy_groups",),
        "merged": ("MergedBasis",),
        "counterfactual": ("Counterfactual",),
    },
)
