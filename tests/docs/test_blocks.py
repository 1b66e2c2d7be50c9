"""The code of README and pages runs, each page's in order in a folder of its own, as a reader would type it.

What would take minutes is made small, and nothing else is: commands and calls get ``SMALL`` and what a comment on the
page (``in tests:``) says. Folders ``runs/NAME`` that a page uses and does not make are small runs of that kind. A YAML
file whose first line is its name is written.
"""

import json
import re
import shlex
import shutil

import pytest
import yaml
from conftest import ROOT
from pages import PAGES, blocks, commands
from runs_from_before import bring

import dxmi
from dxmi.cli import main
from dxmi.config.yaml_files import Loader

SMALL = {"steps": 2, "tracker": None, "compare_steps": [], "paths": 50, "long_chain": 2, "every.log": 1}
KEPT = {"digits_t4": "images", "gmm25_vgs": "density", "eight_gaussians_pcd": "pcd"}
RUNNABLE = [page for page in PAGES if any(b.language in ("bash", "console", "python") for b in blocks(page))]


def small(command, source):
    """What makes ``dxmi.train``, ``pretrain`` and ``evaluate`` of a source short."""
    if command in ("pretrain", "evaluate"):
        return {"steps": 2} if command == "pretrain" else {"n": 20}
    config = yaml.load(open(source), Loader) if isinstance(source, str) and source.endswith(".yaml") else {}
    few = {"evaluators.0.samples": 20} if config.get("evaluators") else {}
    if config.get("game", {}).get("warm_start"):
        few |= {"game.warm_start.rounds": 2, "game.warm_start.paths": 8, "game.warm_start.steps": 4}
    return SMALL | few


def flags(options):
    return [part for key, value in options.items() for part in (f"--{key}", json.dumps(value))]


def typed(line, more):
    """A command as it is run here: in this process, with what makes it small."""
    words = shlex.split(line)
    assert words[0] == "dxmi", f"{line}: say why it is not run"
    command, *given = words[1:]
    if "--help" in given or "--print-config" in given or "--compare" in given:
        return words[1:]
    if command in ("train", "pretrain"):
        given += flags(small(command, given[0]))
    elif command == "sample":
        given += ["-n", "4"]
    elif command == "evaluate":
        given += ["-n", "20", *(["--seeds", "0"] if "--reference" in given else [])]
    return [command, *given, *(more if command in ("train", "pretrain") else [])]


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder that looks like a clone to whoever stands in it."""
    for name in ("configs", "examples"):
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def execute(block, names):
    """A block of Python, in which the functions of dxmi that take long are those that take less."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("train", "pretrain", "evaluate"):
            patch.setattr(dxmi, name, shortened(name, getattr(dxmi, name)))
        exec(compile(block.text, str(block), "exec"), names)


def shortened(name, call):
    """The function with what makes it small, unless the caller says otherwise."""
    return lambda source, *given, **options: call(source, *given, **small(name, source) | options)


def bring_what_is_used(text, place):
    """The runs that code uses and nobody has made."""
    for name in re.findall(r"runs/(\w+)", text):
        if name in KEPT and not (place / "runs" / name).exists():
            folder = place / "kept" / name
            folder.mkdir(parents=True, exist_ok=True)
            (place / "runs").mkdir(exist_ok=True)
            shutil.copytree(bring(KEPT[name], folder), place / "runs" / name)


@pytest.mark.parametrize("page", RUNNABLE, ids=lambda page: page.stem)
def test_the_code_of_a_page_runs(page, place, capsys):
    names = {"__name__": "__main__"}
    for block in blocks(page):
        named = re.match(r"# (\w+\.yaml)\n", block.text)
        if named and block.language == "yaml":
            (place / named[1]).write_text(block.text)
        elif block.kind == "not run":
            continue
        elif block.language == "python":
            bring_what_is_used(block.text, place)
            execute(block, names)
        elif block.language in ("bash", "console"):
            for line in commands(block):
                bring_what_is_used(line if " train " not in line else "", place)
                capsys.readouterr()
                command = typed(line, shlex.split(block.why) if block.kind == "in tests" else [])
                assert main(command) == 0, f"{block}: {line}: {capsys.readouterr().err}"
                if block.language == "console":
                    printed = capsys.readouterr()
                    compare_rows(block, printed.out + printed.err)


def compare_rows(block, printed):
    """Each row that a page shows is there, by its first word."""
    rows = [line.split()[0] for line in block.text.splitlines() if re.match(r"[a-z]\w+ ", line)]
    assert rows and all(row in printed for row in rows), f"{block}: {printed}"


def test_python_and_the_command_do_the_same(place):
    """The README's lines of Python are its main command: equal figures, equal weights."""
    (block,) = [b for b in blocks(ROOT / "README.md") if "dxmi.train(" in b.text]
    assert len(block.text.splitlines()) <= 12
    execute(block, {})
    assert main(typed("dxmi train configs/digits_t4.yaml", [])) == 0
    command, python = place / "runs" / "digits_t4", place / "runs" / "in_python"
    for name in ("metrics.jsonl", "energy/model.safetensors", "pipeline/unet/diffusion_pytorch_model.safetensors"):
        assert (command / name).read_bytes() == (python / name).read_bytes(), name
    rows = [json.loads((run / "evaluation.json").read_text())["rows"] for run in (command, python)]
    assert rows[0] == rows[1]
