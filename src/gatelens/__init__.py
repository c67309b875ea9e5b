"""GateLens reads an MLP as logic.

Choose coordinates at two hook points, find the few wires between them, read the wires as gates, check every reading
against the model itself, and show it. Names are imported on first use, so that `gatelens --help` answers at once.

Examples:
    The examples of the other docstrings go on from here: a small MLP of which all gates are known.

    >>> import gatelens as gl
    >>> net = gl.planted.plant_network()
    >>> model, segments, bases = net.model, [net.segment], net.dictionaries
    >>> fit, held_out = net.batches(4000), net.batches(2000, seed=1)
    >>> acts, unseen = gl.collect(model, fit, segments), gl.collect(model, held_out, segments)
    >>> circuit = gl.build_circuit(model, segments, bases, acts, gl.ReluOMP(), held_out=unseen)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from . import bound as bound  # methods of values that need later rooms; imports none of them yet

__version__ = "0.2.0"

#: room -> the names that it shows at the front door
FRONT_DOOR: dict[str, tuple[str, ...]] = {
    "models": ("HookedMLP", "load_model"),
    "data": ("image_batches", "text_batches"),
    "segments": ("Segment", "mlp_segments"),
    "activations": ("Activations", "collect"),
    "basis": ("Neurons", "PCA", "Rotation"),
    "bases": ("JacobianRotation", "TrainedSAE", "PretrainedSAE"),
    "jacobians": ("feature_jacobian", "jacobian_columns", "sparsity"),
    "connectors": ("Connector",),
    "solvers": ("GramLasso", "ReluOMP", "SgdL1", "VirtualWeights", "MeanJacobian", "BuiltInWires"),
    "edits": ("Counterfactual",),
    "gate_dictionaries": ("Transcoder", "GateDictionary", "PairBypass"),
    "gates": ("Gate", "GateKind", "TruthTable", "type_gates"),
    "circuits": ("Circuit", "build_circuit"),
    "evaluation": ("evaluate", "splice", "Report"),
    "prompts": ("PromptReading",),
    "views": ("label",),
    "pipeline": ("find_circuit",),
    "errors.tracker": ("tracking",),
}
SUBMODULES = ("views", "planted", "stability", "invariants")

_ROOM_OF = {name: room for room, names in FRONT_DOOR.items() for name in names}

__all__ = [*_ROOM_OF, *SUBMODULES]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    if name in SUBMODULES:
        return import_module(f"{__name__}.{name}")
    if name in _ROOM_OF:
        thing = getattr(import_module(f"{__name__}.{_ROOM_OF[name]}"), name)
        return import_module(f"{__name__}.errors.door").at_the_door(thing)
    raise AttributeError(f"module 'gatelens' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


if TYPE_CHECKING:
    from . import invariants as invariants
    from . import planted as planted
    from . import stability as stability
    from . import views as views
    from .activations.collecting import Activations as Activations
    from .activations.collecting import collect as collect
    from .bases import JacobianRotation as JacobianRotation
    from .bases import PretrainedSAE as PretrainedSAE
    from .bases import TrainedSAE as TrainedSAE
    from .basis import PCA as PCA
    from .basis import Neurons as Neurons
    from .basis import Rotation as Rotation
    from .circuits import Circuit as Circuit
    from .circuits import build_circuit as build_circuit
    from .connectors import Connector as Connector
    from .data import image_batches as image_batches
    from .data import text_batches as text_batches
    from .edits import Counterfactual as Counterfactual
    from .errors.tracker import tracking as tracking
    from .evaluation import Report as Report
    from .evaluation import evaluate as evaluate
    from .evaluation import splice as splice
    from .gate_dictionaries import GateDictionary as GateDictionary
    from .gate_dictionaries import PairBypass as PairBypass
    from .gate_dictionaries import Transcoder as Transcoder
    from .gates import Gate as Gate
    from .gates import GateKind as GateKind
    from .gates import TruthTable as TruthTable
    from .gates import type_gates as type_gates
    from .jacobians import feature_jacobian as feature_jacobian
    from .jacobians import jacobian_columns as jacobian_columns
    from .jacobians import sparsity as sparsity
    from .models import HookedMLP as HookedMLP
    from .models import load_model as load_model
    from .pipeline import find_circuit as find_circuit
    from .prompts.reading import PromptReading as PromptReading
    from .segments import Segment as Segment
    from .segments import mlp_segments as mlp_segments
    from .solvers import BuiltInWires as BuiltInWires
    from .solvers import GramLasso as GramLasso
    from .solvers import MeanJacobian as MeanJacobian
    from .solvers import ReluOMP as ReluOMP
    from .solvers import SgdL1 as SgdL1
    from .solvers import VirtualWeights as VirtualWeights
    from .views.labelling import label as label
