"""Planted ground truth: feature data and networks whose gates are known, scores against them, conformance checks.

`PlantedFeatures(...).plant()` makes feature activations at both ends of a segment; `plant_network(...)` a network whose
features lie in superposition; `plant_chains(...)` chains of two hops that a transcoder writes as one; `score_wires` and
`score_gates` compare what was found; `check_solver` and `check_basis` are for authors of plugins.

Examples:
    >>> gl.planted.score_wires(net.gates, circuit.connectors[net.segment.name])
    all: WireCounts(precision 0.9..., recall 0.9..., ...)
    ...
"""

from ..errors.door import behind
from ..lazy import lazy_names
from .truth import IN_CLASS as IN_CLASS
from .truth import OUT_OF_CLASS as OUT_OF_CLASS
from .truth import Noise as Noise
from .truth import PlantedGate as PlantedGate

__getattr__ = behind(
    lazy_names(
        __name__,
        {
            "features": ("PlantedFeatures", "Planted"),
            "network": ("PlantedNetwork", "plant_network", "word_network"),
            "scores": ("WireScores", "GateScores", "score_wires", "score_gates", "true_connector"),
            "conformance": ("check_basis", "check_solver"),
            "chains": ("PlantedChains", "plant_chains"),
        },
        old={"EdgeScores": "WireScores", "score_edges": "score_wires"},
    )
)
