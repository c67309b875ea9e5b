"""Headless Chromium without a network: what a page draws, what it says on the console, what it tries to fetch."""

from __future__ import annotations

import re
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
REASON = "needs chromium (Debian package `chromium`) on the path"
#: seconds after which a browser that answers nothing is given up; a busy machine needs many
HANGS = 600.0
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--hide-scrollbars",
]


@dataclass(frozen=True)
class Seen:
    """What came of opening a page.

    Attributes:
        dom: the document after its scripts ran.
        console: messages on the console, errors and refused requests among them.
        requests: addresses that the page asked for, its own file and data left out.
    """

    dom: str
    console: list[str]
    requests: list[str]


def _run(extra: list[str], address: str, timeout: float) -> subprocess.CompletedProcess[str]:
    if PROGRAM is None:
        raise RuntimeError(REASON)
    with tempfile.TemporaryDirectory() as profile:
        command = [
            PROGRAM,
            *FLAGS,
            f"--user-data-dir={profile}",
            "--host-resolver-rules=MAP * ~NOTFOUND",
            *extra,
            address,
        ]
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=False)


def open_page(
    path: Path,
    dark: bool = False,
    fragment: str = "",
    wait_ms: int = 1500,
    timeout: float = HANGS,
    width: int = 1200,
) -> Seen:
    """Open a page from its file, let its scripts run, and read what happened."""
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "net.json"
        extra = ["--enable-logging=stderr", f"--log-net-log={log}", f"--virtual-time-budget={wait_ms}"]
        extra += ["--dump-dom", f"--window-size={width},900"]
        done = _run([*extra, *(["--force-dark-mode"] if dark else [])], f"file://{path}{fragment}", timeout)
        console = re.findall(r"CONSOLE[^\]]*\] (.*)", done.stderr)
        return Seen(done.stdout, console, _requests(log))


def _requests(log: Path) -> list[str]:
    """Addresses that the page asked for, from the network log; the browser's own requests are not in the page's name."""
    lines = log.read_text("utf-8", "replace").splitlines() if log.is_file() else []
    ours = [line for line in lines if re.search(r'"network_isolation_key":"file://', line)]
    return sorted({url for line in ours for url in re.findall(r'"url":"((?:https?|wss?)://[^"]*)"', line)})


def screenshot(
    path: Path, out: Path, width: int, height: int, dark: bool = False, fragment: str = "", scale: float = 1
) -> Path:
    """A picture of the page's upper left corner."""
    extra = [
        f"--window-size={width},{height}",
        f"--screenshot={out}",
        f"--force-device-scale-factor={scale:g}",
        "--virtual-time-budget=2500",
    ]
    _run([*extra, *(["--force-dark-mode"] if dark else [])], f"file://{path}{fragment}", HANGS)
    if not out.is_file():
        raise RuntimeError(f"chromium made no picture of {path}")
    return out


def timing(path: Path) -> float:
    """Seconds from the start of the navigation until the page's own script has ended."""
    probe = path.with_suffix(".timed.html")
    text = path.read_text("utf-8")
    # the page's policy refuses a foreign script, so the probe goes without the policy
    text = re.sub(r'<meta http-equiv="Content-Security-Policy"[^>]*>', "", text, count=1)
    tail = "<script>document.title='ready '+performance.now()</script></body>"
    probe.write_text(text.replace("</body>", tail), "utf-8")
    done = _run(["--dump-dom"], f"file://{probe}", HANGS)
    found = re.search(r"<title>ready ([0-9.]+)</title>", done.stdout)
    if not found:
        raise RuntimeError(f"the script of {path} did not end: {done.stderr[-400:]}")
    return float(found[1]) / 1000
