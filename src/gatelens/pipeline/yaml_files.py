"""YAML that a stranger may have written: bounded before any of it becomes a value, each key once."""

from __future__ import annotations

import re
from typing import Any

import yaml

from ..errors import ConfigError

#: numbers that YAML reads otherwise than people do: 010 is eight, 1:30 is ninety
_ODD = re.compile(r"[-+]?0[0-9_]+|[-+]?[0-9][0-9_]*(:[0-5]?[0-9])+(\.[0-9_]*)?")
#: values that a config may hold once every alias is written out
MOST = 10_000
DEEPEST = 50


def read_yaml(text: str, source: object) -> Any:
    """The value of one YAML document.

    An alias stands for all that it names, and aliases of aliases multiply: ten lines can stand for a thousand million
    values. They are counted on the nodes, before any value is made of them.

    Raises:
        ConfigError: no YAML, more values than `MOST`, nested deeper than `DEEPEST`, an alias within itself, a key given twice.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _check(node, source)
        return loader.construct_document(node)
    except RecursionError as error:
        raise ConfigError(f"{source} is not YAML: it nests deeper than {DEEPEST} levels") from error
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ConfigError(f"{source} is not YAML: {str(error).splitlines()[0][:200]}") from error


def _check(node: Any, source: object) -> None:
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(at: Any, depth: int) -> int:
        """How many values a node stands for, every alias written out; each node is looked at once."""
        if id(at) in open_:
            raise ConfigError(
                f"{source}: the alias at line {at.start_mark.line + 1} names what it lies in. Write it out"
            )
        if depth > DEEPEST:
            raise ConfigError(f"{source} nests deeper than {DEEPEST} levels. Is it the right file?")
        if id(at) not in sizes:
            open_.add(id(at))
            sizes[id(at)] = 1 + sum(size(below, depth + 1) for below in _below(at, source))
            open_.discard(id(at))
        if sizes[id(at)] > MOST:
            raise ConfigError(
                f"{source} stands for more than {MOST:,} values once its aliases are written out; a config has at most that many. "
                "Write it without aliases"
            )
        return sizes[id(at)]

    size(node, 0)


def _below(node: Any, source: object) -> list[Any]:
    if isinstance(node, yaml.ScalarNode) and node.tag.endswith((":int", ":float")) and _ODD.fullmatch(node.value):
        number, text = yaml.safe_load(node.value), node.value[:40]
        raise ConfigError(
            f"{source}, line {node.start_mark.line + 1}: YAML reads {text} as {number}. Write {number}, or a text: '{text}'"
        )
    if isinstance(node, yaml.MappingNode):
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen and key.tag != "tag:yaml.org,2002:merge":
                raise ConfigError(
                    f"{source}: the key {key.value[:80]!r} is given twice, again at line {key.start_mark.line + 1}. Keep one"
                )
            seen.add(str(key.value))
        return [part for pair in node.value for part in pair]
    return list(node.value) if isinstance(node, yaml.SequenceNode) else []
