"""A run folder belongs to one config: a run with another one is refused, and the differences are shown."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from .. import store
from ..errors import StoreError
from .config import Config


def claim(folder: Path, config: Config) -> None:
    """Write `config.yaml` (resolved, with versions) into a new folder; in a used one, check that it is the same.

    Raises:
        StoreError: with each setting that differs, what the folder has and what was asked.
    """
    path = folder / "config.yaml"
    wanted = config.model_dump(mode="json")
    if path.is_file():
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except (yaml.YAMLError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{path} is damaged. Give another --out, or --restart to begin again in this folder"
            ) from error
        found = dict(found) if isinstance(found, Mapping) else {}
        found.pop("versions", None)
        different = differences(found, wanted)
        if different:
            raise StoreError(
                f"{folder} holds a run with other settings: {'; '.join(different)}. "
                "Give another --out, or --restart to begin again in this folder"
            )
        return
    text = yaml.safe_dump(wanted | {"versions": versions()}, sort_keys=False, allow_unicode=True)
    store.replace_file(path, text.encode())


def differences(found: Any, wanted: Any, place: str = "") -> list[str]:
    """`solver.mean_edges is 16 there, 8 was asked`, for each setting that differs."""
    if isinstance(found, Mapping) and isinstance(wanted, Mapping):
        lines = []
        for key in sorted({*found, *wanted}, key=str):
            lines += differences(found.get(key, "nothing"), wanted.get(key, "nothing"), f"{place}.{key}".lstrip("."))
        return lines
    return [] if found == wanted else [f"{place} is {found!r} there, {wanted!r} was asked"]


def versions() -> dict[str, str]:
    """Of everything that can change a figure."""
    names = ("gatelens", "torch", "transformer-lens", "sae-lens", "numpy", "scipy")
    found = {"python": platform.python_version()}
    for name in names:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = "not installed"
    return found
