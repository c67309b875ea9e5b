"""Reference pages made from the code: the command line, configs, the API, errors."""

from __future__ import annotations

import argparse
import ast
import inspect
import re
from collections import defaultdict
from pathlib import Path
from typing import Any

SRC = Path(__file__).resolve().parents[1] / "src" / "gatelens"

#: what `use:` may name, by the section of a config
SECTIONS = {
    "model": ("HookedMLP", "load_model"),
    "data": ("image_batches", "text_batches"),
    "segments": ("mlp_segments",),
    "bases": (
        "Neurons",
        "PCA",
        "JacobianRotation",
        "TrainedSAE",
        "PretrainedSAE",
        "Transcoder",
        "GateDictionary",
        "SegmentSAE",
        "InputTuning",
        "Counterfactual",
    ),
    "solver": ("GramLasso", "ReluOMP", "SgdL1", "VirtualWeights", "MeanJacobian", "BuiltInWires"),
    "gates": ("type_gates",),
}


def command_line() -> str:
    """Every verb's own help."""
    from gatelens.cli.examples import FIRST
    from gatelens.cli.main import build_parser

    parser = build_parser()
    verbs = next(a for a in parser._actions if isinstance(a, argparse._SubParsersAction)).choices
    parts = [
        "# The command line",
        "Made from the command's own parsers. Exit codes: 0 done, 2 something to put right (the message says what), 1 a fault of "
        "gatelens. Progress is on standard error; `--json` prints the report and nothing else on standard output.",
        f"```text\n{FIRST}```",
        'Completion: `eval "$(gatelens completion bash)"` (or `zsh`); `gatelens completion fish | source`.',
    ]
    for verb, sub in verbs.items():
        sub.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=96)
        parts += [f"## gatelens {verb}", f"```text\n{sub.format_help()}```"]
    return "\n\n".join(parts) + "\n"


def configs() -> str:
    """Keys, and for each section the names that it may use with their settings and defaults."""
    import gatelens
    from gatelens.pipeline.building import find
    from gatelens.pipeline.config import Config, Evaluation, Views
    from gatelens.pipeline.shipped_configs import shipped_configs

    parts = [
        "# Configs",
        "A YAML file, checked whole before any work is done. " + inspect.cleandoc(Config.__doc__ or ""),
        "A config is code: `use: your_module:YourName` imports that module and calls that name. `--safe` refuses it.",
        _fields(Config),
        "### evaluation\n\n" + inspect.cleandoc(Evaluation.__doc__ or "") + "\n\n" + _fields(Evaluation),
        "### views\n\n" + inspect.cleandoc(Views.__doc__ or "") + "\n\n" + _fields(Views),
    ]
    for section, names in SECTIONS.items():
        parts.append(f"## {section}")
        for name in names:
            use = find(name, section) if name in gatelens.__all__ or name[0].isupper() else getattr(gatelens, name)
            first = (inspect.getdoc(use) or "").split("\n\n")[0]
            parts += [f"### {name}", first, _settings(use)]
    parts.append("## The configs that come with gatelens")
    for name, path in shipped_configs().items():
        parts.append(f"### {name}\n\n```yaml\n{path.read_text('utf-8')}```")
    return "\n\n".join(parts) + "\n"


def _fields(model: Any) -> str:
    rows = ["| key | type | default |", "|---|---|---|"]
    for name, field in model.model_fields.items():
        default = "required" if field.is_required() else _default(field.get_default(call_default_factory=True))
        rows.append(f"| `{name}` | `{_spelled(field.annotation)}` | {default} |")
    return "\n".join(rows)


def _settings(use: Any) -> str:
    rows = ["| setting | type | default |", "|---|---|---|"]
    for name, parameter in inspect.signature(use).parameters.items():
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL) or name in ("model", "self"):
            continue
        kind = "" if parameter.annotation is parameter.empty else f"`{_spelled(parameter.annotation)}`"
        default = "required" if parameter.default is parameter.empty else _default(parameter.default)
        rows.append(f"| `{name}` | {kind} | {default} |")
    return "\n".join(rows)


def _spelled(annotation: Any) -> str:
    text = (
        annotation
        if isinstance(annotation, str)
        else getattr(annotation, "__name__", "")
        if isinstance(annotation, type)
        else str(annotation)
    )
    return re.sub(r"\b(typing|collections\.abc|gatelens(\.\w+)*)\.", "", text).replace("|", "\\|")


