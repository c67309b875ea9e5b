"""Bases on disk: rotations as safetensors, sae-lens SAEs in sae-lens' own format, anything else by its own methods.

A composite names its parts (`parts()`), and they are saved as what they are; its own files are its own business.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from . import store
from .bases.rotation.result import FittedRotation, Invertible
from .bases.sae.admission import admitted
from .bases.sae.files import from_folder, from_stored
from .basis.linear import Basis, Rotation
from .basis.trial import AsComputed, off_by, rows_for, tolerance
from .connectors import Connector
from .errors import BasisError
from .gate_dictionaries.gate_basis import GateBasis
from .gate_dictionaries.transcoder import TranscoderBasis

#: rows on which what is read back is compared
_PROOF = 256
_UNSAVEABLE = (
    "{} cannot be saved: expected a Rotation, a sae-lens SAE or a GateLens dictionary. Keep the basis yourself and build the circuit's "
    "other parts with `connector.save`"
)


def save_basis(basis: Basis, folder: str | Path) -> None:
    """Write a basis so that `load_basis` finds out what it is.

    Raises:
        BasisError: for a user's own basis without `save_into(out)`.
    """
    with store.writing(folder, "basis") as out:
        basis_into(basis, out)


def basis_into(basis: Basis, out: store.Writing) -> None:
    """`save_basis`, as a part of something that is being written."""
    if isinstance(basis, AsComputed):
        if not _writes_sae(basis.source):
            raise BasisError(_UNSAVEABLE.format(basis.label))
        _sae_into(basis, basis.source, out)  # read back, it is measured again
    elif isinstance(basis, Rotation):
        tensors = {"matrix": basis.matrix} | ({} if basis.mean is None else {"mean": basis.mean})
        fit = {"fit": basis.record()} if isinstance(basis, FittedRotation) else {}
        out.json("basis.json", {"kind": "rotation", "label": basis.label} | fit)
        out.tensors("rotation.safetensors", tensors)
    elif _writes_sae(basis):
        _sae_into(basis, basis, out)
    elif hasattr(basis, "save_into"):
        _composite_into(basis, out)
    else:
        raise BasisError(_UNSAVEABLE.format(type(basis).__name__))


def _composite_into(basis: Any, out: store.Writing) -> None:
    """A value that writes its own files; what it is composed of is saved beside them as what it is."""
    parts = basis.parts() if hasattr(basis, "parts") else {}
    kinds = {name: "connector" if isinstance(part, Connector) else "basis" for name, part in parts.items()}
    out.json("basis.json", {"kind": type(basis).__name__, "parts": kinds})
    for name, part in parts.items():
        if isinstance(part, Connector):
            part.save_into(out.part(name))
        else:
            basis_into(part, out.part(name))
    basis.save_into(out)


def load_basis(folder: str | Path) -> Basis:
    """The basis that `save_basis` wrote there."""
    return basis_from(store.reading(folder, "basis"))


def basis_from(stored: store.Reading) -> Basis:
    """What `basis_into` wrote."""
    with store.understood(stored.place):
        return _read(stored)


def _read(stored: store.Reading) -> Basis:
    kind = stored.json("basis.json")["kind"]
    if kind == "rotation":
        tensors, about = stored.tensors("rotation.safetensors"), stored.json("basis.json")
        if "fit" in about:
            return FittedRotation.from_record(tensors["matrix"], about["label"], about["fit"])
        return Rotation(tensors["matrix"], tensors.get("mean"), about["label"])
    if kind == "sae_lens":
        return admitted(from_stored(stored))
    return _composite(stored)


#: what writes and reads its own files, by the name of its class
COMPOSITES = {c.__name__: c for c in (Invertible, TranscoderBasis, GateBasis)}
#: gate dictionaries written by 0.1.0 do not list their parts
_GATE_PARTS = {"input": "basis", "connector": "connector"}


def _composite(stored: store.Reading) -> Basis:
    about = stored.json("basis.json")
    kind = about["kind"]
    if kind not in COMPOSITES:
        raise BasisError(
            f"{stored.place} holds a basis of kind {str(kind)[:80]!r}, which this version of gatelens does not read (it reads "
            f"{', '.join(COMPOSITES)}, rotation and sae_lens). Fit it again with one of its recipes; a run: gatelens run CONFIG --restart"
        )
    kinds = about.get("parts", _GATE_PARTS if kind == GateBasis.__name__ else {})
    parts = {
        name: Connector.load_from(stored.part(name, sort))
        if sort == "connector"
        else basis_from(stored.part(name, sort))
        for name, sort in kinds.items()
    }
    return COMPOSITES[kind].load_from(stored, parts)


def _writes_sae(basis: Any) -> bool:
    return hasattr(basis, "save_inference_model") or hasattr(basis, "save_model")


def _sae_into(basis: Any, sae: Any, out: store.Writing) -> None:
    """The files that an SAE writes, when what is read from them again computes what the basis does."""
    with tempfile.TemporaryDirectory() as temporary:
        save = getattr(sae, "save_model", None) or sae.save_inference_model
        save(temporary)
        _check_same(basis, Path(temporary))
        out.json("basis.json", {"kind": "sae_lens"})
        out.json("cfg.json", store.parse_json((Path(temporary) / "cfg.json").read_bytes(), "cfg.json"))
        out.copy("sae_weights.safetensors", Path(temporary) / "sae_weights.safetensors")


def _check_same(basis: Any, folder: Path) -> None:
    """An encode that was replaced, or a class of somebody's own, is not in a file of weights."""
    again = admitted(from_folder(folder))
    x = rows_for(again, int(again.cfg.d_in), _PROOF).float()
    with torch.no_grad():
        f, found = basis.encode(x), again.encode(x)
        same = f.shape == found.shape
        off = max(off_by(found, f), off_by(again.decode(f), basis.decode(f))) if same else float("inf")
    if not off <= tolerance(basis.W_dec):
        raise BasisError(
            f"{type(basis).__name__} computes something else than the weights and settings that its save_model writes (off by a relative "
            f"{off:.2g}): read back it would be another basis. Keep the object yourself, and save the circuit by save(folder, bases=False)"
        )
