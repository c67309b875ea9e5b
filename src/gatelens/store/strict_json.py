"""JSON as GateLens reads and writes it: UTF-8, finite numbers, no key twice, bounded in size."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from typing import Any

from ..errors import NonFiniteError, StoreError

MAX_BYTES = 256 << 20


def dump_json(value: Any) -> bytes:
    """JSON with sorted keys, ending in a newline; the same value gives the same bytes.

    Raises:
        NonFiniteError: for NaN or infinity, naming where in the value it stands.
    """
    try:
        text = json.dumps(value, indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False)
    except ValueError as error:
        places = ", ".join(list(_not_finite(value, ""))[:3])
        raise NonFiniteError(
            f"expected finite numbers to write as JSON, got NaN or infinity at {places or 'an unknown place'}. "
            "Write None for a figure that is not defined"
        ) from error
    # a lone surrogate (half a character, from a byte-level token) is written as the JSON escape that reads back to it
    return (text + "\n").encode("utf-8", "backslashreplace")


def parse_json(data: bytes, source: object, limit: int = MAX_BYTES) -> Any:
    """The value in `data`; `source` names it in errors.

    Raises:
        StoreError: too large, not UTF-8, not JSON, nested too deeply, a key twice in one object, NaN or infinity.
    """
    if len(data) > limit:
        raise StoreError(f"{source} has {len(data)} bytes; JSON of at most {limit} bytes is read. {_ADVICE}")
    try:
        return json.loads(
            data.decode("utf-8"), object_pairs_hook=_unique, parse_constant=_constant, parse_float=_finite
        )
    except _Refused as error:
        raise StoreError(f"{source}: {error}. {_ADVICE}") from None
    except RecursionError:
        raise StoreError(f"{source} is nested too deeply to be one of our files. {_ADVICE}") from None
    except ValueError as error:
        raise StoreError(f"{source} is not JSON in UTF-8 ({error}). {_ADVICE}") from error


_ADVICE = "Restore the file from a copy, or delete it and run the step that makes it again"


class _Refused(Exception):
    """Valid for Python's parser, refused by us."""


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _Refused(f"expected every key once, found {twice[:80]!r} twice in one object")
    return value


def _constant(text: str) -> float:
    raise _Refused(f"expected finite numbers, found {text}")


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise _Refused(f"expected finite numbers, found {text[:40]}")
    return value


def _not_finite(value: Any, place: str) -> Iterator[str]:
    if isinstance(value, float) and not math.isfinite(value):
        yield place.lstrip(".") or "the top"
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from _not_finite(part, f"{place}.{key}")
    elif isinstance(value, (list, tuple)):
        for index, part in enumerate(value):
            yield from _not_finite(part, f"{place}[{index}]")
