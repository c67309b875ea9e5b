"""The one gate through which every dictionary comes in: from a file, a release, a recipe, or a user's own object.

The rest of the house reads weights where it can (`W_dec` for directions, `W_enc` for derivatives), so a dictionary whose
encode or decode does more than these would be explained wrongly without a word. Here encode and decode are tried on a few
rows and compared with the weights; what they do more is folded where that is exact, and refused otherwise with the figure.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import torch
from torch import Tensor

from ...basis.linear import Rotation
from ...basis.recipe import is_recipe
from ...basis.trial import TOLERANCE, alone, check_features, off_by, rows_for, tried
from ...errors import BasisError
from .normalised import KINDS, RowNormalised, bare
from .plain import ARCHITECTURES, PlainSAE, plain

#: how far R R^T of a rotation may be off the identity: half precision's rounding
_ORTHONORMAL = 2e-2
#: how far an SAE in half precision may be off itself in float32: of values that are all but equal a top-k chooses others
_OTHER_CHOICE = 0.25


def admitted(basis: Any, hook: str = "", width: int | None = None, rows: Tensor | None = None) -> Any:
    """The basis, when its encode and decode are what its weights say; else one in which they are.

    Args:
        hook: where it will stand, for errors.
        width: of that hook point, where it is known. rows: that passed there, where they are at hand.

    Raises:
        BasisError: no basis at all (a recipe, a transcoder, a path: it says which), one that treats rows together,
            a decode that is not affine, weights that are not finite.
    """
    at = f" for {hook}" if hook else ""
    if callable(getattr(basis, "features_from", None)):
        return basis  # a pair's dictionary: those of the house are checked where they are made, others in `doors`
    _refuse_what_is_no_basis(basis, at)
    if _is_sae_lens(basis):
        basis = _from_sae_lens(basis, at)
    if isinstance(basis, Rotation):
        basis = _checked_rotation(basis, at)
    return tried(basis, at, width, rows)


def _refuse_what_is_no_basis(basis: Any, at: str) -> None:
    name = basis.__name__ if isinstance(basis, type) else type(basis).__name__
    advice = "Give an object with encode([rows, d]) -> [rows, f] and decode([rows, f]) -> [rows, d]"
    if isinstance(basis, type):
        raise BasisError(f"the basis{at} is the class {name}, not an object of it: write {name}(...). {advice}")
    if is_transcoder(basis):
        raise BasisError(
            f"the basis{at} is a transcoder ({_architecture(basis)}): it reads a segment's input and writes its output, so it cannot "
            "encode a single hook point. Give it at the segment's output: Transcoder(path=FOLDER) for a saved one, or "
            "bases.TranscoderBasis(it, hook_in, hook_out)"
        )
    if callable(getattr(basis, "encode", None)) and callable(getattr(basis, "decode", None)):
        return
    if is_recipe(basis):
        raise BasisError(f"the basis{at} is a recipe ({name}): fit it first, {name}(...).fit(segments, acts). {advice}")
    raise BasisError(f"expected a basis{at}, got {name} without encode and decode. {advice}")


def _checked_rotation(rotation: Rotation, at: str) -> Rotation:
    """A rotation in the precision of the rows that come to it."""
    parts = {"matrix": rotation.matrix, "mean": rotation.mean}
    other = {k: v.float() for k, v in parts.items() if v is not None and v.dtype != torch.float32}
    rotation = dataclasses.replace(rotation, **other) if other else rotation
    f, d = rotation.matrix.shape
    if rotation.mean is not None and rotation.mean.shape != (d,):
        raise BasisError(
            f"the rotation{at} has a matrix {[f, d]} and a mean {list(rotation.mean.shape)}; expected a mean [{d}]"
        )
    off = float((rotation.matrix @ rotation.matrix.T - torch.eye(f).to(rotation.matrix)).abs().max())
    if off > _ORTHONORMAL:  # NaN is said by whoever tries it
        raise BasisError(
            f"the rotation{at} has rows that are not orthonormal (R R^T is off the identity by {off:.2g}): decode would not undo "
            "encode. Give Rotation(torch.linalg.qr(matrix.T)[0].T), or an object of your own with encode and decode"
        )
    return rotation


def is_transcoder(basis: Any) -> bool:
    """Whether it is a bare transcoder of sae-lens' kind."""
    return "transcoder" in _architecture(basis)


def _architecture(basis: Any) -> str:
    named = getattr(getattr(basis, "cfg", None), "architecture", None)
    return str(named() if callable(named) else named or "")


def _is_sae_lens(basis: Any) -> bool:
    """By what it shows, so that sae-lens is not imported for it; also what was read from its files without it."""
    return isinstance(basis, PlainSAE) or (
        hasattr(basis, "run_time_activation_norm_fn_in") and hasattr(basis, "hook_sae_acts_post")
    )


