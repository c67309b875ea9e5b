"""Gates: the rules that outputs obey, how much speaks for each, and what the model itself says to them."""

from ..lazy import lazy_names
from .gate import Gate as Gate
from .gate import TruthTable as TruthTable
from .grade import Grade as Grade
from .rule import GateKind as GateKind

__getattr__ = lazy_names(__name__, {"typing": ("type_gates",)})
