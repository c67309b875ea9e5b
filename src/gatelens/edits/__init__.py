"""Edits: changes of a row's features, and what the model makes of them."""

from .counterfactual import Counterfactual as Counterfactual
