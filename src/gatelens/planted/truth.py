"""What is planted: gates, the noise on them, and the mixes they are drawn from."""

from __future__ import annotations

from dataclasses import dataclass
from types import MappingProxyType

from ..errors import ConfigError, unknown
from ..errors.door import at_the_door
from ..gates.gate import GateKind

#: code of one inhibitor in a gate's sum: above the largest sum that exciters can reach
INHIBITED = 64

#: share of outputs by planted kind; gates that "at least m exciters, none of the inhibitors" can say
IN_CLASS = MappingProxyType(
    {
        "copy": 0.10,
        "or": 0.35,
        "and": 0.20,
        "and_not_subset": 0.10,
        "and_not": 0.10,
        "k_of_n": 0.05,
        "mixed": 0.10,
    }
)

#: gates that it cannot say, so that no rule should hold (`not_read` among the readings); "A and (B or C)" may be read as it is
OUT_OF_CLASS = MappingProxyType({"xor": 1 / 3, "and_or": 1 / 3, "graded": 1 / 3})

#: planted kind -> the readings that are right
ACCEPTED: dict[str, tuple[GateKind, ...]] = {
    "copy": (GateKind.COPY,),
    "or": (GateKind.OR,),
    "and": (GateKind.AND,),
    "and_not_subset": (GateKind.AND_NOT,),
    "and_not": (GateKind.AND_NOT,),
    "k_of_n": (GateKind.K_OF_N,),
    "mixed": (GateKind.MIXED,),
    "xor": (GateKind.NOT_READ,),
    "and_or": (GateKind.NOT_READ, GateKind.MIXED),
    "graded": (GateKind.NOT_READ,),
}


@dataclass(frozen=True)
class PlantedGate:
    """One output's true gate.

    The gate is open on a row when the sum of the codes of the inputs that are on lies in [low, high]; its value is then
    max(weights . x + bias, .1). A graded gate has no such code: it is open where weights . x + bias > 0.

    Attributes:
        out: index of the output feature.
        kind: a key of `ACCEPTED`.
        inputs: the parents; weights: theirs, negative for inhibitors.
        codes: 1 for a plain exciter, `INHIBITED` for an inhibitor, 8 for the A of "A and (B or C)".
    """

    out: int
    kind: str
    inputs: tuple[int, ...]
    weights: tuple[float, ...]
    codes: tuple[int, ...]
    low: int
    high: int = INHIBITED - 1
    bias: float = 0.0

    @property
    def accepted(self) -> tuple[GateKind, ...]:
        """The readings of this gate that are right."""
        return ACCEPTED[self.kind]

    @property
    def out_of_class(self) -> bool:
        return GateKind.NOT_READ in self.accepted


@at_the_door
@dataclass(frozen=True)
class Noise:
    """What blurs the planted outputs.

    Attributes:
        dropped: probability that an open gate's output is erased.
        spurious: outputs a row that fire for no reason, uniform over all outputs.
        leak: probability, for each active exciter, that a closed gate fires.
        multiplicative: sigma of the log-normal factor on every output value.
    """

    dropped: float = 0.05
    spurious: float = 2.0
    leak: float = 0.0
    multiplicative: float = 0.1

    def __post_init__(self):
        if not (0 <= self.dropped < 1 and 0 <= self.leak < 1 and self.spurious >= 0 and self.multiplicative >= 0):
            raise ConfigError(
                "noise must have dropped and leak in [0, 1), spurious and multiplicative >= 0; got "
                f"{self}. Correct the values"
            )

    @classmethod
    def level(cls, name: str) -> Noise:
        """One of "clean", "low", "mid", "high", "severe"."""
        if name not in LEVELS:
            raise ConfigError(unknown("noise level", name, LEVELS))
        return LEVELS[name]


LEVELS: dict[str, Noise] = {
    "clean": Noise(0.0, 0.0, 0.0, 0.05),
    "low": Noise(0.05, 2.0, 0.0, 0.1),
    "mid": Noise(0.15, 4.0, 0.01, 0.2),
    "high": Noise(0.3, 6.0, 0.03, 0.3),
    "severe": Noise(0.45, 8.0, 0.08, 0.4),
}
