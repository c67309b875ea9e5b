"""A circuit on a prompt: what fires where, why it does there, and what happens when it is switched."""

from ..lazy import lazy_names

__getattr__ = lazy_names(
    __name__,
    {"reading": ("PromptReading", "read_prompt"), "local": ("LocalReading",), "firing": ("Firing",)},
)
