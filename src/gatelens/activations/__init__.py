"""Activations: what the model computes at hook points, row by row, in memory or in checked shards."""

from .collecting import Activations as Activations
from .collecting import collect as collect
from .collecting import hook_names as hook_names
