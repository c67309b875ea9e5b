"""What the operating system refuses, in one sentence: a path that cannot be read, a folder that is gone, a disk that is full."""

from __future__ import annotations

import errno
import sys
from types import TracebackType

from . import StoreError

_MAY_NOT = "Change its permissions, or give another path"
_FREE = "What was stored before is untouched. Free some space, then run the step again"
#: what to do, by what the system says
ADVICE = {
    errno.EACCES: _MAY_NOT,
    errno.EPERM: _MAY_NOT,
    errno.EROFS: _MAY_NOT,
    errno.ENOSPC: _FREE,
    errno.EDQUOT: _FREE,
    errno.ENOENT: "Check that it is there, and that the current folder is",
    errno.ENOTDIR: "Check the path: a file stands where a folder is expected",
    errno.EEXIST: "Check the path: a file stands where a folder is expected",
    errno.EISDIR: "Check the path: a folder stands where a file is expected",
    errno.ENAMETOOLONG: "Give a shorter name",
    errno.ELOOP: "Check the path: its links lead round in a circle",
    errno.EMFILE: "Close some files, or raise the limit (`ulimit -n`)",
    errno.EIO: "Check the disk",
}
#: whose files are read and written on our behalf
_DEPENDENCIES = ("site-packages", "dist-packages")


def refused(error: OSError, who: str) -> StoreError | None:
    """The sentence for what the system refused to us; None for what a user's own code met, or a hub."""
    if error.errno not in ADVICE or not _on_our_behalf(error.__traceback__):
        return None
    what = f"{error.filename!s:.200}" if error.filename else "a file"
    return StoreError(f"{who}: {what} cannot be used ({error.strerror or error}). {ADVICE[error.errno]}")


def _on_our_behalf(trace: TracebackType | None) -> bool:
    """Whether it came out of our code, or of what our code called, and not out of a basis, a model or a view of somebody's."""
    ours = False
    while trace is not None:
        code = trace.tb_frame
        room = str(code.f_globals.get("__name__", "")).partition(".")[0]
        if room == __package__.partition(".")[0]:
            ours = True
        elif room not in sys.stdlib_module_names and not any(d in code.f_code.co_filename for d in _DEPENDENCIES):
            ours = False
        trace = trace.tb_next
    return ours
