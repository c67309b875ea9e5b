"""The table of peers as data: every form by its name, how it is fitted, and what it needs; the dictionaries that several share."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from _peer_cases import Case
from _peer_forms import (
    Form,
    TopK,
    kept_neurons,
    of_gates,
    of_linear,
    of_pair,
    of_wires,
    one_feature_each,
    train_jacobian_pair,
    train_mixture,
)
from _shuffled_mlp import shuffled_segment
from sae_lens import SAE
from torch import Tensor

import gatelens as gl
from gatelens.codes.csr import as_csr, to_csr
from gatelens.codes.rows import Codes
from gatelens.edits.counterfactual import Counterfactual
from gatelens.evaluation.figures import fvu
from gatelens.evaluation.rivals import ridge_to_output
from gatelens.gate_dictionaries.gate_first import GateDictionary
from gatelens.gate_dictionaries.input_tuning import InputTuning
from gatelens.gate_dictionaries.transcoder import TranscoderBasis, read_transcoder
from gatelens.solvers import calibrated
from gatelens.store import dump_json, replace_file

#: shares of a recipe's own learning rate that are tried, with a tenth of the steps
TRIED = (0.5, 1.0, 2.0, 4.0)
#: changed when a recipe is: rows that were measured before are then measured anew
VERSION = 2
LAM = 3.0


@dataclass
class Study:
    """A case and a seed: what several forms are made from, each made once; what takes long is kept in `folder`.

    Attributes:
        rates: the learning rates that were chosen. took: seconds of what is kept on the disk. aside: seconds spent on these, and on what several forms share.
    """

    case: Case
    seed: int
    folder: Path
    rates: dict[str, float] = field(default_factory=dict)
    took: dict[str, float] = field(default_factory=dict)
    aside: float = 0.0

    @property
    def pairs(self) -> Counterfactual:
        return Counterfactual(pairs=self.case.sizes.pairs, seed=self.seed)

    @cached_property
    def codes(self) -> Codes:
        """Of all fitting rows."""
        return Codes.encode(self.case.basis_in, self.case.fit.x)

    @cached_property
    def sae_y(self) -> Any:
        """Of y: gates start from it, wires lead to it."""
        s = self.case.sizes
        recipe = gl.TrainedSAE(
            d_sae=s.d_sae, k=s.l0, samples=s.samples, batch_size=1_024, trainer="sparse", seed=self.seed
        )
        rate = self.rate("SAE of y", recipe.lr, lambda lr: replace(recipe, lr=lr, samples=s.samples // 10).train(self.case.fit.y),
                         lambda sae: fvu(self.case.valid.y, sae.decode(sae.encode(self.case.valid.y))))  # fmt: skip
        y = self.case.valid.y
        return self._kept("sae-y", lambda: as_active(replace(recipe, lr=rate).train(self.case.fit.y), y, s.l0), _sae)

    def transcoder(self, skip: bool) -> TranscoderBasis:
        s, case = self.case.sizes, self.case
        recipe = gl.Transcoder(d_sae=s.d_sae, k=s.l0, samples=s.samples, bypass=skip, seed=self.seed)

        def made(lr: float, samples: int) -> TranscoderBasis:
            return replace(recipe, lr=lr, samples=samples).train(case.fit.x, case.fit.y, case.segment.hook_in, case.segment.hook_out)  # fmt: skip

        rate = self.rate(f"transcoder, skip {skip}", recipe.lr, lambda lr: made(lr, s.samples // 10),
                         lambda t: fvu(case.valid.y, t.reconstruct(case.valid.x)))  # fmt: skip
        name = "skip-transcoder" if skip else "transcoder"
        found = self._kept(name, lambda: as_active(made(rate, s.samples).transcoder, case.valid.x, s.l0), _module)
        return TranscoderBasis(found, case.segment.hook_in, case.segment.hook_out)

    def gates(self, fan_in: int, counterfactual: bool = True, tuned: bool = False, **rest: Any) -> Any:
        """Gates at the rate that gates with 8 inputs do best with."""
        s, case = self.case.sizes, self.case
        recipe = GateDictionary(fan_in=fan_in, l0=s.l0, lam=LAM, refit_rows=s.fit, seed=self.seed, progress=False)

        def tried(lr: float) -> Any:
            few = replace(self.pairs, pairs=max(512, s.pairs // 10))
            return replace(recipe, fan_in=8, lr=lr, counterfactual=few, refit_rows=s.start).train(
                case.segment, case.basis_in, self.sae_y, case.fit.x, case.fit.y, self.codes
            )

        rate = self.rate("gates", recipe.lr, tried, lambda g: fvu(case.valid.y, g.reconstruct(case.valid.x)))
        recipe = replace(recipe, lr=rate, counterfactual=self.pairs if counterfactual else None, samples=2 * s.pairs,
                         tune_inputs=InputTuning(samples=s.pairs // 2) if tuned else None, **rest)  # fmt: skip
        found = recipe.train(case.segment, case.basis_in, self.sae_y, case.fit.x, case.fit.y, self.codes)
        return _gates_as_active(found, case.valid.x, recipe.l0)

    def rate(self, name: str, own: float, make: Callable[[float], Any], score: Callable[[Any], float | None]) -> float:
        """The learning rate with the least error on rows kept for the choice; chosen once, and kept on the disk."""
        file = self.folder / f"rate-{digest(name, own, self.key)}.json"
        if not file.is_file():
            began, errors = time.process_time(), {}
            for share in TRIED:
                made = make(own * share)
                with torch.no_grad():
                    errors[own * share] = score(made)
            self.aside += time.process_time() - began
            best = min(errors, key=lambda lr: float("inf") if errors[lr] is None else errors[lr])
            replace_file(
                file, dump_json({"name": name, "tried": {f"{lr:g}": e for lr, e in errors.items()}, "rate": best})
            )
        self.rates[name] = float(json.loads(file.read_text("utf-8"))["rate"])
        return self.rates[name]

    @property
    def key(self) -> list[Any]:
        return [VERSION, self.case.name, asdict(self.case.sizes), self.seed]

    def _kept(self, name: str, make: Callable[[], Any], load: Callable[[Path], Any]) -> Any:
        place = self.folder / f"{name}-{digest(name, self.key)}"
        if not (place / "done.json").is_file():
            began = time.process_time()
            make().save_model(place)
            seconds = time.process_time() - began
            self.aside += seconds
            replace_file(place / "done.json", dump_json({"seconds": seconds}))
        self.took[name] = float(json.loads((place / "done.json").read_text("utf-8"))["seconds"])
        return load(place)


@torch.no_grad()
def as_active(module: Any, x: Tensor, l0: int) -> Any:
    """With one threshold at which so many features are on in rows that it was not trained on: on those it was, fewer are."""
    sums = (x @ module.W_enc + module.b_enc).flatten()
    module.threshold.data.fill_(float(sums.topk(l0 * len(x) + 1).values[-1].clamp_min(0)))
    return module


@torch.no_grad()
def _gates_as_active(gates: Any, x: Tensor, l0: float) -> Any:
    """The same of gates, whose thresholds keep their ratios."""
    threshold = gates.connector.threshold
    if threshold is not None and bool((threshold > 0).all()):
        times = (gates.connector.pre(gates.basis_in.encode(x)) / threshold).flatten()
        scale = times.topk(round(l0 * len(x)) + 1).values[-1]
        gates.connector = replace(gates.connector, threshold=threshold * scale)
    return gates


def _sae(place: Path) -> Any:
    return SAE.load_from_disk(place).eval().requires_grad_(False)


def _module(place: Path) -> Any:
    from gatelens.bases.sae.files import from_folder

    return from_folder(place)


def digest(*parts: Any) -> str:
    """A short name for settings."""
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:12]


@dataclass(frozen=True)
class Declared:
    """A row of the table.

    Attributes:
        fit: what makes the form of a study.
        kind: "ceiling", "dense", "wires", "gates", "neurons" or "null", for the page.
        trained: whether it is held to the activity of the others.
        no_rules: why no rules are read of it; "" where they are. cases: how names of the cases begin that have it; "" for all.
    """

    name: str
    fit: Callable[[Study], Form]
    kind: str
    trained: bool = True
    no_rules: str = ""
    cases: str = ""


def _exact(study: Study) -> Form:
    case = study.case
    mlp = case.segment.mlp
    weights = sum(w.numel() for w in (mlp.W_in, mlp.b_in, mlp.W_out, mlp.b_out, mlp.W_gate) if w is not None)
    decode, forward = case.basis_in.decode, case.segment.forward
    return Form(
        lambda x, f: forward(decode(f)), weights, case.segment.d_in, note="the model's own MLP on the decoded code"
    )


def _wires(study: Study, solver: Any, basis_out: Any, target: Callable[[slice], Any]) -> Form:
    rows = slice(0, study.case.sizes.start)
    f_in, f_out = as_csr(study.codes.rows(torch.arange(len(study.codes))[rows])), target(rows)
    connector = calibrated(solver.fit(f_in, f_out), f_in, f_out, len(f_in), "firing")
    return of_wires(basis_out, connector)


def _of_y(study: Study, solver: Any) -> Form:
    sae = study.sae_y
    return _wires(study, solver, sae, lambda rows: to_csr(sae.encode(study.case.fit.y[rows])))


def _of_transcoder(study: Study, solver: Any) -> Form:
    pair = study.transcoder(skip=False)
    return _wires(study, solver, pair, lambda rows: to_csr(pair.features_from(study.case.fit.x[rows])))


def _gram(k: int, **rest: Any) -> gl.GramLasso:
    return gl.GramLasso(mean_wires=k, cap=k, newton_rows=10_000, progress=False, **rest)


def _gates(**how: Any) -> Callable[[Study], Form]:
    def fit(study: Study) -> Form:
        found = study.gates(**how)
        own = found.basis_in if how.get("tuned") else None
        return of_wires(
            found, found.connector, basis_in=own, note="edits are of its own input dictionary" if own else ""
        )

    return fit


def _pairs(count: int, shuffled: bool = False) -> Callable[[Study], Form]:
    def fit(study: Study) -> Form:
        case = study.case
        recipe = gl.PairBypass(
            count, counterfactual=study.pairs, lam=LAM, shuffled=shuffled, seed=study.seed, progress=False
        )
        return of_gates(recipe.train(case.segment, case.basis_in, case.fit.x, case.fit.y, study.codes))

    return fit


def _gates_past_pairs(study: Study) -> Form:
    """Gates trained on what the linear map and its products leave."""
    past = gl.PairBypass(2_000, counterfactual=study.pairs, lam=LAM, seed=study.seed, progress=False)
    return of_gates(study.gates(16, bypass=past))


def _products(fan_in: int, all_on: bool = False) -> Callable[[Study], Form]:
    """The neurons of a gated MLP with few inputs a side; `all_on`: as many on as there are, which takes long, so fewer pairs and rows."""

    def fit(study: Study) -> Form:
        case, s = study.case, study.case.sizes
        l0, pairs, rows = s.l0, s.pairs, s.fit
        if all_on:
            l0, pairs, rows = case.segment.mlp.W_in.shape[1], s.pairs // 4, s.start // 2
        recipe = GateDictionary(
            fan_in=fan_in, l0=l0, lam=LAM, product=True, refit_rows=rows, seed=study.seed, progress=False
        )

        def made(lr: float, pairs: int) -> Any:
            edits = replace(study.pairs, pairs=pairs)
            return replace(recipe, lr=lr, counterfactual=edits).train(
                case.segment, case.basis_in, None, case.fit.x, case.fit.y, study.codes
            )

        rate = study.rate(f"products, {fan_in} a side", recipe.lr, lambda lr: made(lr, pairs // 10),
                          lambda g: fvu(case.valid.y, g.reconstruct(case.valid.x)))  # fmt: skip
        note = f"{pairs:,} pairs and {rows:,} rows, fewer than of the others" if all_on else ""
        return of_gates(made(rate, pairs), note=note)

    return fit


def _more_gates(study: Study) -> Form:
    """At twice the activity of the others: what the bars on FVU allow."""
    found = study.gates(16, l0=2 * study.case.sizes.l0)
    return of_wires(found, found.connector, note="not at the others' activity")


def _transcoder(skip: bool) -> Callable[[Study], Form]:
    def fit(study: Study) -> Form:
        form = of_pair(study.transcoder(skip))
        return replace(form, seconds=study.took["skip-transcoder" if skip else "transcoder"])

    return fit


def _shipped(study: Study) -> Form:
    """The transcoder that is shipped: trained longer, fewer on."""
    found = read_transcoder("smollm2", study.case.segment)
    return replace(of_pair(found), note="shipped with GateLens: 1.6 M rows of training, not at the others' activity")


def _ridge(study: Study) -> Form:
    case = study.case
    return of_linear(
        ridge_to_output(case.segment, case.basis_in, case.fit.x, case.fit.y, study.pairs, LAM, study.codes)
    )


def _neurons(study: Study) -> Form:
    case, s = study.case, study.case.sizes
    budget = s.d_sae * (8 + 2 + case.segment.d_out)
    each = case.segment.d_in * (2 if case.gated else 1) + 1 + case.segment.d_out
    some = slice(0, s.start)
    return kept_neurons(case.segment.mlp, case.fit.x[some], case.fit.y[some], budget // each)


def _one_feature(study: Study) -> Form:
    case = study.case
    some = slice(0, 4_000)
    return one_feature_each(case.segment, case.basis_in, case.fit.x[some], case.fit.y[some])


def _mixture(study: Study) -> Form:
    case, s = study.case, study.case.sizes
    hidden, k = case.segment.mlp.W_in.shape[1], min(s.l0, s.d_sae)

    def made(lr: float, samples: int) -> Form:
        return train_mixture(case.fit.x, case.fit.y, s.d_sae, hidden, k, samples, lr, study.seed)

    rate = study.rate("mixture", 1e-3, lambda lr: made(lr, s.samples // 30),
                      lambda form: fvu(case.valid.y, form.rows(case.valid.x, case.valid.x)))  # fmt: skip
    form = made(rate, s.samples // 3)
    return replace(form, note=f"{form.note}; a third of the samples")


def _jacobian_pair(study: Study) -> Form:
    """Both dictionaries go on from trained ones; then wires as for any other pair."""
    case, s = study.case, study.case.sizes
    active = max(1, round(len(study.codes.value) / len(study.codes)))

    def ends(lr: float, samples: int) -> tuple[TopK, TopK]:
        pair = TopK(case.basis_in, case.fit.x, active), TopK(study.sae_y, case.fit.y, s.l0)
        train_jacobian_pair(case.segment.mlp, pair, case.fit.x, samples, lr, 1.0, study.seed)
        return pair

    def missed(pair: tuple[TopK, TopK]) -> float | None:
        return fvu(case.valid.y, pair[1].decode(pair[1].encode(case.valid.y)))

    rate = study.rate("JSAE", 5e-4, lambda lr: ends(lr, s.samples // 60), missed)
    inner, outer = ends(rate, s.samples // 6)
    rows = slice(0, s.start)
    f_in, f_out = to_csr(inner.encode(case.fit.x[rows])), to_csr(outer.encode(case.fit.y[rows]))
    wires = gl.GramLasso(mean_wires=8, cap=None, newton_rows=10_000, progress=False).fit(f_in, f_out)
    wires = calibrated(wires, f_in, f_out, len(f_in), "firing")
    return of_wires(
        outer,
        wires,
        basis_in=inner,
        note="a sixth of the samples, from trained dictionaries; edits are of its own input dictionary",
    )


def _mean(study: Study) -> Form:
    mean = study.case.fit.y.mean(0)
    return Form(lambda x, f: mean.expand(len(x), -1), len(mean), 0)


def _shuffled_rows(study: Study) -> Form:
    """Gates fitted to other rows' outputs."""
    case, s = study.case, study.case.sizes
    order = torch.randperm(len(case.fit.x), generator=torch.Generator().manual_seed(study.seed))
    recipe = GateDictionary(
        fan_in=8, l0=s.l0, counterfactual=None, samples=s.pairs // 2, refit_rows=s.fit, progress=False
    )
    found = recipe.train(case.segment, case.basis_in, study.sae_y, case.fit.x[order], case.fit.y)
    return of_wires(found, found.connector)


