"""Data: seeded, finite, re-iterable batches; always a fitting part and a held-out part."""

from ..lazy import lazy_names
from .batches import Batch as Batch
from .batches import Batches as Batches

__getattr__ = lazy_names(__name__, {"images": ("image_batches",), "text": ("text_batches",)})
