"""Dictionaries of our own making, by name: in this package, or in a data package that is found and never imported."""

from __future__ import annotations

import json
from pathlib import Path

from ...errors import BasisError
from ...store.packages import package_folder
from .files import CONFIG, SHIPPED, SMOLLM2

#: names that are known without their package, and how it is had
PACKAGES = {SMOLLM2: "pip install ./dictionaries/smollm2 in a clone of gatelens"}


def shipped_folder(name: str) -> Path | None:
    """The folder of the dictionaries of that name; None for a name that is none of ours.

    Raises:
        BasisError: a name of ours whose package is not installed.
    """
    if name == SHIPPED:
        return Path(__file__).resolve().parents[2] / "demo" / "saes"
    if (folder := package_folder(name)) is not None:
        return folder
    if name in PACKAGES:
        raise BasisError(
            f"the dictionaries of {name} are a package of their own, which is not installed: {PACKAGES[name]}"
        )
    return None


def training_documents(name: str) -> frozenset[str]:
    """Hashes (`gatelens.data.seen`) of the documents that any dictionary of that name was trained on.

    Raises:
        BasisError: an unknown name, a package that is not installed, or a folder without such a list.
    """
    root = shipped_folder(name)
    lists = set() if root is None else {(path.parent.parent, _listed(path)) for path in root.glob(f"*/{CONFIG}")}
    found = {number for folder, file in lists if file for number in json.loads((folder / file).read_text())}
    if not found:
        raise BasisError(f"{name} has no list of training documents: expected one of {', '.join(PACKAGES)}")
    return frozenset(found)


def _listed(config: Path) -> str | None:
    return json.loads(config.read_text()).get("metadata", {}).get("training_documents")
