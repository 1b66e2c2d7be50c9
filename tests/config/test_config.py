"""The YAML dialect: what it accepts, and the one line that it refuses with."""

from dataclasses import dataclass, field
from functools import reduce
from operator import getitem
from pathlib import Path

import pytest
import yaml
from conftest import DIGITS

from dxmi.api import ConfigError, Energy
from dxmi.cli.main import main
from dxmi.config import ChainsConfig, Checked, PretrainConfig, TrainConfig, build_plugin, read_yaml
from dxmi.config.yaml_files import differences, put


def test_defaults_are_filled_in_at_every_depth(config):
    resolved = Checked(TrainConfig, config).resolved
    assert resolved["energy"] == {
        "name": "conv",
        "width": 4,
        "blocks": 2,
        "time": False,
        "activation": "leaky_relu",
    } | {"classes": 0, "text": False}
    assert resolved["sampler"]["scheduler"]["eta"] == 1.0
    assert resolved["value"] is None and resolved["game"]["gamma"] == 1.0 and resolved["betas"] == [0.0, 0.9]


def test_resolved_config_is_a_config_with_the_same_meaning(config):
    resolved = Checked(TrainConfig, config).resolved
    assert Checked(TrainConfig, yaml.safe_load(yaml.safe_dump(resolved))).resolved == resolved


def test_plugin_by_its_bare_name():
    assert (
        build_plugin(Energy, "mlp").body[-1].in_features == build_plugin(Energy, {"name": "mlp"}).body[-1].in_features
    )


@pytest.mark.parametrize(
    ("argument", "keys", "expected"),
    [
        (["--steps", "7"], ["steps"], 7),
        (["--lr.energy", "1e-4"], ["lr", "energy"], 1e-4),
        (["--sampler.scheduler.steps=3"], ["sampler", "scheduler", "steps"], 3),
        (["--sampler.scheduler.nodes", "[5, 3]"], ["sampler", "scheduler", "nodes"], [5, 3]),
        (["--energy", "mlp"], ["energy"], "mlp"),
        (["--energy", "mlp", "--energy.width", "9"], ["energy", "width"], 9),
        (["--evaluators", "[{name: fidelity}]", "--evaluators.0.samples", "5"], ["evaluators", 0, "samples"], 5),
        (["--clip.sampler", "null"], ["clip", "sampler"], None),
        (["--game.tau1=-1"], ["game", "tau1"], -1),
    ],
)
def test_every_key_can_be_overridden(argument, keys, expected, config, write):
    found = read_yaml(write(config), argument)
    for key in keys:
        found = found[key]
    assert found == expected


def test_relative_paths_belong_to_the_file_that_names_them(tmp_path, monkeypatch):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "c.yaml").write_text("data: {path: ../images}\nsampler: {teacher: google/ddpm-cifar10-32}")
    monkeypatch.chdir(tmp_path)
    found = read_yaml("sub/c.yaml", ["--energy.path", "./here"])
    assert found["data"]["path"] == str(tmp_path / "images")
    assert found["energy"]["path"] == str(tmp_path / "here")
    assert found["sampler"]["teacher"] == "google/ddpm-cifar10-32"


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        (["--stepps", "3"], "stepps: no such key; nearest: steps"),
        (["--energy.widht", "3"], "energy.widht: no such key; nearest: width"),
        (["--sampler.scheduler.node", "x"], "sampler.scheduler.node: no such key; nearest: nodes"),
        (["--data.colum", "x"], "data.colum: no such key; nearest: column"),
        (["--steps", "many"], "steps: expected an int. Got value: many"),
        (["--energy.width", "2.5"], "energy.width: expected an int. Got value: 2.5"),
        (["--lr.sampler", "fast"], "lr.sampler: expected a float. Got value: fast"),
        (["--sampler.scheduler.nodes", "[1, x]"], "sampler.scheduler.nodes: expected one of str, list[int]"),
        (["--energy", "convv"], "energy: no plugin 'convv' among the energies; nearest: conv"),
        (["--energy", "null"], "energy"),
        (["--energy", "[1]"], "energy.experts.0: give a plugin as {name: ..., options}"),
        (["--energy", "[null]"], "energy.experts.0: give a plugin as {name: ..., options}"),
        (["--evaluators.0.samples", "3"], "evaluators.0: it is no position in a list of 0; count from 0"),
        (["--evaluators", "fidelity"], "evaluators: expected a list[plugin]. Got value: fidelity"),
        (["--lr", "fast"], "lr: expected a mapping. Got value: fast"),
        (["--lr", "null"], "lr: it cannot be null; leave it out for its default"),
        (["--replay", "5"], "replay: expected one of mapping, null. Got value: 5"),
        (["--replay.fill", "rejection"], "replay.fill.scale: it is missing; give it"),
        (["--compare_steps", "[4, x]"], "compare_steps: expected a list[int]. Got value: [4, 'x']"),
        (["--betas", "[0.5]"], "betas: expected one of tuple[float, float], null. Got value: [0.5]"),
        (["--data.crop", "left"], "data.crop: expected one of ['centre', 'random']. Got value: left"),
        (["--sampler.lora", "{rank: many}"], "sampler.lora.rank: expected an int. Got value: many"),
        (["steps", "3"], "steps: give overrides as --key.sub VALUE"),
        (["--steps"], "--steps: give overrides as --key.sub VALUE"),
    ],
)
def test_wrong_keys_and_types_are_named(argument, says, config, write, tmp_path, capsys):
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run"), *argument]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint and complaint.count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("--qqqq", "qqqq: no such key; see docs/config.md"),
        ("--game.qqqq", "game.qqqq: no such key; see docs/config.md"),
        ("--sampler.qqqq", "sampler.qqqq: no such key; --help lists them"),
        ("--lr.qqqq", "lr.qqqq: no such key; nearest: energy, sampler, std, value, score"),
        ("--energy.qqqq", "energy.qqqq: no such key; nearest: width, blocks, time, activation, classes, text"),
    ],
)
def test_of_many_keys_that_are_far_from_a_wrong_one_none_is_listed(argument, says, config, write, tmp_path, capsys):
    assert main(["train", str(write(config)), "--out", str(tmp_path / "run"), argument, "1"]) == 2
    assert capsys.readouterr().err == f"dxmi: {says}\n"


