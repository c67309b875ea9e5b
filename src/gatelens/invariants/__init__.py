"""Invariants: what can be said of a network without choosing coordinates, and what only seems so.

Only exact rank, level sets and topology survive every invertible change of coordinates. Everything else here names the
metric that it depends on, and stands beside what chance would give.

Examples:
    >>> import torch
    >>> gl.invariants.ranks(torch.diag(torch.tensor([3.0, 1.0, 0.0]))[None]).exact
    tensor([2])
"""

from ..errors.door import behind
from ..lazy import lazy_names

__getattr__ = behind(
    lazy_names(
        __name__,
        {
            "rank": ("Ranks", "ranks", "segment_jacobians", "whiten_jacobians", "segment_ranks"),
            "randomised": ("randomised_singular_values",),
            "principal_angles": ("Consistency", "consistency"),
            "subspaces": ("Subspace", "active_subspace", "oblique_subspace", "principal_subspace", "random_subspace"),
            "sensitivity": ("output_sensitivity", "segment_sensitivity"),
            "summary": ("SummaryCurve", "summary_curve"),
            "bottleneck": ("Bottleneck", "Witness"),
            "levels": ("LevelSets", "level_sets", "chain_form"),
            "report": ("RankReport", "rank_report"),
            "topology": ("Homology", "persistent_homology"),
            "lsrdr": ("LSRDR", "Reduction", "spectral_similarity"),
            "clusters": ("Clusters", "neuron_clusters"),
            "packing": ("Superposition", "superposition"),
            "linear_code": ("Linearity", "linearity"),
        },
    )
)