def _default(value: Any) -> str:
    text = repr(value)
    return f"`{text}`" if len(text) <= 60 and " object at " not in text else f"`{type(value).__name__}(...)`"


def api() -> str:
    """The front door, room by room, and the submodules' names."""
    import gatelens

    rooms = ["| room | names |", "|---|---|"]
    parts = ["# API", "Everything that `import gatelens as gl` shows, in the order in which data flows."]
    body = []
    for room, names in gatelens.FRONT_DOOR.items():
        label = room.split(".")[-1].replace("_", " ")
        rooms.append(f"| [{label}](#{label.replace(' ', '-')}) | {', '.join(f'`{n}`' for n in names)} |")
        body.append(f"## {label}")
        for name in names:
            thing = inspect.unwrap(getattr(gatelens, name))
            body.append(f"::: {thing.__module__}.{thing.__qualname__}\n    options:\n      heading_level: 3")
    rooms.append(f"| submodules | {', '.join(f'`{n}`' for n in gatelens.SUBMODULES)} |")
    for name in gatelens.SUBMODULES:
        body += [f"## gl.{name}", *_submodule(name)]
    return "\n\n".join([*parts, "\n".join(rooms), *body]) + "\n"


def _submodule(name: str) -> list[str]:
    """The names that a submodule hands out: what it imports by name, or lists for later."""
    import importlib

    module = importlib.import_module(f"gatelens.{name}")
    tree = ast.parse((SRC / name / "__init__.py").read_text("utf-8"))
    names = [a.asname for n in tree.body if isinstance(n, ast.ImportFrom) for a in n.names if a.asname == a.name]
    for call in ast.walk(tree):
        if isinstance(call, ast.Call) and getattr(call.func, "id", "") == "lazy_names":
            names += [
                c.value
                for c in ast.walk(call.args[1])
                if isinstance(c, ast.Tuple)
                for c in c.elts
                if isinstance(c, ast.Constant)
            ]
    found = [inspect.getdoc(module) or ""]
    for public in names:
        thing = inspect.unwrap(getattr(module, public))
        if inspect.isclass(thing) or inspect.isfunction(thing):
            found.append(f"::: {thing.__module__}.{thing.__qualname__}\n    options:\n      heading_level: 3")
    return found


def errors() -> str:
    """The kinds of errors, and the sentences that each of them says, by the room that raises it."""
    from gatelens import errors as room

    kinds = {
        n: c
        for n, c in vars(room).items()
        if inspect.isclass(c) and issubclass(c, (room.GateLensError, Warning)) and c.__module__ == room.__name__
    }
    said = _sentences(set(kinds))
    parts = [
        "# Errors",
        "Every error that a user can cause is a `gatelens.errors.GateLensError`; its message says what was expected, what came and what to "
        "do. The command prints it and exits with 2. Anything else that escapes is a fault of gatelens: please report it.\n\n"
        "Search this page for words of the message that you got: … stands for what was filled in.",
    ]
    for name, kind in kinds.items():
        parts.append(f"## {name}\n\n{inspect.getdoc(kind)}")
        for where, sentences in sorted(said[name].items()):
            lines = "\n".join(f"    - {s}" for s in sorted(set(sentences)))
            parts.append(f'??? note "{where}: {len(set(sentences))}"\n\n{lines}')
    return "\n\n".join(parts) + "\n"


def _sentences(kinds: set[str]) -> dict[str, dict[str, list[str]]]:
    found: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for path in sorted(SRC.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            name = getattr(getattr(node, "func", None), "id", "")
            if isinstance(node, ast.Call) and name in kinds and node.args:
                text = " ".join(_written(node.args[0]).split())
                if len(text) > 12:
                    found[name][path.relative_to(SRC).with_suffix("").parts[0]].append(_plain(text))
    return found


def _written(node: ast.AST) -> str:
    """The fixed words of a message."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return "".join(_written(v) if isinstance(v, ast.Constant) else "…" for v in node.values)
    if isinstance(node, ast.BinOp):
        return _written(node.left) + _written(node.right)
    if isinstance(node, ast.IfExp):
        return _written(node.body)
    return "…"


def _plain(text: str) -> str:
    """Markdown's own characters as they are."""
    return re.sub(r"([*_<>\[\]`#|\\])", r"\\\1", text).replace("\\<", "&lt;").replace("\\>", "&gt;")
