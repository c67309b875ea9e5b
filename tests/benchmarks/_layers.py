"""One MLP of SmolLM2 for the benchmark of rules: its rows, features of them, a sample of outputs, and rules read of these."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from _kept import FOLDER
from _shuffled_mlp import shuffled_segment
from _smollm import Rows, collected
from sae_lens import SAE

import gatelens as gl
from gatelens.basis.output import output_features
from gatelens.codes.csr import stack_csr, to_csr
from gatelens.connectors import Connector
from gatelens.errors import GateLensError
from gatelens.gate_dictionaries.transcoder import read_transcoder
from gatelens.gates import Gate, type_gates
from gatelens.gates.stage import sparse_rows
from gatelens.gates.tables import Columns

#: eligible: on in so many rows of 120k fitted on, in so many held out, and in at most this share
FITTED, HELD, DENSE, OF = 200, 60, 0.2, 120_000
#: layers whose activations come from one pass
TOGETHER = ((1,), (12, 22))


@dataclass(frozen=True)
class Sizes:
    """How much is looked at.

    Attributes:
        rows: fitting and held out. outputs: eligible ones that are read, drawn at random; nulls: of a network of shuffled weights.
        rules: set in the model. samples: of a dictionary of a null's or another seed's own. few: outputs for slow questions.
    """

    rows: tuple[int, int] = (120_000, 26_000)
    outputs: int = 600
    nulls: int = 300
    rules: int = 200
    samples: int = 1_500_000
    few: int = 24


@dataclass
class Layer:
    """Everything that parts of the benchmark share about one layer.

    Attributes:
        by_row: None for the trained MLP; else its weights are shuffled, row by row or all, and the output has a dictionary of its own.
        dictionary_seed: None for the dictionaries that are installed; else the output's is trained anew with it.
        transcoder: the outputs are those of the transcoder that is installed: functions of the MLP's input.
    """

    model: Any
    layer: int
    data: Path
    seed: int
    sizes: Sizes
    by_row: bool | None = None
    dictionary_seed: int | None = None
    transcoder: bool = False
    gates: dict[str, list[Gate]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        own = "" if self.by_row is None else f"-{'row' if self.by_row else 'all'}"
        own += "-transcoder" if self.transcoder else ""
        return f"{self.layer}{own}" + ("" if self.dictionary_seed is None else f"-{self.dictionary_seed}")

    @cached_property
    def whole(self) -> Any:
        """The model's own segment."""
        return gl.mlp_segments(self.model, layers=[self.layer])[0]

    @cached_property
    def segment(self) -> Any:
        return self.whole if self.by_row is None else shuffled_segment(self.whole, self.seed, self.by_row)

    @cached_property
    def acts(self) -> tuple[Any, Any]:
        layers = next((t for t in TOGETHER if self.layer in t), (self.layer,))
        return collected(self.model, self.data, layers, self.sizes.rows, self.seed)

    @cached_property
    def parts(self) -> tuple[Rows, Rows]:
        """Fitting and held-out rows; of a shuffled MLP with its own outputs."""
        rows = tuple(Rows.of(a, self.whole, most) for a, most in zip(self.acts, self.sizes.rows, strict=True))
        if self.by_row is not None:
            with torch.no_grad():
                rows = tuple(
                    r.with_outputs(torch.cat([self.segment.forward(x) for x in r.x.split(4_096)])) for r in rows
                )
        return rows

    @cached_property
    def basis_in(self) -> Any:
        return gl.PretrainedSAE("smollm2").load(self.whole.hook_in)

    @cached_property
    def basis_out(self) -> Any:
        """The installed dictionary, or one of its own, kept on the disk, of the same recipe."""
        if self.transcoder:
            return read_transcoder("smollm2", self.whole)
        if self.by_row is None and self.dictionary_seed is None:
            return gl.PretrainedSAE("smollm2").load(self.whole.hook_out)
        file = FOLDER / f"{self.seed}-{self.name}-{self.sizes.samples}.pt"
        recipe = gl.TrainedSAE("batchtopk", trainer="sparse", k=16, d_sae=3_072, samples=self.sizes.samples,
                               seed=self.dictionary_seed or 0, batch_size=1_024)  # fmt: skip
        if not file.is_file():
            module = recipe.train(self.parts[0].y, self.whole.hook_out)
            module.save_model(file.with_suffix(""))
            file.touch()
        return SAE.load_from_disk(file.with_suffix(""))

    @cached_property
    def features(self) -> tuple[tuple[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]:
        """(in, out) of the fitting and of the held-out rows."""
        fit, held = ((coded(self.basis_in, r.x), outputs(self.basis_out, r)) for r in self.parts)
        return fit, held

    @cached_property
    def eligible(self) -> list[int]:
        fitted, held = (Columns.of(f[1], "f_out") for f in self.features)
        enough = (fitted.firings() >= FITTED * fitted.rows / OF) & (held.firings() >= HELD)
        return np.flatnonzero(enough & (fitted.firings() < DENSE * fitted.rows)).tolist()

    @cached_property
    def sample(self) -> list[int]:
        """Some of the eligible outputs, drawn at random."""
        most = self.sizes.outputs if self.by_row is None else self.sizes.nulls
        return sorted(np.random.default_rng(self.seed).permutation(self.eligible)[:most].tolist())

    def read(self, levels: str) -> list[Gate]:
        """The sample's gates, from natural rows."""
        if levels not in self.gates:
            (f_in, f_out), (h_in, h_out) = self.features
            y, z = (columns_of(f, self.sample) for f in (f_out, h_out))
            self.gates[levels] = type_gates(
                no_wires(f_in, y), f_in, y, held_out=(h_in, z), origins=self.parts, levels=levels, seed=self.seed
            )
        return self.gates[levels]

    def tried(self, outs: Sequence[int], levels: str) -> dict[int, Gate]:
        """Gates of some outputs, with everything that a user's are tried by; the other outputs are silenced."""
        (f_in, f_out), (h_in, h_out) = self.features
        y, z = (_silenced(f, outs) for f in (f_out, h_out))
        gates = type_gates(
            no_wires(f_in, y), f_in, y, held_out=(h_in, z), origins=self.parts, levels=levels, seed=self.seed,
            segment=self.segment, basis_in=self.basis_in, basis_out=self.basis_out, x=self.parts[1].x,
            x_fit=self.parts[0].x, require_verified=False,
        )  # fmt: skip
        return {out: gates[out] for out in outs}


def is_there(model: Any, layer: int) -> bool:
    """Whether dictionaries of our own making are installed for a layer."""
    segment = gl.mlp_segments(model, layers=[layer])[0]
    try:
        for hook in (segment.hook_in, segment.hook_out):
            gl.PretrainedSAE("smollm2").load(hook)
    except GateLensError:
        return False
    return True


def coded(basis: Any, x: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return stack_csr([to_csr(basis.encode(part)) for part in x.split(4_096)])


def outputs(basis: Any, rows: Rows) -> torch.Tensor:
    """The output features of rows, of a dictionary of y or of one that reads x."""
    parts = zip(rows.x.split(4_096), rows.y.split(4_096), strict=True)
    with torch.no_grad():
        return stack_csr([to_csr(output_features(basis, x, y)) for x, y in parts])


def no_wires(f_in: torch.Tensor, f_out: torch.Tensor) -> Connector:
    """Rules are learned over all inputs here: no wire is favoured."""
    rows = [(torch.zeros(0, dtype=torch.long), torch.zeros(0))] * f_out.shape[1]
    return Connector.from_rows(rows, torch.zeros(f_out.shape[1]), f_in.shape[1])


def columns_of(f: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
    return csr(sparse_rows(f)[:, list(some)])


def _silenced(f: torch.Tensor, some: Sequence[int]) -> torch.Tensor:
    """All columns but some without their entries."""
    rows = sparse_rows(f)
    rows.data = rows.data * np.isin(rows.indices, list(some))
    rows.eliminate_zeros()
    return csr(rows)


def csr(f: Any) -> torch.Tensor:
    f = f.tocsr()
    f.sort_indices()
    parts = (torch.from_numpy(f.indptr).long(), torch.from_numpy(f.indices).long(), torch.from_numpy(f.data))
    return torch.sparse_csr_tensor(*parts, size=f.shape, check_invariants=False)


def by_name(gate: Gate, name: str) -> float | None:
    """One of a gate's controls."""
    controls: Mapping[str, Any] = {} if gate.controls is None else vars(gate.controls)
    return controls.get(name)
