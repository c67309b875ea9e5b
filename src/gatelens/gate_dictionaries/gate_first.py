"""GateDictionary: learn the output dictionary with the fan-in built in, instead of finding wires between two SAEs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ..basis.linear import Basis, check_width, directions
from ..basis.output import at_output, output_features
from ..basis.recipe import RecipeDefaults, as_recipe, is_recipe
from ..codes.csr import spread
from ..codes.rows import Codes, stacked
from ..connectors import ProductConnector
from ..edits.counterfactual import Counterfactual
from ..errors import BasisError
from ..models import host, there
from ..segments import Segment
from ..store.estimate import Estimate
from .doors import dictionary_at, fitted, own, shape_of
from .gate_basis import GateBasis, check_finite_codes
from .gate_run import GateTraining
from .gate_start import GateStart, Units, allowed_parents, check_memory, gates_estimate, omp_wires, pointing
from .gate_training import GateRun
from .input_tuning import InputTuning
from .pair_bypass import PairBypass
from .product_gates import ProductRun, check_gated
from .rows import Rows

_START_ROWS = 60_000
_ENCODED_ROWS = 4_096
BYPASSES = ("none", "dense", "all")


@dataclass(frozen=True)
class GateDictionary(RecipeDefaults):
    """Gates of at most `fan_in` input features each, trained to explain the segment's output.

    f_out = JumpReLU(W f_in + b) with `fan_in` nonzeros in each row of W, y ~ f_out D + b0 (+ f_in V). What is minimised is
    the squared error of y over natural rows and edits of them, plus `lam` times that of the difference of each pair.

    Attributes:
        inputs: the input dictionaries: hook name -> basis, or a recipe that is fitted at hook_in. None: a `TrainedSAE` of the sparse
            trainer, k = 32 and eight features per dimension.
        outputs: the dictionaries of y from which the gates start, likewise; a transcoder serves as well. Its width is the number of gates.
        l0: mean number of active gates on natural rows.
        counterfactual: how rows are edited; None fits on natural rows alone.
        dense_share: input features that are on in a larger share of the rows are no parents. Gates without them read a little more
            easily, and know nothing of what they say: a sentence encoder's layer lost .05 of the R2 of removals at .2.
        bypass: which input features go past the gates, each with one direction of y that it writes: "none"; "dense", those that are
            too dense for a parent; "all", and the gates explain what is not linear. Or a `PairBypass`: the gates explain what it leaves,
            and its products are features after them.
        rounds, swap: how often, and how many at first, parents of each gate are exchanged.
        samples: rows seen without counterfactual pairs, with repetition; with pairs, twice `counterfactual.pairs` rows are seen.
        refit_rows: natural rows (with pairs, as many edits of them besides) for the closed-form dictionary at the end; 0 for none. Fewer
            cost what training gained: 4,096 gates left .369 of the variance with 60,000, .359 with 180,000.
        batch_size, lr: rows a step, and Adam's rate. seed: of starts, edits and the order of rows.
        progress: bars on standard error; None: where somebody watches.
        memory_gib: the most that the table which finds new parents may take.
        product: the gates of a gated MLP in its own form, act(sum a f) * (sum b f) with `fan_in` inputs a side, an AND of two weighted
            ORs; one for each neuron, pruned from the model's own weights (`outputs`, `rounds` and `swap` are not used).
        tune_inputs: an `InputTuning`: at the end, train the input dictionary on together with the gates, wires kept. The gates' own
            `basis_in` is then the tuned one, and `fit` gives it for hook_in.

    Raises:
        BasisError: settings out of range; from `fit`, segments that meet, no live parents, features below zero.
        TooLargeError: from `fit`, before anything is allocated.

    Examples:
        >>> recipe = gl.GateDictionary(fan_in=4, l0=2, inputs=bases, outputs=bases, samples=10_000, counterfactual=None)
        >>> gates = recipe.fit(segments, acts)["hook_mlp_out"]
        >>> int(gates.connector.fan_in().max())
        4
    """

    fan_in: int = 8
    l0: float = 32
    inputs: Any = None
    outputs: Any = None
    counterfactual: Counterfactual | None = field(default_factory=Counterfactual)
    lam: float = 3.0
    dense_share: float = 1.0
    bypass: str | PairBypass = "none"
    samples: int = 600_000
    batch_size: int = 512
    lr: float = 1.5e-2
    rounds: int = 7
    swap: int = 2
    refit_rows: int = 200_000
    memory_gib: float = 4.0
    product: bool = False
    tune_inputs: InputTuning | None = None
    seed: int = 0
    progress: bool | None = None

    def __post_init__(self):
        if min(self.fan_in, self.l0, self.samples, self.batch_size) < 1 or min(self.lam, self.rounds, self.swap) < 0:
            raise BasisError(
                f"fan_in, l0, samples and batch_size must be at least 1, lam, rounds and swap not negative; got fan_in {self.fan_in}, "
                f"l0 {self.l0}, samples {self.samples}, batch_size {self.batch_size}, lam {self.lam}, rounds {self.rounds}, "
                f"swap {self.swap}"
            )
        if self._products is None and self.bypass not in BYPASSES:
            raise BasisError(
                f"unknown bypass {self.bypass!r}: expected one of {', '.join(BYPASSES)}, or a PairBypass(...)"
            )
        if self._products is not None and self.tune_inputs is not None:
            raise BasisError(
                "tune_inputs changes the features that the products of a PairBypass are of: expected one of the two. Tune the inputs "
                "first, then give the tuned dictionary as `inputs` to a recipe with products"
            )
        if self.product and (self.bypass != "none" or self.tune_inputs is not None):
            raise BasisError(
                "product gates start from the model's neurons, which say all of y from the features as they are: expected bypass "
                "'none' and no tune_inputs beside product=True"
            )
        if not 0 < self.dense_share <= 1:
            raise BasisError(f"dense_share is a share of the rows, over 0 and at most 1; got {self.dense_share}")

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_in -> input dictionary, hook_out -> `GateBasis`, for each segment.

        Raises:
            BasisError: segments that meet (the gates of one cannot encode for the next), no live parents, a fan-in above their number,
                an output dictionary that never fires, features that go below zero.
            DataError: no activations at an end of a segment.
            TooLargeError: before anything is allocated.
        """

        def train(segment: Segment, basis_in: Basis, x: Tensor, y: Tensor) -> GateBasis:
            start = None if self.product else dictionary_at(self.outputs, segment, segment.hook_out, acts)
            return self.train(segment, basis_in, start, x, y)

        return fitted(segments, acts, self.inputs, train)

    @property
    def _products(self) -> PairBypass | None:
        return None if isinstance(self.bypass, str) else self.bypass

    has_wires = True

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        """Either end: the input dictionary's features, or as many gates as the dictionary has that they start from."""
        return max(shape_of(given, hook, width, self.l0) for given in (self.inputs, self.outputs))

    def estimate(self, hook: str, rows: int, width: int) -> Estimate:
        """The dictionaries that are yet to be trained, or the gates, whichever takes more."""
        features, active = self.shape_at(hook, width)
        work = [gates_estimate(rows, width, features, active, self.fan_in)]
        work += [as_recipe(r).estimate(hook, rows, width) for r in (self.inputs, self.outputs) if is_recipe(r)]
        if self.inputs is None or self.outputs is None:
            work.append(own(width).estimate(hook, rows, width))
        most = max(work, key=lambda e: e.memory)
        return Estimate("bases", most.memory, work[0].disk, most.parts)

    def train(
        self,
        segment: Segment,
        basis_in: Basis,
        start: Any,
        x: Float[Tensor, "rows d_in"],
        y: Float[Tensor, "rows d_out"],
        codes: Codes | None = None,
    ) -> GateBasis:
        """The gates of one segment, from rows of both its ends; `codes`: the input features of `x`, where they are at hand.

        Raises:
            BasisError: dictionaries of another segment, and as for `fit`.
        """
        began = time.perf_counter()
        x, y, codes, basis_in, start = there((x, y, codes, basis_in, start), segment.device)
        self._check(segment, basis_in, start)
        codes = Codes.encode(basis_in, x) if codes is None else codes
        check_finite_codes(codes.value)
        allowed, info = allowed_parents(codes, self.dense_share, self.fan_in)
        past = None if self._products is None else self._products.train(segment, basis_in, x, y, codes)
        past = there(past, segment.device)
        left = y if past is None else y - past.from_codes(codes)
        first = None if self.product else self._start(start, x, y, codes, allowed, past, left)
        units = Units.of(codes, left)
        rows = Rows(units.codes(codes), units.y(left), self._partner(segment, basis_in, x, codes, units, past))
        if first is None:
            run = ProductRun(rows, segment, basis_in, units, allowed, self.fan_in, self._settings())
        else:
            run = GateRun(rows, units.start(first), allowed, self._settings(), self._past_the_gates(codes))
        run.train()
        if self.tune_inputs is not None and isinstance(run, GateRun):
            tuned = self.tune_inputs.tune(run, basis_in, segment, x, units, self.counterfactual)
            basis_in = there(tuned, segment.device)
            codes = Codes.encode(basis_in, x)
            partner = self._partner(segment, basis_in, x, codes, units)
            run.rows = Rows(units.codes(codes), run.rows.y, partner)
        wires, dictionary, offset, bypass, told = run.found(self.refit_rows, units, self._said())
        if past is not None:
            wires = ProductConnector.after(wires, past.connector)
            dictionary, offset, bypass = torch.cat([dictionary, past.W_dec]), offset + past.b_dec, past.bypass_in
        info = {**info, **told, "seconds": time.perf_counter() - began}
        ends = segment.hook_in, segment.hook_out
        return host(GateBasis(basis_in, wires, dictionary, offset, segment.d_in, bypass, *ends, info))

    def _check(self, segment: Segment, basis_in: Basis, start: Any) -> None:
        """Refuse dictionaries of other widths, those of a pair that were made for another segment, and what cannot be tuned."""
        if self.product:
            check_gated(segment)
        check_width(basis_in, segment.hook_in, segment.d_in)
        if not self.product:
            check_width(start, segment.hook_out, segment.d_out)
            at_output(start).check(segment)
        if self.tune_inputs is not None:
            self.tune_inputs.check(basis_in)

    def _start(
        self, start: Any, x: Tensor, y: Tensor, codes: Codes, allowed: Tensor, past: GateBasis | None, left: Tensor
    ) -> GateStart:
        """Gates that predict the features of a dictionary of y; where products go before, how far what is left points along it."""
        some = spread(len(x), _START_ROWS)
        f_out = stacked([Codes.of(output_features(start, x[part], y[part])) for part in some.split(_ENCODED_ROWS)])
        dictionary, offset = directions(start, f_out.width), start.decode(y.new_zeros(1, f_out.width))[0]
        if past is not None:
            f_out, offset = pointing(left[some], dictionary, self.l0), left.mean(0)
        if not len(f_out.value):
            raise BasisError(
                "the output dictionary never fires: gates cannot start from it. Look at its threshold and at the activations"
            )
        if self.rounds:
            check_memory(codes.width, f_out.width, self.memory_gib)
        return GateStart(*omp_wires(codes.rows(some), f_out, allowed, self.fan_in), dictionary, offset)

    def _past_the_gates(self, codes: Codes) -> Int[Tensor, " p"]:
        """The input features that a bypass reads."""
        if self.bypass not in ("dense", "all"):
            return torch.zeros(0, dtype=torch.long, device=codes.col.device)
        least = self.dense_share if self.bypass == "dense" else -1.0
        return (codes.frequency() > least).nonzero().squeeze(1)

    def _settings(self) -> GateTraining:
        seen = self.samples if self.counterfactual is None else 2 * self.counterfactual.pairs
        steps = max(1, seen // self.batch_size)
        return GateTraining(
            self.l0, self.lam, steps, self.batch_size, self.lr, self.rounds, self.swap, self.seed, self.progress
        )

    def _partner(
        self,
        segment: Segment,
        basis_in: Basis,
        x: Tensor,
        codes: Codes,
        units: Units,
        past: GateBasis | None = None,
    ) -> Callable[[Tensor, Codes], tuple[Codes, Tensor]] | None:
        """Fresh edits of the rows of a batch, in training units."""
        edits = self.counterfactual
        if edits is None:
            return None
        generator = torch.Generator().manual_seed(edits.seed + 1_000 * self.seed)
        made = edits.maker(segment, basis_in, x, codes, generator)

        @torch.no_grad()
        def partner(index: Tensor, natural: Codes) -> tuple[Codes, Tensor]:
            edit, _, y = made(index, codes.rows(index))
            y = y if past is None else y - past.from_codes(edit.codes)
            return units.codes(edit.codes), units.y(y)

        return partner

    def _said(self) -> str:
        """What the wires say they were found by; dictionaries at hand are no part of it."""
        short = f"GateDictionary(fan_in={self.fan_in}, l0={self.l0}, lam={self.lam})"
        return repr(self) if self.inputs is None else short
