"""ReluOMP: few wires between wide sparse dictionaries, one output at a time, without a features-squared matrix."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor

from ..basis.linear import Basis
from ..connectors import Connector
from ..distributed import meet, shared, team, wait_for
from ..errors import SolverError
from ..errors.progress import bar
from ..segments import Segment
from ..store import slug
from ..store.estimate import Estimate, greedy_fit
from ..store.shards import ShardFolder, spans
from .features import check_features
from .protocol import SolverDefaults
from .relu_omp_output import Search, Settings
from .relu_omp_worker import KIND, Job, run_workers, solve_block, unpack
from .sparse_rows import SparseRows


@dataclass(frozen=True)
class ReluOMP(SolverDefaults):
    """Greedy selection of each output's inputs, fitted behind the ReLU that the output is read with.

    For each output: its own rows, and rows on which a parent is on while it is silent; the input feature with the
    largest gradient of the one-sided loss joins (this finds inhibitors, which plain correlation cannot see), the fit is
    redone by Newton with a bias of at most 0, and in the end parents go whose removal costs too little. Cost grows with
    the firings of outputs times the active inputs of a row, not with the product of the widths.

    Made for features that are mostly off. An output that fires where no input does gets no wire for it, and a feature
    that is always on gets no wires: for dense features use `GramLasso`. Where outputs are on too often, `calibrated` sets
    thresholds.

    Attributes:
        max_fan_in: most wires into one output.
        rows: most rows on which an output fires that its fit looks at, and as many for each parent.
        rho: share of an exciter's power outside those rows that counts against it.
        noise_factor: a wire explains at least this many times the residual variance; None: 2 ln(inputs) + 5.
        tau: and at least this share of the output's power; or, for an input that is rarely on, a third of the power on the
            rows where it is. Learned features leak into one another where they lie in superposition: .03 keeps such
            wires out.
        min_firings: an output that fires on fewer rows gets no wire.
        workers: processes; more than one maps the features from files.
        store: a folder that keeps the features' files and each block of outputs that is done, so that a fit that was
            stopped goes on where it was, and of several workers (see `gatelens.distributed`) each solves its share; None
            keeps nothing.
        block: outputs a block.
        seed: of the choice of rows.
        progress: bars on standard error; None: where somebody watches.

    Source: "Orthogonal Matching Pursuit: Recursive Function Approximation with Applications to Wavelet Decomposition", here behind
    a ReLU.

    Raises:
        SolverError: settings out of range, or features over different rows. NonFiniteError: NaN or infinity among them.

    Examples:
        >>> f_in, f_out = (bases[hook].encode(x) for hook, x in acts.items())
        >>> found = gl.ReluOMP(max_fan_in=4).fit(f_in, f_out)
        >>> int(found.fan_in().max())
        4
    """

    max_fan_in: int = 8
    rows: int = 3000
    rho: float = 0.3
    noise_factor: float | None = None
    tau: float = 0.01
    min_firings: int = 30
    workers: int = 1
    store: str | Path | None = None
    block: int = 64
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        for name in ("max_fan_in", "rows", "min_firings", "workers", "block"):
            if getattr(self, name) < 1:
                raise SolverError(f"{name} must be at least 1; got {getattr(self, name)}. Raise it")
        if self.rho < 0 or self.tau < 0 or (self.noise_factor is not None and self.noise_factor < 0):
            raise SolverError(
                f"rho, tau and noise_factor must not be negative; got {self.rho}, {self.tau}, {self.noise_factor}. "
                "Use 0 to switch one off"
            )

    in_blocks = True

    def with_budget(self, mean_wires: float, signed: bool) -> ReluOMP:
        return replace(self, max_fan_in=max(1, round(mean_wires)))

    def keeping(self, folder: Path) -> _Keeping:
        """The solver, keeping each segment's blocks in a folder of its own below `folder`."""
        return _Keeping(self, folder)

    def estimate(self, rows: int, m: int, n: int, active_in: float, active_out: float) -> Estimate:
        """Both sides' nonzeros by rows and by columns; no matrix of features by features."""
        return greedy_fit(rows, m, n, active_in, active_out)

    def fit(self, f_in: Tensor | SparseRows, f_out: Tensor | SparseRows) -> Connector:
        """A connector from features over the same rows, [rows, m] and [rows, n], dense or sparse CSR.

        Raises:
            SolverError: negative features, no rows, or different rows on the two sides.
            NonFiniteError: NaN or infinity among the features.
            StoreError: `store` belongs to another fit.
        """
        if isinstance(f_in, Tensor) and isinstance(f_out, Tensor):
            check_features(f_in, f_out)
        inputs, outputs = SparseRows.of(f_in, "the input features"), SparseRows.of(f_out, "the output features")
        if inputs.rows != outputs.rows or inputs.rows == 0:
            raise SolverError(
                f"input features have {inputs.rows} rows and output features {outputs.rows}: expected the same rows, "
                "at least one. Read both from one collection of activations"
            )
        with threadpool_limits(1):  # products with a handful of columns: threads only cost
            found = [parents for block in self._blocks(inputs, outputs) for parents in unpack(block)]
        rows = [(torch.from_numpy(p.inputs), torch.from_numpy(p.weights)) for p in found]
        bias = torch.tensor([p.bias for p in found], dtype=torch.float32)
        return Connector.from_rows(rows, bias, inputs.width, solver=f"ReluOMP(max_fan_in={self.max_fan_in})")

    def settings(self, width: int) -> Settings:
        """The search's settings for so many inputs."""
        factor = 2 * math.log(max(width, 2)) + 5 if self.noise_factor is None else self.noise_factor
        return Settings(self.max_fan_in, self.rows, self.rho, factor, self.tau, self.min_firings)

    def _blocks(self, inputs: SparseRows, outputs: SparseRows) -> Iterator[dict[str, np.ndarray]]:
        """The solved blocks of outputs, in order."""
        job = Job(self.settings(inputs.width), self.seed, self.block)
        blocks = spans(outputs.width, self.block)
        shown = bar(room="ReluOMP", progress=self.progress, total=len(blocks), unit="block")
        worker = team()
        if self.workers == 1 and self.store is None:
            search = Search(inputs, job.settings, self.seed)

            def solved(i: int) -> dict[str, np.ndarray]:
                found = solve_block(search, outputs, blocks[i])
                shown.update()
                return found

            yield from shared(len(blocks), solved)
            shown.close()
            return
        with ExitStack() as stack:
            folder = Path(self.store or stack.enter_context(tempfile.TemporaryDirectory(prefix="gatelens-")))
            config = job.config(inputs, outputs)
            if self.workers == 1 or not worker.alone:
                with ShardFolder(folder / "blocks", KIND, config, len(blocks), worker.name) as out:
                    search = Search(inputs, job.settings, self.seed)
                    for i in out.missing(worker.owned(len(blocks))):
                        out.write(i, solve_block(search, outputs, blocks[i]))
                        shown.update()
                    wait_for(out)
            else:
                inputs.save(folder / "inputs")
                outputs.save(folder / "outputs")
                run_workers(folder, config, len(blocks), self.workers, shown)
            shown.close()
            with ShardFolder(folder / "blocks", KIND, config, len(blocks), worker.name) as out:
                if worker.first:
                    out.finish()
                meet()
                yield from (out.arrays(i) for i in range(len(blocks)))


@dataclass(frozen=True)
class _Keeping(SolverDefaults):
    """A ReluOMP that is told, segment by segment, where its blocks are kept."""

    solver: ReluOMP
    folder: Path
    in_blocks = True

    def at(self, segment: Segment, basis_in: Basis, basis_out: Basis) -> ReluOMP:
        return replace(self.solver, store=self.folder / slug(segment.name))

    def fit(self, f_in: Tensor, f_out: Tensor) -> Connector:
        return self.solver.fit(f_in, f_out)
