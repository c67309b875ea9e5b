"""Whether a hub can be reached, asked before the work, so that being offline is said at once (nothing heavy is imported here)."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlparse

from ..errors import DataError, HubError

MNIST_HUB = "ylecun/mnist"
MNIST_LOCAL = (
    "Give a local path: `data.path` in the config (or GATELENS_DATA in the environment, holding mnist/), a folder with the "
    "four idx files (gzipped or not) or with parquet files of columns image and label"
)


def find_mnist(path: str | Path | None) -> Path | None:
    """The folder that MNIST will be read from; None for the hub, which is then in reach or holds it in its cache.

    Raises:
        DataError: a path that is no folder.
        HubError: no path, and a hub that is out of reach: told at once, not after a minute of retries.
    """
    if path is None and os.environ.get("GATELENS_DATA"):
        path = Path(os.environ["GATELENS_DATA"]) / "mnist"
    if path is None:
        if not (dataset_in_cache(MNIST_HUB) or hub_in_reach()):
            raise HubError(f"MNIST was looked for on the hub ({MNIST_HUB}), which is out of reach. {MNIST_LOCAL}")
        return None
    if not Path(path).is_dir():
        raise DataError(f"{path} is not a folder. {MNIST_LOCAL}")
    return Path(path)


def offline() -> bool:
    """Whether the user has asked for no network (HF_HUB_OFFLINE, HF_DATASETS_OFFLINE)."""
    return any(
        os.environ.get(name, "").lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE")
    )


def hub_in_reach() -> bool:
    """Whether a connection to the hub opens within a second; no data is sent."""
    if offline():
        return False
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=0.8).close()
    except OSError:
        return False
    return True


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it downloaded."""
    home = os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface"
    return Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")


def dataset_in_cache(name: str) -> bool:
    home = Path(os.environ.get("HF_HOME") or Path.home() / ".cache" / "huggingface")
    folders = [cache_folder() / f"datasets--{name.replace('/', '--')}", home / "datasets" / name.replace("/", "___")]
    return any(folder.is_dir() for folder in folders)
