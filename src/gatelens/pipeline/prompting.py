"""A prompt read by the circuit of a finished run, with the run's own rows for names and typical levels."""

from __future__ import annotations

from pathlib import Path

from ..activations import Activations
from ..circuits import Circuit
from ..errors import ConfigError, StoreError
from ..prompts.reading import PromptReading, read_prompt
from .foreign import check_safe
from .provenance import check_part
from .resume import stored_config
from .running import state_of


def reading_of(run: Path, text: str, safe: bool = False) -> PromptReading:
    """The reading of a text by the run's circuit; nothing in the run folder is made or changed.

    Args:
        safe: refuse a run whose config names what is not ours: it is imported and called for the model.

    Raises:
        ConfigError: no run folder, or one without a circuit. DataError: a prompt that the model cannot read.
    """
    config = check_safe(stored_config(run)) if safe else stored_config(run)
    if not (run / "circuit" / "circuit.json").is_file():
        raise ConfigError(
            f"{run} holds no circuit yet: expected a run that went as far as its gates. Go on with "
            f"`gatelens gates {run / 'config.yaml'} --out {run}`"
        )
    for part in ("config.yaml", "model", "circuit"):
        check_part(run, part)
    walk = state_of(config, run)
    circuit = Circuit.load(run / "circuit", walk.segments)
    try:
        acts = Activations.open(run / "activations" / "held_out")
    except StoreError:  # a run whose activations were cleared away still reads prompts, without names
        acts = None
    return read_prompt(circuit, walk.model, text, acts, walk.batches[1])
