"""What the command says to a newcomer, and one example of each verb, shown under its help."""

from __future__ import annotations

#: `gatelens` alone
FIRST = """GateLens reads an MLP as logic: sparse wires between features, read as gates, checked against the model.

  gatelens demo                          read a language model's MLP offline; the page's place is printed at the end
  gatelens run mnist --out runs/mnist    a config that comes with gatelens, or a YAML file of yours: your model and data
  gatelens prompt runs/demo "It was late, therefore he left"    what a finished run says of a prompt

gatelens --help lists all verbs; gatelens VERB --help has an example of each.
"""

EXAMPLES = {
    "demo": "gatelens demo --out runs/demo",
    "run": "gatelens run mnist --set solver.mean_wires=8 --out runs/mnist",
    "hooks": "gatelens hooks digits",
    "collect": "gatelens collect digits --out runs/digits",
    "bases": "gatelens bases digits --estimate",
    "connect": "gatelens connect digits --set solver.mean_wires=4",
    "gates": "gatelens gates my_config.yaml --safe",
    "evaluate": "gatelens evaluate digits --json",
    "view": "gatelens view runs/digits --set views.max_cards=200",
    "rotate": "gatelens rotate digits --inputs 32",
    "rank": "gatelens rank digits --k 1 2 4 8",
    "stability": "gatelens stability digits --steps 0",
    "compare": "gatelens compare runs/digits runs/digits-8-wires --out compare.html",
    "bench": "gatelens bench rotations --seeds 0",
    "prompt": 'gatelens prompt runs/demo "It was late, therefore he left" --out prompt.html',
    "completion": 'eval "$(gatelens completion bash)"',
}
