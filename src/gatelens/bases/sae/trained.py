"""Sparse autoencoders trained on a segment's activations; what comes back is a sae-lens SAE."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, fields
from functools import partial
from typing import Any, Literal, get_args
from unittest.mock import patch

import torch
from jaxtyping import Float
from torch import Tensor

from ...activations.collecting import hook_names
from ...basis.linear import Basis
from ...basis.recipe import AtWork
from ...errors import BasisError
from ...errors.progress import bar, watched
from ...errors.tracker import tell_curve
from ...models import host
from ...models.placing import batch_there
from ...segments import Segment
from .files import in_sae_lens_form, sae_lens_works
from .pair_training import Beyond, PairTraining, PairWeights, train_pair
from .training import DictionaryTraining, check_rows, shuffled

Architecture = Literal["batchtopk", "matryoshka", "topk", "relu", "tied"]
#: sae-lens' names of architectures, where they are others
THEIRS = {"matryoshka": "matryoshka_batchtopk", "relu": "standard"}
#: widths of the nested dictionaries of "matryoshka", as shares of the whole
NESTED = (1 / 8, 1 / 4, 1 / 2, 1)
#: a feature that was off for a fortieth of the training is pulled back to what the others miss; sae-lens' own thousand
#: steps are longer than many of our runs, in which dead features would then stay dead
DEAD_SHARE = 40


@dataclass(frozen=True)
class TrainedSAE(DictionaryTraining):
    """A sparse autoencoder for each hook point, of unit decoder rows, in sae-lens' inference form.

    Attributes:
        architecture: "batchtopk" (exported as JumpReLU), "matryoshka" (the same with nested dictionaries:
            fewer features are split into copies), "topk", "relu" with an L1 penalty, or
            "tied": ReLU-L1 whose decoder is the encoder transposed.
        l1: coefficient of the penalty ("relu", "tied").
        trainer: "sparse" ("batchtopk" only), our own, whose steps visit only active features and which restarts dead ones; or
            "sae-lens". None: "sparse" where it can. At equal steps it explains at least as much, in a quarter of the time, and
            keeps its L0: sae-lens' threshold is a running mean, which a short training does not bring to an end.
        orthogonality: keeps directions apart, against features that absorb others ("sparse" trainer only; see `PairTraining`).
        expansion, d_sae, k, samples, batch_size, lr, seed, progress, data_parallel: see `DictionaryTraining` (data_parallel: "sparse"
            trainer only). k is a mean for "batchtopk" and "matryoshka", and exact for "topk".

    Sources: "BatchTopK Sparse Autoencoders", "Learning Multi-Level Features with Matryoshka Sparse Autoencoders", "Scaling and
    evaluating sparse autoencoders", "OrtSAE: Orthogonal Sparse Autoencoders Uncover Atomic Features".

    Raises:
        BasisError: an unknown architecture, settings out of range or that the trainer does not have; from `fit`, no rows to train on,
            or more active features asked for than there are.

    Examples:
        >>> sae = gl.TrainedSAE(d_sae=128, k=4, samples=20_000).fit(segments, acts)["hook_resid"]
        >>> sae.encode(unseen["hook_resid"]).shape  # [rows, d_sae]
        torch.Size([2000, 128])
    """

    architecture: Architecture = "batchtopk"
    l1: float = 0.02
    trainer: Literal["sae-lens", "sparse"] | None = None
    _: KW_ONLY
    expansion: int = 4
    lr: float = 4e-3
    orthogonality: float = 0.0

    def __post_init__(self):
        if self.architecture not in get_args(Architecture):
            known = ", ".join(get_args(Architecture))
            raise BasisError(f"unknown SAE architecture {self.architecture!r}: expected one of {known}")
        trainers = ("sparse", "sae-lens") if self.architecture == "batchtopk" else ("sae-lens",)
        if self.trainer not in (None, *trainers):
            raise BasisError(
                f"trainer {self.trainer!r} does not train {self.architecture!r}: expected {' or '.join(trainers)}"
            )
        for name in ("orthogonality", "data_parallel"):
            if getattr(self, name) and not self._sparse:
                raise BasisError(
                    f'{name} = {getattr(self, name)} needs architecture="batchtopk" and trainer="sparse"; got '
                    f"{self.architecture!r} and {self.trainer!r}"
                )
        super().__post_init__()

    @property
    def _sparse(self) -> bool:
        return self.architecture == "batchtopk" and self.trainer != "sae-lens"

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """One SAE for each hook point of the segments, from the activations collected there."""
        return {hook: self.fit_at(hook, segments, acts) for hook in hook_names(segments)}

    apart = True

    def fit_at(self, hook: str, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> Basis:
        rows = AtWork(segments, acts)
        return self.train(rows[hook], hook, rows.device)

    def shape_at(self, hook: str, width: int) -> tuple[int, float]:
        features, active = super().shape_at(hook, width)
        return features, active if "topk" in self.architecture or self.architecture == "matryoshka" else float(features)

    def train(self, x: Float[Tensor, "rows d"], hook: str = "", device: torch.device | None = None) -> Any:
        """One SAE for the rows of `x`, in the host's memory.

        Args:
            device: where to train, if not where the rows lie.

        Raises:
            BasisError: no rows, rows that are all equal, or more active features than there are. NonFiniteError: NaN or infinity.
        """
        check_rows(x, f"the activations at {hook}" if hook else "the activations")
        d_sae = self.width_for(x.shape[1], limited=self.architecture not in ("relu", "tied"))
        if self._sparse:
            shared = {f.name: getattr(self, f.name) for f in fields(DictionaryTraining)}
            settings = PairTraining(**shared, orthogonality=self.orthogonality)
            return as_jumprelu(host(train_pair(x, x, settings, device=device)), hook)
        x = x if device is None else x.to(device)
        if self.architecture == "tied":
            return train_tied(x, d_sae, self, self.l1, hook)
        with torch.random.fork_rng(devices=[x.device] if x.is_cuda else []):
            torch.manual_seed(self.seed)
            return self._train_with_sae_lens(x, d_sae, hook)

    def _train_with_sae_lens(self, x: Float[Tensor, "rows d"], d_sae: int, hook: str) -> Any:
        if not sae_lens_works():
            raise BasisError(
                'this needs sae-lens, which does not work with the transformer-lens that is installed: expected trainer="sparse" '
                '(architecture "batchtopk"), which needs none. Or install transformer-lens < 4'
            )
        from sae_lens import SAETrainer
        from sae_lens.config import SAETrainerConfig
        from sae_lens.training import sae_trainer

        steps, batch_size = self.schedule(len(x))
        config = SAETrainerConfig(
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            total_training_samples=steps * batch_size,
            train_batch_size_samples=batch_size,
            device=str(x.device),
            lr=self.lr,
            lr_end=self.lr / 10,
            lr_decay_steps=steps // 5,
            dead_feature_window=min(max(int(steps / DEAD_SHARE), 10), 1000),
            autocast=False,
        )
        sae = self._training_sae(x, d_sae)
        order = shuffled(len(x), batch_size, torch.Generator().manual_seed(self.seed), whole=True)
        with patch.object(sae_trainer, "tqdm", partial(sae_trainer.tqdm, disable=not watched(self.progress))):
            sae = SAETrainer(cfg=config, sae=sae, data_provider=(x[index] for index in order)).fit()
        return inference_form(sae, hook)

    def _training_sae(self, x: Float[Tensor, "rows d"], d_sae: int) -> Any:
        from sae_lens.registry import get_sae_training_class

        own: dict[str, Any] = {"l1_coefficient": self.l1} if self.architecture == "relu" else {"k": float(self.k)}
        if self.architecture == "topk":
            own["k"] = int(self.k)
        if self.architecture == "matryoshka":
            own["matryoshka_widths"] = sorted({max(1, round(share * d_sae)) for share in NESTED})
        trained, config = get_sae_training_class(THEIRS.get(self.architecture, self.architecture))
        sizes: dict[str, Any] = {"d_in": x.shape[1], "d_sae": d_sae, "device": str(x.device)}
        sae: Any = trained(config(**sizes, apply_b_dec_to_input=True, **own))
        sae.b_dec.data = x.mean(0)  # the mean is learned at once instead of over thousands of steps
        return sae


@dataclass(frozen=True)
class SegmentSAE(PairTraining):
    """|x - x_hat|^2 + weight * |segment(x) - segment(x_hat)|^2, each relative to its variance: end-to-end training.

    Source: "Identifying Functionally Important Features with End-to-End Sparse Dictionary Learning".

    What no gate can be better than is the model's own segment on decoded inputs. A dictionary of x alone spends its features on
    variance that the segment does not read; this one lowers that ceiling's error at the same number of active features.

    Attributes:
        weight: of the segment's error; 0 trains a plain autoencoder, as `TrainedSAE` does.
        activation, k, ...: see `PairTraining`.
    """

    _: KW_ONLY
    weight: float = 1.0

    def __post_init__(self):
        super().__post_init__()
        if self.weight < 0 or self.bypass:
            raise BasisError(
                f"weight must not be negative, and an autoencoder has no bypass; got {self.weight}, {self.bypass}"
            )

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """hook_in -> sae-lens SAE. The output's dictionary is chosen apart."""
        rows = AtWork(segments, acts)
        return {s.hook_in: self.train(rows[s.hook_in], s, acts.get(s.hook_out)) for s in segments}

    def train(
        self, x: Float[Tensor, "rows d_in"], segment: Segment, y: Float[Tensor, "rows d_out"] | None = None
    ) -> Any:
        """A sae-lens SAE of the rows of x; `y`: what the segment gives for them, where it is at hand."""
        beyond = Beyond(segment.forward, segment.outputs(x) if y is None else y, self.weight)
        return as_jumprelu(host(train_pair(x, x, self, beyond, segment.device)), segment.hook_in)


