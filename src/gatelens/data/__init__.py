"""Data: seeded, finite, re-iterable batches; always a fitting part and a held-out part."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__, {"batches": ("Batch", "Batches"), "images": ("image_batches",), "text": ("text_batches",)}
)
