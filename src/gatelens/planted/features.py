"""Feature data with known gates: inputs that fire in clusters, outputs that are gates of them, noise, any width."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from ..errors import ConfigError
from .draw_gates import draw_gates
from .inputs import InputWorld, zipf_rates
from .truth import IN_CLASS, INHIBITED, Noise, PlantedGate

#: rows drawn at once; part of what a seed means, so that a stream and a sample hold the same rows
BLOCK = 25_000


#: features or dimensions beyond which a planted world would not fit into any memory
_MOST = 1_000_000


def check_sizes(**sizes: int) -> None:
    """Refuse a planted world of no size, or of a size that no machine holds.

    Raises:
        ConfigError: the name and the value of the first that is out of range.
    """
    for name, value in sizes.items():
        if not 1 <= value <= _MOST:
            raise ConfigError(f"{name} = {value}: expected a number of features or dimensions from 1 to {_MOST:,}")


@dataclass(frozen=True)
class PlantedFeatures:
    """Settings of planted feature data; `plant()` draws the gates.

    Attributes:
        width_in, width_out: features at both ends (`width_out` None: as many as inputs).
        cluster: features a cluster; active_clusters: mean number of clusters active on a row.
        background: share of inputs outside any cluster; background_l0: how many of them fire on a row.
        zipf: exponent of the rates of clusters and of background features.
        subsets, shadows, copies: shares of the clusters' features that fire only inside another one, that co-fire with
            another one without being the parent, and that repeat another one exactly.
        mix: share of outputs by kind (`IN_CLASS`, `OUT_OF_CLASS`, or one of your own).
        noise: on the outputs.
        seed: of the gates; rows have a seed of their own.
    """

    width_in: int = 4096
    width_out: int | None = None
    cluster: int = 32
    active_clusters: float = 2.5
    background: float = 0.25
    background_l0: float = 8.0
    zipf: float = 0.8
    subsets: float = 0.15
    shadows: float = 0.05
    copies: float = 0.0
    mix: Mapping[str, float] = field(default_factory=lambda: dict(IN_CLASS))
    noise: Noise = field(default_factory=Noise)
    seed: int = 0

    def __post_init__(self):
        check_sizes(width_in=self.width_in, width_out=self.width_in if self.width_out is None else self.width_out)
        if self.cluster < 8 or self.width_in < 2 * self.cluster:
            raise ConfigError(
                f"planted clusters need 8 features or more and two clusters' worth of inputs; got "
                f"cluster={self.cluster}, width_in={self.width_in}. Widen the input or shrink the cluster"
            )
        if self.subsets + self.shadows + self.copies > 0.6:
            raise ConfigError(
                "subsets, shadows and copies are shares of one whole, at most .6 together, since each needs a free "
                f"host; got {self.subsets} + {self.shadows} + {self.copies}. Lower them"
            )

    def plant(self) -> Planted:
        """Draw the world of the inputs and the gates of the outputs."""
        rng = np.random.default_rng((self.seed, 1))
        world = self._world(rng)
        gates = draw_gates(world, self.width_out or self.width_in, self.mix, rng)
        return Planted(self, world, tuple(gates))

    def _world(self, rng: np.random.Generator) -> InputWorld:
        clusters = max(2, round(self.width_in * (1 - self.background) / self.cluster))
        clusters = min(clusters, self.width_in // self.cluster)
        shape = (clusters, self.cluster)
        rate = rng.uniform(0.15, 0.45, shape)
        role, host = np.full(shape, "", dtype="<U6"), np.tile(np.arange(self.cluster), (clusters, 1))
        with_host, without_host = rate.copy(), rate.copy()
        # (name, share, firing with the host, firing without it)
        roles = (
            ("subset", self.subsets, 0.4, 0.0),
            ("shadow", self.shadows, 0.9, 0.05),
            ("copy", self.copies, 1.0, 0.0),
        )
        counts = [rng.binomial(self.cluster, share, clusters) for _, share, _, _ in roles]
        for c in range(clusters):
            slots = rng.permutation(self.cluster)
            hosts = slots[: max(4, self.cluster // 4)]  # always free, and enough for any gate
            begin = len(hosts)
            for (name, _, with_, without), count in zip(roles, counts, strict=True):
                chosen = slots[begin : begin + count[c]]
                begin += count[c]
                role[c, chosen], host[c, chosen] = name, rng.choice(hosts, len(chosen))
                with_host[c, chosen], without_host[c, chosen] = with_, without
        background = zipf_rates(self.width_in - clusters * self.cluster, self.background_l0, self.zipf)
        return InputWorld(
            zipf_rates(clusters, self.active_clusters, self.zipf), host, with_host, without_host, role, background
        )


@dataclass(frozen=True, eq=False)
class Planted:
    """Known gates, and as many rows as are wanted of features that obey them."""

    settings: PlantedFeatures
    world: InputWorld
    gates: tuple[PlantedGate, ...]

    @property
    def width_in(self) -> int:
        return self.world.width

    @property
    def width_out(self) -> int:
        return len(self.gates)

    def sample(self, rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """f_in [rows, m] and f_out [rows, n], torch sparse CSR, float32, with 32-bit indices where they suffice."""
        blocks = list(self._blocks(rows, seed))
        f_in, f_out = (sparse.vstack(part, format="csr") for part in zip(*blocks, strict=True))
        return to_torch(sparse.csr_array(f_in)), to_torch(sparse.csr_array(f_out))

    def stream(self, rows: int, seed: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """The same rows as `sample`, block by block, so that only one block is in memory."""
        for f_in, f_out in self._blocks(rows, seed):
            yield to_torch(f_in), to_torch(f_out)

    def _blocks(self, rows: int, seed: int) -> Iterator[tuple[sparse.csr_array, sparse.csr_array]]:
        for block, start in enumerate(range(0, rows, BLOCK)):
            rng = np.random.default_rng((self.settings.seed, 2, seed, block))
            f_in = self.world.draw(BLOCK, rng)
            f_out = self.outputs(f_in, rng)
            keep = min(BLOCK, rows - start)
            yield f_in[:keep], f_out[:keep]

    def outputs(self, f_in: sparse.csr_array, rng: np.random.Generator, noise: Noise | None = None) -> sparse.csr_array:
        """What the gates make of input rows, with noise (None: the settings')."""
        noise = self.settings.noise if noise is None else noise
        code_matrix, weight_matrix, low, high, bias, graded = self._matrices
        fires = sparse.csr_array((np.ones_like(f_in.data), f_in.indices, f_in.indptr), f_in.shape)
        # the two products have the same pattern: the same stored places on both sides, and no cancelling in either
        code, z = fires @ code_matrix, f_in @ weight_matrix
        code.sort_indices()
        z.sort_indices()
        row = np.repeat(np.arange(f_in.shape[0]), np.diff(code.indptr))
        out = code.indices
        value = z.data + bias[out]
        is_open = np.where(graded[out], value > 0, (code.data >= low[out]) & (code.data <= high[out]))
        kept = is_open & (rng.random(len(out)) >= noise.dropped)
        if noise.leak:
            exciters = np.minimum(code.data % INHIBITED, 8)
            kept |= ~is_open & (rng.random(len(out)) < 1 - (1 - noise.leak) ** exciters)
        value = np.where(graded[out], np.maximum(value, 0.02), np.maximum(value, 0.1))
        return self._assemble(row[kept], out[kept], value[kept], f_in.shape[0], noise, rng)

    def _assemble(
        self, row: np.ndarray, out: np.ndarray, value: np.ndarray, rows: int, noise: Noise, rng: np.random.Generator
    ) -> sparse.csr_array:
        count = rng.poisson(noise.spurious * rows)
        key = np.concatenate(
            [row.astype(np.int64) * self.width_out + out, rng.integers(0, rows * self.width_out, count)]
        )
        value = np.concatenate([value, rng.lognormal(-0.3, 0.3, count)])
        key, first = np.unique(key, return_index=True)  # a gate's own value comes first and stays
        value = value[first] * rng.lognormal(0.0, noise.multiplicative, len(key))
        crow = np.zeros(rows + 1, np.int32)
        np.cumsum(np.bincount(key // self.width_out, minlength=rows), out=crow[1:])
        columns = (key % self.width_out).astype(np.int32)
        return sparse.csr_array((value.astype(np.float32), columns, crow), (rows, self.width_out))

    @cached_property
    def _matrices(self) -> tuple[sparse.csr_array, sparse.csr_array, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Codes [m, n], weights [m, n], and low, high, bias, graded [n]."""
        parent = np.concatenate([np.array(g.inputs) for g in self.gates])
        out = np.repeat(np.arange(self.width_out), [len(g.inputs) for g in self.gates])
        code = np.concatenate([np.array(g.codes, np.float64) for g in self.gates])
        weight = np.concatenate([np.array(g.weights) for g in self.gates])
        shape = (self.width_in, self.width_out)
        return (
            sparse.csr_array((code, (parent, out)), shape),
            sparse.csr_array((weight, (parent, out)), shape),
            np.array([g.low for g in self.gates]),
            np.array([g.high for g in self.gates]),
            np.array([g.bias for g in self.gates]),
            np.array([g.kind == "graded" for g in self.gates]),
        )


def to_torch(matrix: sparse.csr_array) -> Tensor:
    """A scipy CSR matrix as a torch one that shares its memory."""
    return torch.sparse_csr_tensor(
        torch.from_numpy(matrix.indptr),
        torch.from_numpy(matrix.indices),
        torch.from_numpy(matrix.data),
        matrix.shape,
        check_invariants=False,  # made by scipy just now
    )
