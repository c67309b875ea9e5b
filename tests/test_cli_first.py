"""What a newcomer's shell shows: three commands, an example under every verb's help, configs by name, completion."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess

import pytest

from gatelens.cli.completion import SCRIPTS, script
from gatelens.cli.demo import config_name
from gatelens.cli.examples import EXAMPLES
from gatelens.cli.main import build_parser, main
from gatelens.errors import ConfigError
from gatelens.pipeline.config import read_config
from gatelens.pipeline.shipped_configs import shipped_configs

VERBS = build_parser()._subparsers._group_actions[0].choices


def test_gatelens_alone_shows_the_three_commands(capsys):
    assert main([]) == 0
    shown = capsys.readouterr().out
    commands = re.findall(r"^  (gatelens .*?)(?:   .*)?$", shown, re.M)
    assert [shlex.split(c)[1] for c in commands] == ["demo", "run", "prompt"]
    for command in commands:
        build_parser().parse_args(shlex.split(command)[1:])


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_has_an_example_that_is_understood(verb):
    example = EXAMPLES[verb]
    shown = re.sub(r"\s*\n\s*", " ", VERBS[verb].format_help())
    assert f"example: {example}" in shown
    assert "".join(VERBS[verb].description.split()) in "".join(shown.split()), "what the verb does is said first"
    command = shlex.split(re.sub(r'eval "\$\((.*)\)"', r"\1", example))
    options = build_parser().parse_args(command[1:])
    assert options.verb == verb


def test_the_demo_takes_what_run_takes_and_chooses_its_config(monkeypatch):
    demo, run = (vars(build_parser().parse_args(words)) for words in (["demo"], ["run", "demo"]))
    chosen = {"verb": "", "act": None}
    assert demo | chosen == run | chosen
    assert config_name() in ("demo_smollm2", "demo")
    monkeypatch.setattr("gatelens.store.packages.package_folder", lambda name: None)
    assert config_name() == "demo"


def test_the_demo_ends_in_a_dozen_lines_with_rules_in_words(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("gatelens.cli.demo.config_name", lambda: "demo")  # SmolLM2 takes a minute or two
    small = ["data.rows=[48, 24]", "gates.read_at_most=96", "gates.tried_at_most=4", "evaluation.baselines=[]"]
    settings = [word for change in small for word in ("--set", change)]
    assert main(["demo", "--out", str(tmp_path / "run"), *settings, "--set", "evaluation.tokens=256"]) == 0
    lines = capsys.readouterr().out.strip().splitlines()
    assert len(lines) <= 12
    assert "8 were read as they were built" in lines[0]
    assert re.search(r"blocks\.\d\.ln2\.hook_normalized -> blocks\.\d\.hook_mlp_out: 96 output features read", lines[1])
    assert str(tmp_path / "run" / "index.html") in lines[-1]


def test_shipped_configs_are_found_by_name_in_any_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in shipped_configs():
        assert read_config(name).name == name
    (tmp_path / "digits").write_text(shipped_configs()["digits"].read_text().replace("seed: 0", "seed: 5"))
    assert read_config("digits").seed == 5  # a file of that name in the folder goes first
    with pytest.raises(ConfigError, match=r"no config dgits\. .*by its name: demo, demo_smollm2, digits"):
        read_config("dgits")


@pytest.mark.parametrize("shell", SCRIPTS)
def test_completion_scripts_are_understood_by_their_shell(shell, tmp_path):
    text = script(shell, VERBS)
    assert "demo" in text
    assert "--set" in text.replace("-l set", "--set")
    if not shutil.which(shell):
        return
    (tmp_path / "script").write_text(text)
    subprocess.run([shell, "-n", str(tmp_path / "script")], check=True)


@pytest.mark.skipif(not shutil.which("bash"), reason="needs bash")
@pytest.mark.parametrize(
    ("line", "wanted"), [("gatelens de", "demo"), ("gatelens run mni", "mnist"), ("gatelens run demo --qu", "--quick")]
)
def test_bash_completes(line, wanted, tmp_path):
    words = line.split()
    ask = (
        f"{script('bash', VERBS)}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _gatelens; "
        'echo "${COMPREPLY[@]}"'
    )
    found = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, check=True, cwd=tmp_path).stdout.split()
    assert wanted in found
