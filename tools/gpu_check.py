"""Walk on the GPU, compare with the processor to 1e-3, print speeds: `make gpu-check`, under four minutes.

Exit status 0: everything agrees. 1: something does not. 2: no GPU, said in one sentence.
"""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import gatelens as gl
from gatelens.models import there
from gatelens.models.placing import devices, place_of

#: relative to the larger of the two, or absolute where they are small
TOLERANCE = 1e-3
#: a model's rows, many times over: enough work for a GPU to be faster at
ROWS = 100_000


def main() -> int:
    device = devices()[0]
    if device == "cpu":
        sys.stderr.write("gpu-check needs a GPU (cuda or mps): this machine has none, so nothing was checked.\n")
        return 2
    torch.manual_seed(0)
    bad = _walks(device) + _pieces(device)
    sys.stdout.write("all figures agree\n" if not bad else f"{bad} figures are off by more than {TOLERANCE:g}\n")
    return 1 if bad else 0


def _say(what: str, here: float, there_: float, off: float) -> int:
    wrong = not off <= TOLERANCE
    speed = f"cpu {here:8.2f} s   gpu {there_:8.2f} s   {here / max(there_, 1e-9):6.1f}x"
    sys.stdout.write(f"{what:<34} {speed}   off {off:.1e}{'   WRONG' if wrong else ''}\n")
    sys.stdout.flush()
    return int(wrong)


def _walks(device: str) -> int:
    """One whole walk on each: with one basis for both, since training magnifies the last digit."""
    found, seconds, bases = {}, {}, None
    for place in ("cpu", device):
        model = gl.load_model("gpt2-mini", device=place)
        batches = gl.text_batches(model, f"{gl.__path__[0]}/demo/sample.txt", rows=(128, 32), length=64, seed=0)
        segments = gl.mlp_segments(model, layers=[2])
        if bases is None:
            acts = gl.collect(model, batches[0], segments, progress=False)
            bases = gl.TrainedSAE(d_sae=256, k=16, samples=50_000).fit(segments, acts)
        began = time.perf_counter()
        found[place] = gl.find_circuit(
            model, batches, segments, bases, gl.GramLasso(mean_wires=8), quick=True, progress=False, tried_at_most=8
        )
        prompt = found[place].circuit.on(model, "It was late, therefore he left.", found[place].held_out)
        seconds[place] = time.perf_counter() - began
        if not str(prompt) or place_of(found[place].circuit.bases).type != "cpu":
            return _say("the circuit rests on the host", 0, 0, math.inf)
    a, b = (_figures(found[place].report.to_dict()) for place in ("cpu", device))
    off = max((_off(a[k], b[k]) for k in a if k in b and _continuous(k)), default=math.inf)
    return _say("find_circuit and a prompt", seconds["cpu"], seconds[device], off)


def _figures(value: Any, place: str = "") -> dict[str, float]:
    if isinstance(value, dict):
        parts = [_figures(v, f"{place}/{k}") for k, v in value.items() if k not in ("timing_s", "versions")]
        return {k: v for part in parts for k, v in part.items()}
    return {place: float(value)} if isinstance(value, float) else {}


def _continuous(place: str) -> bool:
    """What does not jump where a rule changes by the last digit."""
    return place.startswith(("/model", "/bases", "/connectors", "/all_replaced"))


def _off(a: float, b: float) -> float:
    return abs(a - b) / max(abs(a), abs(b), 1.0)


def _timed(work: Callable[[], Any], device: str) -> tuple[Any, float]:
    began = time.perf_counter()
    found = work()
    if device == "cuda":
        torch.cuda.synchronize()
    return found, time.perf_counter() - began


def _pieces(device: str) -> int:
    """Training, Gram sums and Jacobians by themselves, at sizes at which they take the time of a run."""
    x = torch.randn(ROWS, 256) @ torch.randn(256, 256) / 16
    bad = 0

    def compared(what: str, work: Callable[[Any], Any], figure: Callable[[Any], float], tolerance: float = 1.0) -> int:
        (one, here), (two, on_gpu) = (_timed(partial(work, place), place) for place in ("cpu", device))
        return _say(what, here, on_gpu, _off(figure(one), figure(two)) / tolerance)

    def error(sae: Any) -> float:
        return float((x[:8_192] - sae.decode(sae.encode(x[:8_192]))).square().mean() / x[:8_192].var())

    recipe = gl.TrainedSAE(d_sae=2_048, k=32, samples=200_000)
    # two trainings part ways digit by digit: they end equally good, within 1 %
    bad += compared("TrainedSAE 256 -> 2,048", lambda d: recipe.train(x, device=torch.device(d)), error, tolerance=10.0)
    f = torch.relu(x @ torch.randn(256, 1_024) / 16 - 1.0)
    solver = gl.GramLasso(mean_wires=8, refit="least_squares")

    def solved(place: str) -> gl.Connector:
        return solver.fit(f.to(place), f[:, :512].to(place))

    bad += compared("GramLasso 1,024 -> 512", solved, lambda c: float(c.weight.values().double().square().sum()))
    model = gl.load_model("gpt2-mini")

    def columns(place: str) -> torch.Tensor:
        segment = gl.mlp_segments(there(model, place), layers=[1])[0]
        return gl.jacobian_columns(segment, x[:64, : segment.d_in], per_input=None)

    return bad + compared("Jacobians of 64 inputs", columns, lambda c: float(c.double().square().mean()))


if __name__ == "__main__":
    sys.exit(main())