@pytest.mark.parametrize("key", ["energy", "sampler", "sampler.teacher", "sampler.scheduler"])
def test_a_missing_key_is_named(key, config):
    *path, last = key.split(".")
    del reduce(getitem, path, config)[last]
    with pytest.raises(ConfigError) as error:
        Checked(TrainConfig, config)
    assert (error.value.key, error.value.reason, error.value.cure) == (key, "it is missing", "give it")


@dataclass
class Inner:
    rate: float = 1  # an int, as people write it
    size: int = 2


@dataclass
class Outer:
    inner: Inner = field(default_factory=lambda: Inner(rate=5))
    other: Inner | None = None
    sizes: list[int] = field(default_factory=lambda: [1])
    either: int | float = 0
    turned: float | int = 0
    path: Path = Path("there")


def test_keys_that_are_not_given_are_as_in_the_default_of_their_mapping():
    checked = Checked(Outer, {"inner": {"size": 3}, "other": {"size": 4}})
    assert checked.build() == Outer(Inner(5.0, 3), Inner(1.0, 4))
    assert checked.resolved["inner"] == {"rate": 5.0, "size": 3} and type(checked.resolved["inner"]["rate"]) is float
    assert checked.resolved["path"] == "there"  # as YAML has it


def test_values_are_converted_to_their_types_and_what_was_given_stays_as_it_was():
    given = {"inner": {"rate": 2}, "sizes": ["3"], "either": 1, "turned": 1, "path": "here"}
    checked = Checked(Outer, given)
    assert checked.build() == Outer(Inner(2.0), sizes=[3], either=1, turned=1, path=Path("here"))
    assert (type(checked.values.either), type(checked.values.turned)) == (int, float)  # the first that takes it
    assert given["sizes"] == ["3"] and isinstance(checked.values.inner.options["rate"], float)


@pytest.mark.parametrize(
    ("text", "says"),
    [(None, "No such file"), ("a: [1", "is not YAML"), ("- 1", "is not a YAML mapping"), ("", "is not a YAML mapping")],
)
def test_files_that_are_no_config(text, says, tmp_path, capsys):
    path = tmp_path / "c.yaml"
    if text is not None:
        path.write_text(text)
    assert main(["train", str(path), "--out", str(tmp_path / "run")]) == 2
    complaint = capsys.readouterr().err
    assert str(path) in complaint and says in complaint and complaint.count("\n") == 1


def test_print_config_prints_the_resolved_config(config, write, capsys):
    path = write(config)
    assert main(["train", str(path), "--print_config", "--seed", "5"]) == 0
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["seed"] == 5 and printed == Checked(TrainConfig, read_yaml(path, ["--seed", "5"])).resolved


def test_help_shows_the_options_of_the_named_plugins(config, write, capsys):
    assert main(["train", str(write(config)), "--help", "--energy", "mlp", "--steps", "77"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "rounds of the game (type: int, default: 77)" in text and "--resume go on with the run" in text
    assert "<class" not in text and "``" not in text
    assert "--energy.depth" in text and "number of hidden layers" in text
    assert "--sampler.scheduler.nodes" in text and "--game.tau1" in text
    assert main(["train", "--help"]) == 0
    assert "installed plugins:" in (text := capsys.readouterr().out) and "ancestral" in text


def test_unknown_option_of_a_command_is_refused(capsys):
    assert main(["plugins", "--steps", "3"]) == 2
    assert "--steps" in capsys.readouterr().err


def test_differences_name_the_keys():
    old = {"a": 1, "b": {"c": 2, "d": [1]}}
    assert differences(old, {"a": 1, "b": {"c": 3, "d": [1]}, "e": 4}) == ["b.c: 2 -> 3", "e: None -> 4"]
    assert differences(old, old) == []


def test_differences_name_the_places_in_lists():
    old, new = ({"data": 1, "evaluators": [{"name": "a", "k": k}, {"name": "b"}], "steps": [4, k]} for k in (5, 6))
    assert differences(old, new) == ["evaluators.0.k: 5 -> 6", "steps.1: 5 -> 6"]
    assert differences({"steps": [4]}, {"steps": [4, 5]}) == ["steps: [4] -> [4, 5]"]


def test_put_keeps_the_neighbours():
    config = {"energy": {"name": "conv", "width": 3}}
    put(config, ["energy", "blocks"], 2)
    assert config == {"energy": {"name": "conv", "width": 3, "blocks": 2}}


def test_shipped_configs_are_valid():
    for path in sorted((DIGITS.parents[2] / "configs").glob("*.yaml")):
        raw = read_yaml(path)
        kind = PretrainConfig if "sampler" not in raw else ChainsConfig if "chains" in raw else TrainConfig
        resolved = Checked(kind, raw).resolved
        data = resolved.get("data")
        assert data["path"] or data["density"]["name"] if data else resolved["energy"]["name"]
