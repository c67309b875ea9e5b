"""Whether a hub can be reached, asked before the work, so that being offline is said at once."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from urllib.parse import urlparse


def offline() -> bool:
    """Whether the user has asked for no network (HF_HUB_OFFLINE, HF_DATASETS_OFFLINE)."""
    return any(os.environ.get(name, "").lower() in ("1", "true", "yes", "on") for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE"))


def hub_in_reach(timeout: float = 0.8) -> bool:
    """Whether a connection to the hub opens within `timeout` seconds; no data is sent."""
    if offline():
        return False
    address = urlparse(os.environ.get("HF_ENDPOINT", "https://huggingface.co"))
    try:
        socket.create_connection((address.hostname or "", address.port or 443), timeout=timeout).close()
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
