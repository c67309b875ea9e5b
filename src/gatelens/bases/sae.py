"""Sparse autoencoders trained on a segment's activations; what comes back is a sae-lens SAE."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from ..activations import hook_names
from ..errors import BasisError
from ..segments import Segment
from .linear import Basis
from .pair_training import PairTraining, PairWeights, train_pair

Architecture = Literal["batchtopk", "topk", "relu", "tied"]


@dataclass(frozen=True)
class TrainedSAE:
    """A sparse autoencoder for each hook point, of unit decoder rows, in sae-lens' inference form.

    Attributes:
        architecture: "batchtopk" (Bussmann et al. 2024; exported as JumpReLU), "topk" (Gao et al. 2024), "relu" with an L1
            penalty, or "tied": ReLU-L1 whose decoder is the encoder transposed.
        expansion: features per dimension; `d_sae` overrides it.
        k: mean (batchtopk) or exact (topk) number of active features.
        l1: coefficient of the penalty ("relu", "tied").
        samples: rows seen in training, with repetition.
        trainer: "sae-lens"; or "sparse" ("batchtopk" only), our own, whose steps visit only active features and which
            restarts dead ones: several times faster, and far fewer features die in short trainings.
        seed: of the initial weights and of the order of rows.
    """

    architecture: Architecture = "batchtopk"
    expansion: int = 4
    d_sae: int | None = None
    k: int = 32
    l1: float = 0.02
    samples: int = 1_000_000
    batch_size: int = 512
    lr: float = 3e-3
    trainer: Literal["sae-lens", "sparse"] = "sae-lens"
    seed: int = 0
    progress: bool = False

    def __post_init__(self):
        known = ("batchtopk", "topk", "relu", "tied")
        if self.architecture not in known:
            raise BasisError(f"unknown SAE architecture {self.architecture!r}: expected one of {', '.join(known)}")
        trainers = ("sae-lens", "sparse") if self.architecture == "batchtopk" else ("sae-lens",)
        if self.trainer not in trainers:
            raise BasisError(
                f"trainer {self.trainer!r} does not train {self.architecture!r}: expected {' or '.join(trainers)}"
            )
        if self.k < 1 or self.samples < 1 or self.expansion < 1:
            raise BasisError(
                f"k, samples and expansion must be positive, got {self.k}, {self.samples}, {self.expansion}"
            )

    def fit(self, segments: Sequence[Segment], acts: Mapping[str, Tensor]) -> dict[str, Basis]:
        """One SAE for each hook point of the segments, from the activations collected there."""
        return {hook: self.train(acts[hook], hook) for hook in hook_names(segments)}

    def train(self, x: Float[Tensor, "rows d"], hook: str = "") -> Any:
        """One SAE for the rows of `x`."""
        d_sae = self.d_sae or self.expansion * x.shape[1]
        if self.k > d_sae and self.architecture in ("batchtopk", "topk"):
            raise BasisError(f"k = {self.k} active features were asked of a dictionary of {d_sae}; choose k <= {d_sae}")
        if self.architecture == "tied":
            from .tied import train_tied

            return train_tied(x, d_sae, self, hook)
        if self.trainer == "sparse":
            return self._train_sparse(x, d_sae, hook)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.seed)
            return self._train_with_sae_lens(x, d_sae, hook)

    def _train_sparse(self, x: Float[Tensor, "rows d"], d_sae: int, hook: str) -> Any:
        settings = PairTraining(
            d_sae,
            k=self.k,
            samples=self.samples,
            batch_size=self.batch_size,
            lr=self.lr,
            seed=self.seed,
            progress=self.progress,
        )
        return as_jumprelu(train_pair(x, x, settings), hook)

    def _train_with_sae_lens(self, x: Float[Tensor, "rows d"], d_sae: int, hook: str) -> Any:
        from sae_lens import SAETrainer
        from sae_lens.config import SAETrainerConfig

        config = SAETrainerConfig(
            n_checkpoints=0,
            checkpoint_path=None,
            save_final_checkpoint=False,
            total_training_samples=self.samples,
            train_batch_size_samples=self.batch_size,
            device=str(x.device),
            lr=self.lr,
            lr_end=self.lr / 10,
            lr_decay_steps=self.samples // self.batch_size // 5,
            autocast=False,
        )
        sae = self._training_sae(x, d_sae)
        with _bar(self.progress):
            sae = SAETrainer(cfg=config, sae=sae, data_provider=_rows(x, self.batch_size, self.seed)).fit()
        return inference_form(sae, hook)

    def _training_sae(self, x: Float[Tensor, "rows d"], d_sae: int) -> Any:
        import sae_lens as sl

        shared: dict[str, Any] = {
            "d_in": x.shape[1],
            "d_sae": d_sae,
            "device": str(x.device),
            "apply_b_dec_to_input": True,
        }
        if self.architecture == "batchtopk":
            sae = sl.BatchTopKTrainingSAE(sl.BatchTopKTrainingSAEConfig(k=float(self.k), **shared))
        elif self.architecture == "topk":
            sae = sl.TopKTrainingSAE(sl.TopKTrainingSAEConfig(k=self.k, **shared))
        else:
            sae = sl.StandardTrainingSAE(sl.StandardTrainingSAEConfig(l1_coefficient=self.l1, **shared))
        sae.b_dec.data = x.mean(0)  # the mean is learned at once instead of over thousands of steps
        return sae


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
    from sae_lens import JumpReLUSAE, JumpReLUSAEConfig

    d_sae, d_in = found.dictionary.shape
    sae = JumpReLUSAE(
        JumpReLUSAEConfig(d_in=d_in, d_sae=d_sae, device=str(found.encoder.device), apply_b_dec_to_input=False)
    )
    sae.W_enc.data, sae.b_enc.data = found.encoder.T.contiguous(), found.bias
    sae.W_dec.data, sae.b_dec.data = found.dictionary, found.offset
    sae.threshold.data = torch.full_like(found.bias, found.threshold)
    if hook:
        sae.cfg.metadata.hook_name = hook
    return sae.eval().requires_grad_(False)


def _rows(x: Float[Tensor, "rows d"], batch_size: int, seed: int) -> Iterator[Float[Tensor, "batch d"]]:
    """Batches without end; every row once before any row twice."""
    generator = torch.Generator().manual_seed(seed)
    kept = torch.empty(0, dtype=torch.long)
    while True:
        while len(kept) < batch_size:
            kept = torch.cat([kept, torch.randperm(len(x), generator=generator)])
        yield x[kept[:batch_size]]
        kept = kept[batch_size:]


@contextmanager
def _bar(show: bool) -> Iterator[None]:
    """sae-lens' trainer always shows its bar: without `show`, it gets a silent one for the while."""
    from sae_lens.training import sae_trainer

    loud = sae_trainer.tqdm
    if not show:
        sae_trainer.tqdm = partial(loud, disable=True)  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield
    finally:
        sae_trainer.tqdm = loud  # pyright: ignore[reportAttributeAccessIssue]
