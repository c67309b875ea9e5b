"""Stability: what of a reading survives another seed, other inputs, noise in the weights, more training, a retrained model."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
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
