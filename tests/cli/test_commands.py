"""What the command line refuses before it touches a file."""

import argparse
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

import pytest
import yaml
from conftest import DIGITS, ROOT
from tiny import KINDS

import dxmi
from dxmi.api import ConfigError
from dxmi.cli.flags import FLAGS, spoken
from dxmi.cli.main import COMMANDS, main
from dxmi.cli.parser import build_parser
from dxmi.cli.sample import target

CONFIGS = ROOT / "configs"


@pytest.mark.parametrize(
    ("command", "config", "holds"),
    [
        ("train", "eight_gaussians_cd", "config.json"),
        ("train", "eight_gaussians_cd", "model_index.json"),
        ("pretrain", "digits_teacher", "run.yaml"),
        ("pretrain", "digits_teacher", "config.json"),
    ],
)
def test_folders_of_other_products_are_left_alone(command, config, holds, tmp_path, capsys):
    (tmp_path / holds).write_text("{}")
    assert main([command, str(CONFIGS / f"{config}.yaml"), "--steps", "1", "--out", str(tmp_path)]) == 2
    assert capsys.readouterr().err.startswith(f"dxmi: --out: {tmp_path} already holds a")
    assert [path.name for path in tmp_path.iterdir()] == [holds]


@pytest.mark.parametrize(("command", "config"), [("train", "eight_gaussians_cd"), ("pretrain", "digits_teacher")])
def test_a_file_is_no_folder(command, config, tmp_path, capsys):
    file = tmp_path / "data.parquet"
    file.write_text("precious")
    assert main([command, str(CONFIGS / f"{config}.yaml"), "--steps", "1", "--out", str(file)]) == 2
    assert capsys.readouterr().err.startswith(f"dxmi: --out: {file}") and file.read_text() == "precious"


@pytest.mark.parametrize(
    ("given", "usual", "says"),
    [
        ("there.safetensors", "samples.safetensors", "exists; give another file"),
        ("nowhere/a.safetensors", "samples.safetensors", "there is no folder"),
        ("a.png", "samples.safetensors", "would hold samples"),
        ("a.safetensors", "grid.png", "would hold a picture"),
    ],
)
def test_samples_overwrite_nothing(given, usual, says, tmp_path):
    (tmp_path / "there.safetensors").write_text("precious")
    with pytest.raises(ConfigError, match=f"^out: .*{says}"):
        target(tmp_path / given, usual)
    assert target(tmp_path / usual, usual) == tmp_path / usual and target(None, usual) == Path(usual)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["trian", "configs/digits_t4.yaml"], "dxmi: trian: there is no such command; nearest: train\n"),
        (["qqq"], "dxmi: qqq: there is no such command; nearest: train, pretrain, sample, evaluate, "),
        (["--stesp", "3"], "dxmi: --stesp: dxmi has no such option; give a command first; see 'dxmi --help'\n"),
        (["export", "run", "--out", "a", "--mode", "stok"], "dxmi: argument --mode: invalid choice: 'stok'"),
    ],
)
def test_a_wrong_command_offers_the_nearest(arguments, says, capsys):
    try:
        status = main(arguments)
    except SystemExit as stop:  # argparse's own errors
        status = stop.code
    complaint = capsys.readouterr().err
    assert status == 2 and complaint.startswith(says) and complaint.count("\n") == 1


def test_the_version_is_told(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == dxmi.__version__ == version("dxmi")


@pytest.mark.parametrize("flag", ["--print-config", "--print_config"])
def test_options_have_dashes_and_underscores_are_taken(flag, capsys):
    assert main(["train", str(CONFIGS / "eight_gaussians_cd.yaml"), flag, "--data.batch-size", "7"]) == 0
    assert yaml.safe_load(capsys.readouterr().out)["data"]["batch_size"] == 7


def test_help_shows_dashes_alone(capsys):
    for command in COMMANDS:
        with suppress(SystemExit):  # argparse's own --help
            main([command, "--help"])
    shown = capsys.readouterr().out
    assert "--print-config" in shown and "--trust-remote-code" in shown
    assert "--print_config" not in shown and "--trust_remote_code" not in shown


@pytest.mark.parametrize(
    ("command", "key", "said"),
    [
        ("evaluate", "batch_size", "--batch-size"),
        ("evaluate", "n", "-n"),
        ("evaluate", "reference.size", "--reference.size"),
        ("evaluate", "source.split", "--source.split"),
        ("evaluate", "source", "source"),
        ("evaluate", "evaluator.bootstrap", "--evaluator.bootstrap"),
        ("sample", "prompts", "--prompt"),
        ("train", "sampler.guidance", "sampler.guidance"),
        ("train", "steps", "steps"),
        ("train", "out", "--out"),
        ("push", "a/folder", "a/folder"),
    ],
)
def test_one_table_gives_parameters_their_flags(command, key, said):
    assert str(spoken(ConfigError(key, "is wrong", "mend it"), command)) == f"{said}: is wrong; mend it"


def test_a_place_is_no_parameter(tmp_path, monkeypatch, capsys):
    """A folder may be called as a parameter is."""
    monkeypatch.chdir(tmp_path)
    for name in ("out", "n", "out.d"):
        Path(name).mkdir()
        assert main(["sample", name]) == 2
        assert capsys.readouterr().err.startswith(f"dxmi: {name}: is no diffusers pipeline")
    assert str(spoken(ConfigError(Path("out"), "is wrong"), "train")) == "out: is wrong"
    assert ConfigError(Path("a"), "b").under("c").key == "a" == ConfigError(Path("a"), "b").moved("a", "c").key


def test_every_flag_of_the_table_is_one_of_its_command():
    commands = next(
        action for action in build_parser()._actions if isinstance(action, argparse._SubParsersAction)
    ).choices
    for command, flags in FLAGS.items():
        known = {
            name
            for action in commands[command]._actions
            for name in action.option_strings or [action.metavar or action.dest]
        }
        assert set(flags.values()) <= known | {"source"}, command


@pytest.mark.parametrize("command", [["sample"], ["evaluate", "--reference", str(DIGITS)]])
def test_pickled_weights_are_refused(command, tmp_path, monkeypatch, capsys):
    """They can run code when they are read, so nobody reads them unasked."""
    folder = tmp_path / "pickled"
    KINDS["ddpm"]().save_pretrained(folder, safe_serialization=False)
    monkeypatch.chdir(tmp_path)
    assert main([*command, str(folder)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"dxmi: {folder}: only safetensors are read") and complaint.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["pickled"]


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["train", CONFIGS / "eight_gaussians_cd.yaml", "--game.chains", "null"], "game.chains: it cannot be null"),
        (["train", CONFIGS / "digits_teacher.yaml"], "digits_teacher.yaml: is for 'dxmi pretrain'"),
        (["train", CONFIGS / "banana_mala.yaml"], "banana_mala.yaml: is for 'dxmi sample'"),
        (["pretrain", CONFIGS / "eight_gaussians_cd.yaml"], "eight_gaussians_cd.yaml: is for 'dxmi train'"),
        (["train", CONFIGS / "eight_gaussians_cd.yaml", "--lr.value", "0.1"], "lr.value: there is no value network"),
        (["score", "nowhere", DIGITS, "--json", "nowhere/a.json"], "--json: there is no folder nowhere"),
    ],
)
def test_one_line_says_what_is_wrong(arguments, says, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(part) for part in arguments]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1 and not list(tmp_path.iterdir())
