"""Memory: what is stated before a fit over what the process held at its peak, for six recipes and solvers at real widths.

Each case runs in a process of its own, for a few steps: what a fit holds does not grow with their number. The activations lie in a
store, as in a run, and are read by the fit: they are a part of what is stated and of what is measured. What the process holds
before, libraries included (a tiny fit of the same kind has been made), is taken off. Below 1 a fit that was let through may not
fit, far above it one is refused that would. Linux only: the highest point is read from /proc.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Sequence
from pathlib import Path

from gatelens.bench import Figure

SEEDS = (0,)
ROWS, WIDTH = 60_000, 384
CASES = {
    "sae_2048": "trained SAE, 2,048 features",
    "sae_6144": "trained SAE, 6,144 features",
    "transcoder": "transcoder, 2,048 features",
    "gates": "gate dictionary, 2,048 gates",
    "relu_omp": "ReluOMP, 2,048 features",
    "rotation": "rotation",
}
#: glibc moves, as it runs, the size from which a freed block goes back, by which the same fit takes more one time than another;
#: of one arena, and with the size at which it begins, what is freed goes back
GIVES_BACK = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "131072"}

PROGRAM = textwrap.dedent("""
    import ctypes, gc, json, sys, warnings
    warnings.simplefilter("ignore")
    import torch
    import gatelens as gl
    from gatelens.data import Batches

    case, folder, rows, width, seed = *sys.argv[1:3], *map(int, sys.argv[3:])

    def segments(width):
        return gl.mlp_segments(gl.HookedMLP((width, width, width, 10), seed=seed))[-1:]

    def collected(rows, width, store):
        torch.manual_seed(seed)
        places = torch.arange(rows)
        batches = Batches(torch.rand(rows, width), places % 10, torch.ones(rows, dtype=torch.bool), places, 512)
        return gl.collect(gl.HookedMLP((width, width, width, 10), seed=seed), batches, segments(width), store, False)

    class Work:
        def __init__(self, acts, rows, width, features, k):
            self.acts, self.rows, self.width, self.features, self.k = acts, rows, width, features, k
            self.segments, self.few = segments(width), {"k": k, "samples": 1_024, "batch_size": 512}
            self.end = self.segments[0].hook_out

        def fitted(self, recipe, hook=None):
            fit = recipe.fit_at if hook else lambda _, *rest: recipe.fit(*rest)
            return recipe.estimate(self.end, self.rows, self.width), lambda: fit(hook, self.segments, self.acts)

        def sae_2048(self):
            return self.fitted(gl.TrainedSAE(d_sae=self.features, **self.few), self.end)

        def sae_6144(self):
            return self.fitted(gl.TrainedSAE(d_sae=3 * self.features, **self.few), self.end)

        def transcoder(self):
            return self.fitted(gl.Transcoder(d_sae=self.features, **self.few))

        def gates(self):
            made = gl.TrainedSAE(d_sae=self.features, **self.few).fit(self.segments, self.acts)
            edits = gl.Counterfactual(pairs=2_048)
            few = {"counterfactual": edits, "rounds": 1, "refit_rows": 2_048}
            return self.fitted(gl.GateDictionary(l0=self.k, inputs=made, outputs=made, **few))

        def relu_omp(self):
            columns = torch.randint(0, self.features, (self.rows, self.k)).sort(1).values.flatten()
            starts, shape = torch.arange(self.rows + 1) * self.k, (self.rows, self.features)
            x = torch.sparse_csr_tensor(starts, columns, torch.rand(self.rows * self.k), shape)
            solver = gl.ReluOMP(max_fan_in=1, min_firings=10**6)
            return solver.estimate(self.rows, self.features, self.features, self.k, self.k), lambda: solver.fit(x, x)

        def rotation(self):
            return self.fitted(gl.JacobianRotation(iterations=1))

    def highest():
        return next(int(line.split()[1]) * 1024 for line in open("/proc/self/status") if line.startswith("VmHWM"))

    if case == "store":
        collected(rows, width, folder)
        raise SystemExit
    getattr(Work(collected(300, 16, None), 300, 16, 64, 8), case)()[1]()  # what libraries hold once they are used
    said, work = getattr(Work(gl.Activations.open(folder), rows, width, 2_048, 32), case)()
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")  # the highest point begins anew
    before = highest()
    work()
    print(json.dumps([said.memory, highest() - before]))
""")


def measure(seeds: Sequence[int], data: Path | None) -> Iterator[Figure]:
    """Stated over peak, a case at a time; on top of what the process held before."""
    with tempfile.TemporaryDirectory() as folder:
        store = str(Path(folder) / "activations")
        _ran("store", store, seeds[0], {})
        for case, name in CASES.items():
            said, taken = json.loads(_ran(case, store, seeds[0], GIVES_BACK))
            yield Figure(
                f"{name}: stated memory over measured peak",
                said / taken,
                1.0,
                baselines={"at most": 1.5, "stated, MiB": said / 2**20, "peak, MiB": taken / 2**20},
                note=f"{ROWS:,} rows of width {WIDTH} from a store, a few steps; "
                + ", ".join(f"{name}={value}" for name, value in GIVES_BACK.items()),
            )


def _ran(case: str, store: str, seed: int, allocator: dict[str, str]) -> str:
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", PROGRAM, case, store, str(ROWS), str(WIDTH), str(seed)]
    done = subprocess.run(command, env=plain | allocator | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr[-2_000:])
    return done.stdout