def train_tied(x: Float[Tensor, "rows d"], d_sae: int, recipe: DictionaryTraining, l1: float, hook: str) -> Any:
    """Minimise |x - x_hat|^2 + l1 |f|_1 (mean over rows) with f = relu((x - b) W + c), x_hat = f W^T + b.

    The columns of W are kept at length 1, so that the penalty cannot be escaped by scale. Returned as a sae-lens
    `StandardSAE` with W_enc = W and W_dec = W^T.
    """
    rows = torch.Generator().manual_seed(recipe.seed)
    W = torch.randn(x.shape[1], d_sae, generator=rows).to(x.device)
    W = (W / W.norm(dim=0)).requires_grad_()
    b = x.mean(0).clone().requires_grad_()
    c = torch.zeros(d_sae, device=x.device, requires_grad=True)
    optimiser = torch.optim.Adam([W, b, c], lr=recipe.lr)
    steps, batch_size = recipe.schedule(len(x))
    for step in bar(range(steps), f"tied SAE {hook}", recipe.progress):
        for group in optimiser.param_groups:  # the last fifth anneals to a tenth, as for the others
            group["lr"] = recipe.lr * min(1.0, 0.1 + 4.5 * (1 - step / steps))
        batch = batch_there(x, torch.randint(len(x), (batch_size,), generator=rows), x.device)
        f = torch.relu((batch - b) @ W + c)
        loss = (batch - f @ W.T - b).square().sum(-1).mean() + l1 * f.sum(-1).mean()
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        optimiser.step()
        tell_curve(f"tied/{hook}", step, loss.item)
        with torch.no_grad():
            W /= W.norm(dim=0).clamp_min(1e-8)
    tensors = host({"W_enc": W.detach(), "W_dec": W.detach().T.contiguous(), "b_enc": c.detach(), "b_dec": b.detach()})
    return in_sae_lens_form("standard", tensors, {"hook_name": hook}, apply_b_dec_to_input=True)


