"""Gates: what an output feature's wires compute, read as logic and checked."""

from ..lazy import lazy_names
from .gate import Gate as Gate
from .gate import GateKind as GateKind
from .gate import TruthTable as TruthTable

__getattr__ = lazy_names(__name__, {"typing": ("type_gates",)})
