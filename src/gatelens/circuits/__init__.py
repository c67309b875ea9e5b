"""Circuits: what was found between the hook points of a model, one value; and how it is built."""

from ..basis.ends import features_at as features_at
from .building import build_circuit as build_circuit
from .building import connect as connect
from .building import read_gates as read_gates
from .building import seen_by as seen_by
from .circuit import Circuit as Circuit