def _from_sae_lens(sae: Any, at: str) -> Any:
    """The object itself where it is encoder, rule and decoder; its exact plain form where it does more; else refused."""
    _check_weights(sae, at)
    kind = str(getattr(sae.cfg, "normalize_activations", None) or "none")
    architecture = _architecture(sae)
    if kind not in ("none", *KINDS):
        raise BasisError(
            f"the SAE{at} normalises activations by {kind!r}, whose factors are not in its file; "
            f"expected none, {' or '.join(KINDS)}. "
            "Fold them into its weights where it was trained (sae-lens' trainer does at the end of `fit`)"
        )
    if architecture == "temporal":
        raise BasisError(
            f"the SAE{at} is a temporal one: its features depend on the positions before, a basis encodes each row by itself. "
            "Choose another SAE"
        )
    heads = str(getattr(sae.cfg, "reshape_activations", None) or "none") != "none"
    if _replaced(sae) and (kind != "none" or heads):
        raise BasisError(
            f"the SAE{at} was given another {' and '.join(_replaced(sae))}, beside which it "
            f"{'takes heads apart' if heads else 'normalises'}, and what comes first is not known. "
            "Give an object of your own with encode and decode"
        )
    does_more = (
        architecture == "gated"
        or (bool(getattr(sae.cfg, "rescale_acts_by_decoder_norm", False)) and not _of_unitrows_for(sae.W_dec))
        or sae.W_dec.dtype != torch.float32
        or callable(getattr(sae, "training_forward_pass", None))
    )
    made = written = sae
    if does_more and architecture in ARCHITECTURES and not _of_ones_own(sae):
        made = plain(sae.cfg.to_dict(), {k: v.float() for k, v in sae.state_dict().items()}).to(sae.W_dec.device)
        written = made
    elif heads or kind != "none":
        made = bare(sae)
    if kind != "none":
        # tried: its W_dec may lack a rescaling, its decode leave b_dec out
        made = RowNormalised(written, tried(made, at, int(made.cfg.d_in)))
    if made is not sae and not isinstance(sae, PlainSAE):
        _prove(made, sae, at)
    return made


def _replaced(sae: Any) -> list[str]:
    """What was put on the object in the place of its class's own."""
    return [name for name in ("encode", "decode") if name in vars(sae)]


def _of_ones_own(sae: Any) -> bool:
    """Whether it computes by somebody's own code, so that its weights and settings do not say what."""
    return bool(_replaced(sae)) or not type(sae).__module__.startswith(("sae_lens", "gatelens"))


def _of_unitrows_for(matrix: Tensor) -> bool:
    return bool(((matrix.norm(dim=1) - 1).abs() <= 1e-5).all())


def _check_weights(sae: Any, at: str) -> None:
    """They are finite, and nothing is hooked on that changes what they compute."""
    for name, value in sae.named_parameters():
        if value.device.type == "meta":
            raise BasisError(f"the SAE{at}: its {name} is on the device meta and has no values: load its weights first")
        if not torch.isfinite(value).all():
            raise BasisError(
                f"the SAE{at}: its {name} holds NaN or infinity: expected finite weights. Download or train it again"
            )
    hooked = [name for name, point in getattr(sae, "hook_dict", {}).items() if point.fwd_hooks]
    if hooked:
        raise BasisError(
            f"the SAE{at} has hooks of its own at {', '.join(hooked)}: what it encodes is not what its weights say. "
            "Take them off: sae.reset_hooks(including_permanent=True)"
        )


def checked_transcoder(module: Any, at: str = "") -> Any:
    """A sae-lens transcoder in float32 whose encode and decode are its weights.

    Raises:
        BasisError: one that rescales its input, holds NaN, is hooked, or computes something else than its weights, with the figure.
    """
    _check_weights(module, at)
    kind = str(getattr(module.cfg, "normalize_activations", None) or "none")
    if kind != "none":
        raise BasisError(
            f"the transcoder{at} rescales its input ({kind}): what it decodes depends on the last encode. "
            "Fold the scaling into its weights first"
        )
    if isinstance(module, PlainSAE):
        return module
    form = plain(module.cfg.to_dict(), {k: v.float() for k, v in module.state_dict().items()}).to(module.W_dec.device)
    x = rows_for(module, int(module.cfg.d_in))
    half = module.W_dec.dtype not in (torch.float32, torch.float64)
    with torch.no_grad():
        f = module.encode(x)
        check_features(f, alone(module.encode, x, f), at, module)
        v = torch.rand(2, f.shape[1], generator=torch.Generator().manual_seed(1)).to(f)
        off = {
            "decode": off_by(module.decode(v).float(), form.decode(v.float())),
            "encode": off_by(f.float(), form.encode(x.float())),
        }
    for what, figure in off.items():
        if not figure <= (_OTHER_CHOICE if half else TOLERANCE):
            raise BasisError(
                f"the transcoder{at} does more in {what} than multiply by its weights: they are off by a relative {figure:.2g}. "
                "Fold what it does into its weights first"
            )
    return module if module.W_dec.dtype == torch.float32 else form


def _prove(made: Any, sae: Any, at: str) -> None:
    """The form that stands for an SAE, against the object: what it encodes, and what it decodes of these and of other features."""
    theirs = copy.copy(sae)
    theirs.turn_off_forward_pass_hook_z_reshaping()
    x = rows_for(sae, int(sae.cfg.d_in))
    with torch.no_grad():
        f = theirs.encode(x)
        y = theirs.decode(f)
        g, n = made.encode(x.float()), f.shape[1]
        v = torch.rand(f.shape, generator=torch.Generator().manual_seed(1)).to(f)
        theirs.encode(x)  # whose scale the next decode takes
        z = theirs.decode(v)
        scale = g[:, n : n + 1] if g.shape[1] > n else 1.0  # a normalised one holds features in units of x
        off = max(
            off_by(g[:, :n], scale * f.float()),
            off_by(made.decode(g), y.float()),
            off_by(made.decode(torch.cat([scale * v.float(), g[:, n:]], 1)), z.float()),
        )
    if not off <= (TOLERANCE if sae.W_dec.dtype in (torch.float32, torch.float64) else _OTHER_CHOICE):
        raise BasisError(
            f"the SAE{at} ({_architecture(sae)}) computes something else than its weights in plain form, by a relative "
            f"error of {off:.2g}. Give it without its changes, or an object of your own with encode and decode"
        )
