"""Stability: what of a reading survives another seed, other inputs, noise in the weights, more training, a retrained model.

Examples:
    >>> directions = bases["hook_resid"].W_dec
    >>> gl.stability.match_directions(directions, directions.flip(0))  # the same ones, in another order
    Matching(96 pairs by directions: mean |similarity| 1.000, weighted 1.000, random counterpart 0...)
"""

from ..errors.door import behind
from ..lazy import lazy_names

__getattr__ = behind(
    lazy_names(
        __name__,
        {
            "matching": ("Matching", "match_directions", "match_activations", "mean_max_cosine"),
            "agreement": ("Agreement", "wire_jaccard", "gate_agreement"),
            "perturb": ("noisy_model", "noise_for_rise", "fine_tuned"),
            "rotations": ("GainKept", "gain_kept"),
            "conditions": ("Condition", "standard_conditions", "halves"),
            "refits": ("Stability", "StabilityRow", "stability"),
        },
        old={"edge_jaccard": "wire_jaccard"},
    )
)