def _shuffled_weights(study: Study) -> Form:
    """An MLP of row-wise shuffled weights with an output dictionary and gates of its own, judged on its own outputs."""
    case, s = study.case, study.case.sizes
    segment = shuffled_segment(case.segment, study.seed)
    y = segment.outputs(case.fit.x)
    sae = gl.TrainedSAE(d_sae=s.d_sae, k=s.l0, samples=s.samples // 2, batch_size=1_024, trainer="sparse").train(y)
    recipe = GateDictionary(fan_in=8, l0=s.l0, lam=LAM, counterfactual=study.pairs, refit_rows=s.fit, progress=False)
    found = recipe.train(segment, case.basis_in, sae, case.fit.x, y, study.codes)
    return of_wires(found, found.connector, segment=segment, note="judged on what the shuffled MLP computes")


#: how the names of cases begin whose MLP is gated, as products need
GATED = "smollm2"
_DENSE_OUT = "its outputs are dimensions of y"
_NOT_NAMED = "its outputs are functions of all of x that no single code names"
_WIRES_8, _WIRES_16 = "SAE of y, 8 wires (Gram)", "SAE of y, 16 wires (Gram)"

#: in the order in which they are measured: what the bars are about comes first, what takes longest last
FORMS: tuple[Declared, ...] = (
    Declared("exact MLP on the code", _exact, "ceiling", False, _DENSE_OUT),
    Declared("mean", _mean, "null", False, "it has no outputs"),
    Declared("gates, 8 inputs", _gates(fan_in=8), "gates"),
    Declared("transcoder", _transcoder(skip=False), "dense"),
    Declared("ridge", _ridge, "dense", False, _DENSE_OUT),
    Declared("gates, 16 inputs", _gates(fan_in=16), "gates"),
    Declared("transcoder, as shipped", _shipped, "dense", False, cases="smollm2"),
    Declared("neurons, weights of the gates", _neurons, "neurons", False, "neurons are on in every row"),
    Declared("gates, 16 inputs, twice as many on", _more_gates, "gates", False),
    Declared("ridge + 2,000 pairs", _pairs(2_000), "dense", False),
    Declared("null: ridge + 2,000 shuffled pairs", _pairs(2_000, shuffled=True), "null", False),
    Declared("gates, 16 inputs, past 2,000 pairs", _gates_past_pairs, "dense", False),
    Declared("product gates, 8 inputs a side", _products(8), "gates", cases=GATED),
    Declared("gates, 8 inputs, natural rows", _gates(fan_in=8, counterfactual=False), "gates"),
    Declared(_WIRES_8, lambda s: _of_y(s, _gram(8)), "wires"),
    Declared(_WIRES_16, lambda s: _of_y(s, _gram(16)), "wires"),
    Declared("transcoder, 8 wires (Gram)", lambda s: _of_transcoder(s, _gram(8)), "wires"),
    Declared("transcoder, 16 wires (Gram)", lambda s: _of_transcoder(s, _gram(16)), "wires"),
    Declared("gates, 8 inputs, tuned", _gates(fan_in=8, tuned=True), "gates"),
    Declared("gates, 16 inputs, tuned", _gates(fan_in=16, tuned=True), "gates"),
    Declared("null: gates fitted to other rows", _shuffled_rows, "null"),
    Declared("null: gates of a shuffled MLP", _shuffled_weights, "null"),
    Declared("one feature per neuron and row", _one_feature, "neurons", False, "neurons are on in every row"),
    Declared("ridge + 5,000 pairs", _pairs(5_000), "dense", False),
    Declared("skip transcoder", _transcoder(skip=True), "dense"),
    Declared("mixture of decoders", _mixture, "dense", True, _NOT_NAMED),
    Declared("JSAE pair, 8 wires", _jacobian_pair, "wires"),
    Declared("gates, 16 inputs, natural rows", _gates(fan_in=16, counterfactual=False), "gates"),
    Declared("SAE of y, 8 wires (ReLU-OMP)", lambda s: _of_y(s, gl.ReluOMP(max_fan_in=8, progress=False)), "wires"),
    Declared("SAE of y, 16 wires (ReLU-OMP)", lambda s: _of_y(s, gl.ReluOMP(max_fan_in=16, progress=False)), "wires"),
    Declared("product neurons, 16 inputs a side", _products(16, all_on=True), "neurons", False, cases=GATED),
)


def by_name(forms: tuple[Declared, ...] = FORMS) -> Mapping[str, Declared]:
    """name -> row."""
    return {form.name: form for form in forms}