def inference_form(sae: Any, hook: str) -> Any:
    """The SAE as sae-lens exports it (BatchTopK becomes JumpReLU), decoder rows scaled to length 1, frozen."""
    from sae_lens import SAE

    with tempfile.TemporaryDirectory() as folder:
        sae.save_inference_model(folder)
        exported = SAE.load_from_disk(folder)
    if hook:
        exported.cfg.metadata.hook_name = hook
    exported.fold_W_dec_norm()
    return exported.eval().requires_grad_(False)


def as_jumprelu(found: PairWeights, hook: str) -> Any:
    """What `train_pair` found from a hook point to itself, as a sae-lens JumpReLU SAE of one threshold."""
    metadata = {"sae_lens_training_version": None} | (
        {"hook_name": hook} if hook else {}
    )  # sae-lens writes its own otherwise
    return in_sae_lens_form("jumprelu", found.tensors(), metadata)


def single_threshold(sae: Any) -> PairWeights:
    """The weights of a sae-lens SAE whose features all share one threshold: the inverse of `as_jumprelu`.

    Raises:
        BasisError: another kind of dictionary, thresholds of their own, or activations that the SAE normalises first.
    """
    threshold = getattr(sae, "threshold", None)
    known = threshold is not None and all(hasattr(sae, name) for name in ("W_enc", "b_enc", "W_dec", "b_dec", "cfg"))
    if not known or sae.cfg.normalize_activations != "none" or bool((threshold != threshold[0]).any()):
        of = type(sae).__name__ + (" with thresholds of their own, or normalised activations" if known else "")
        raise BasisError(
            f"expected a dictionary whose features share one threshold, in the units of the data; got {of}. "
            "Train one with SegmentSAE or TrainedSAE"
        )
    bias = sae.b_enc - sae.b_dec @ sae.W_enc if sae.cfg.apply_b_dec_to_input else sae.b_enc
    return PairWeights(sae.W_enc.T, bias, float(threshold[0]), sae.W_dec, sae.b_dec, None, 0)
