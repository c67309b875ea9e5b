"""A run folder belongs to one config: a run with another one is refused, and the differences are shown."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from .. import __version__, store
from ..errors import ConfigError, StoreError
from ..store.shards import differences
from .config import Config, check_config
from .provenance import Provenance, say, without_views
from .yaml_files import read_yaml


def claim(folder: Path, config: Config, several: bool = False, writes: bool = True) -> Provenance:
    """Write `config.yaml` (resolved, with versions) into a new folder; in a used one, check that it is the same.

    Returns:
        The manifest of the run: the folder's, or a new one.

    Raises:
        StoreError: with each setting that differs, what is stored and what was asked for.
    """
    path, wanted = store.inside(folder, "config.yaml"), _settled(config.model_dump(mode="json"))
    manifest = Provenance.of(folder, several, writes)
    begun = manifest.config is not None
    if manifest.config is not None:
        manifest.config = _settled(manifest.config)
    manifest.begin(wanted)
    if not path.is_file():
        if begun and writes:
            say(f"{path} is written again: it is gone")
    elif not begun:
        different = differences(without_views(_settled(_stored_values(path))), without_views(wanted))
        if different:
            raise StoreError(
                f"{folder} holds a run with other settings: {'; '.join(different)}. "
                "Give another --out, or --restart to begin again in this folder"
            )
        manifest.record("config.yaml")
        return manifest
    elif not writes or manifest.trusted("config.yaml"):
        return manifest
    text = yaml.safe_dump(wanted | {"versions": versions()}, sort_keys=False, allow_unicode=True)
    if writes:
        store.replace_file(path, text.encode())
    manifest.record("config.yaml")
    return manifest


def _settled(values: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with today's defaults where an earlier version had no such key; the solver of before is the one by size."""
    try:
        found = check_config({k: v for k, v in values.items() if k != "versions"}).model_dump(mode="json")
    except ConfigError:  # a setting that is no more: it will be shown as different
        return dict(values)
    return found | {"solver": None} if found["solver"] == {"use": "GramLasso"} else found


def stored_config(folder: Path) -> Config:
    """The config that a run folder was made from.

    Raises:
        ConfigError: no run folder. StoreError: its config is damaged.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(
            f"{folder} is no run folder: expected config.yaml in it. `gatelens run CONFIG --out {folder}` makes one"
        )
    try:
        return check_config(_stored_values(path), str(path))
    except ConfigError as error:
        wrote = _stored_values(path, with_versions=True).get("versions")
        by = wrote.get("gatelens") if isinstance(wrote, Mapping) else None
        raise ConfigError(
            f"{error}. The run was made by gatelens {str(by or 'of another version')[:40]}, this is {__version__}: "
            "change the setting, and make the run again with gatelens run CONFIG --restart"
        ) from error


def _stored_values(path: Path, with_versions: bool = False) -> dict[str, Any]:
    """What a run's config.yaml holds, by default without the versions that wrote it."""
    try:
        found = read_yaml(path.read_text(encoding="utf-8"), path)
    except (ConfigError, UnicodeDecodeError, OSError) as error:
        raise StoreError(
            f"{path} is damaged ({str(error)[:200]}). Give another --out, or --restart to begin again in this folder"
        ) from error
    if not isinstance(found, Mapping):
        return {}
    return {k: v for k, v in found.items() if with_versions or k != "versions"}


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
