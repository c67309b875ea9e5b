"""`gatelens completion SHELL`: a script that lets the shell complete verbs, options and names of configs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

#: what each shell runs; {verbs}, {configs} and {cases} are lists of words
SCRIPTS = {
    "bash": """_gatelens() {{
  local word="${{COMP_WORDS[COMP_CWORD]}}"
  if [ "$COMP_CWORD" -eq 1 ]; then COMPREPLY=($(compgen -W "{verbs} --help --version" -- "$word")); return; fi
  local options
  case "${{COMP_WORDS[1]}}" in
{cases}
  esac
  case "$word" in
    -*) COMPREPLY=($(compgen -W "$options" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "{configs}" -- "$word") $(compgen -f -- "$word")) ;;
  esac
}}
complete -o filenames -F _gatelens gatelens
""",
    "fish": """complete -c gatelens -n __fish_use_subcommand -f -a "{verbs}"
complete -c gatelens -n "not __fish_use_subcommand" -a "{configs}"
{cases}
""",
}
SCRIPTS["zsh"] = (
    "autoload -U +X compinit && compinit -u\nautoload -U +X bashcompinit && bashcompinit\n" + SCRIPTS["bash"]
)


def add_verbs(verbs: Any) -> None:
    """The parser of `completion`; the script is made from the other verbs' parsers."""
    parser = verbs.add_parser("completion", help="print a script by which bash, zsh or fish completes gatelens")
    parser.add_argument("shell", choices=sorted(SCRIPTS), help="which shell")
    parser.set_defaults(act=lambda options: _write(script(options.shell, verbs.choices)))


def script(shell: str, verbs: dict[str, argparse.ArgumentParser]) -> str:
    """The script for one shell."""
    from ..pipeline.shipped_configs import shipped_configs

    options = {
        verb: [option for action in parser._actions for option in action.option_strings if option.startswith("--")]
        for verb, parser in verbs.items()
    }
    if shell == "fish":
        cases = [
            f'complete -c gatelens -n "__fish_seen_subcommand_from {verb}" -l {option[2:]}'
            for verb, known in options.items()
            for option in known
        ]
    else:
        cases = [f'    {verb}) options="{" ".join(known)}" ;;' for verb, known in options.items()]
    return SCRIPTS[shell].format(verbs=" ".join(verbs), configs=" ".join(shipped_configs()), cases="\n".join(cases))


def _write(text: str) -> int:
    sys.stdout.write(text)
    return 0
