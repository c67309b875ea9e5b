"""Feature activations over rows in sparse form, and the arithmetic on a row's active features alone."""

from .rows import Codes as Codes
