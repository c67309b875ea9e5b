"""A run folder belongs to one config: a run with another one is refused, and the differences are shown."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

import yaml

from .. import store
from ..errors import ConfigError, StoreError
from ..store.shards import differences
from .config import Config, check_config


def claim(folder: Path, config: Config) -> None:
    """Write `config.yaml` (resolved, with versions) into a new folder; in a used one, check that it is the same.

    Raises:
        StoreError: with each setting that differs, what is stored and what was asked for.
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
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise StoreError(f"{path} is damaged ({type(error).__name__}): make the run again") from error
    values = dict(found) if isinstance(found, Mapping) else {}
    values.pop("versions", None)
    return check_config(values, str(path))


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
