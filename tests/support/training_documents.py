"""The documents that dictionaries of our own making were trained on: what is held out must be none of them."""

from __future__ import annotations

import json
from pathlib import Path

from gatelens.bases.sae.files import CONFIG, PACKAGES, shipped_folder
from gatelens.errors import BasisError


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
