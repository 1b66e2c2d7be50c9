"""Plugins found by entry point, with distributions made up in a temporary folder, and ``dxmi plugins``."""

import importlib
import json
import subprocess
import sys
from importlib import metadata

import pytest
import torch
from conftest import ROOT

from dxmi.api import ConfigError, Energy
from dxmi.cli.main import main
from dxmi.config import Checked, TrainConfig, build_plugin, plugins, read_yaml

BOWL = """
from dxmi.api import Energy

class Bowl(Energy):
    event_shape = (2,)

    def __init__(self, scale: float = 1.0):
        super().__init__()
        self.scale = scale

    def forward(self, x, t=None, cond=None):
        return self.scale * x.square().sum(1)
"""
ENERGIES, SAMPLERS = "dxmi.energies", "dxmi.samplers"


@pytest.fixture
def distribution(tmp_path, monkeypatch):
    """Puts a distribution on sys.path: its name, its entry points by group, and its modules by path."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(tmp_path)

    def make(name, points, folder=tmp_path, **modules):
        info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        sections = ([f"[{group}]", *(f"{k} = {v}" for k, v in found.items())] for group, found in points.items())
        (info / "entry_points.txt").write_text("\n".join(line for section in sections for line in section) + "\n")
        for module, text in modules.items():
            path = folder / (module + ".py")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        importlib.invalidate_caches()
        plugins.forget()

    yield make
    plugins.forget()
    for name in {name for name in set(sys.modules) - before if lies_in(tmp_path, sys.modules[name])}:
        del sys.modules[name]


def lies_in(folder, module):
    places = [getattr(module, "__file__", None), *getattr(module, "__path__", ())]
    return any(str(place).startswith(str(folder)) for place in places)


def test_a_plugin_is_found_by_name_loaded_and_built(distribution):
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, bowls=BOWL)
    found = plugins.installed(ENERGIES)["bowl"]
    assert (found.value, found.distributions, found.problem) == ("bowls:Bowl", ["dxmi-bowl"], None)
    assert "bowls" not in sys.modules
    assert plugins.load(ENERGIES, "bowl").__qualname__ == "Bowl"
    energy = build_plugin(Energy, {"name": "bowl", "scale": 2})
    assert energy(torch.ones(3, 2)).tolist() == [4, 4, 4]


def test_a_check_of_a_config_reads_no_plugin_source(monkeypatch):
    asked = []
    monkeypatch.setattr(plugins, "file_problem", lambda point: asked.append(point.name))
    plugins.forget()
    Checked(TrainConfig, read_yaml(ROOT / "configs" / "digits_t4.yaml"))
    assert asked == []
    assert all(plugin.problem is None for plugin in plugins.installed(ENERGIES).values())
    assert {"conv", "mlp"} <= set(asked)
    plugins.forget()


def test_the_entry_points_are_read_once(monkeypatch):
    times = []
    monkeypatch.setattr(plugins, "entry_points", lambda: times.append(1) or metadata.entry_points())
    plugins.forget()
    Checked(TrainConfig, read_yaml(ROOT / "configs" / "digits_t4.yaml"))
    plugins.load(ENERGIES, "mlp")
    assert len(times) == 1


def test_a_group_is_a_namespace(distribution):
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}, SAMPLERS: {"bowl": "bowls:Bowl"}}, bowls=BOWL)
    assert plugins.installed(ENERGIES)["bowl"].problem is None
    assert "bowl" not in plugins.installed("dxmi.evaluators")


def test_nothing_is_imported_before_it_is_named(distribution):
    raising = "raise RuntimeError('imported too early')\n"
    points = {"bowl": "bowls:Bowl", "eager": "eager:Bowl", "inner": "parent.child:Bowl"}
    modules = {"bowls": BOWL, "eager": raising + BOWL, "parent/__init__": raising, "parent/child": BOWL}
    distribution("dxmi-eager", {ENERGIES: points}, **modules)
    assert all(p.problem is None for p in plugins.installed(ENERGIES).values())
    assert plugins.load(ENERGIES, "bowl").event_shape == (2,)
    assert main(["plugins"]) == 0
    assert not {"eager", "parent", "parent.child"} & set(sys.modules)


@pytest.mark.parametrize(
    ("value", "modules", "reason"),
    [
        ("nowhere:Bowl", {}, "no module nowhere"),
        ("bowls.nowhere:Bowl", {"bowls": BOWL}, "no module bowls.nowhere"),
        ("parent.nowhere:Bowl", {"parent/__init__": ""}, "no module parent.nowhere"),
        ("bowls:Bowel", {"bowls": BOWL}, "bowls defines no Bowel"),
        ("bowls:Bowl", {"bowls": BOWL + "\nclass :\n"}, "bowls, line 14: invalid syntax"),
    ],
)
def test_what_the_files_show_is_reported_without_importing(value, modules, reason, distribution, capsys):
    distribution("dxmi-broken", {ENERGIES: {"broken": value}}, **modules)
    assert plugins.installed(ENERGIES)["broken"].problem == reason
    assert main(["plugins"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "BROKEN" in line]
    assert line.startswith("energies    broken") and line.endswith(f"(dxmi-broken)  BROKEN: {reason}")
    assert not {"bowls", "parent"} & set(sys.modules)
    with pytest.raises(ConfigError, match=f"broken: the plugin {value} fails to import"):
        plugins.load(ENERGIES, "broken")


def test_names_that_a_module_has_by_other_means_are_not_missing(distribution):
    ways = {
        "assigned": BOWL + "\nAlias = Bowl\n",
        "imported": "from bowls import Bowl as Alias\n",
        "starred": "from bowls import *\n",
        "tried": "try:\n    from nowhere import Alias\nexcept ImportError:\n    from bowls import Bowl as Alias\n",
    }
    distribution("dxmi-ways", {ENERGIES: {way: f"{way}:Alias" for way in ways}}, bowls=BOWL, **ways)
    found = plugins.installed(ENERGIES)
    assert {found[way].problem for way in ways} == {None}


def test_an_import_error_is_told_and_hurts_only_those_who_name_it(distribution, capsys):
    text = "import nowhere_to_be_found\n" + BOWL
    distribution("dxmi-broken", {ENERGIES: {"broken": "broken_bowls:Bowl"}}, broken_bowls=text)
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, bowls=BOWL)
    assert plugins.installed(ENERGIES)["broken"].problem is None
    reason = "the plugin broken_bowls:Bowl fails to import: ModuleNotFoundError: No module named 'nowhere_to_be_found'"
    checked = plugins.installed(ENERGIES, imported=True)
    assert {name: p.problem for name, p in checked.items() if p.problem} == {"broken": reason}
    assert main(["plugins", "--json", "--check"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["broken"] == {
        "group": ENERGIES,
        "name": "broken",
        "value": "broken_bowls:Bowl",
        "distributions": ["dxmi-broken"],
        "problem": reason,
    }
    assert rows["bowl"]["problem"] is None and rows["mlp"]["problem"] is None
    build_plugin(Energy, {"name": "bowl"})
    build_plugin(Energy, {"name": "mlp"})
    with pytest.raises(ConfigError, match="nowhere_to_be_found"):
        build_plugin(Energy, {"name": "broken"})


@pytest.mark.parametrize(("name", "first"), [("bowl", "dxmi-bowl"), ("mlp", "dxmi")])
def test_a_name_claimed_twice_names_both_and_hurts_only_those_who_name_it(name, first, distribution, capsys):
    if name == "bowl":
        distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, bowls=BOWL)
    distribution("dxmi-thief", {ENERGIES: {name: "thief:Bowl", "other": "thief:Bowl"}}, thief=BOWL)
    for imported in (False, True):
        found = plugins.installed(ENERGIES, imported)
        assert set(found[name].distributions) == {first, "dxmi-thief"}
        assert found[name].problem.startswith("claimed twice, by ")
        assert first in found[name].problem.split() and "dxmi-thief" in found[name].problem.split()
    with pytest.raises(ConfigError, match="claimed twice, by .* and .*; uninstall one of them"):
        plugins.load(ENERGIES, name)
    assert main(["plugins"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "BROKEN: claimed twice" in line]
    assert line.startswith(f"energies    {name} ")
    build_plugin(Energy, {"name": "conv"})
    build_plugin(Energy, {"name": "other"})


def test_one_distribution_seen_twice_claims_once(distribution, tmp_path, monkeypatch):
    """As an editable install is, from its repository: an egg-info there and a dist-info among the packages."""
    monkeypatch.syspath_prepend(tmp_path / "again")
    for folder in (tmp_path, tmp_path / "again"):
        distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, folder=folder, bowls=BOWL)
    assert plugins.installed(ENERGIES)["bowl"].problem is None


def test_an_unknown_name_offers_the_nearest(distribution, capsys):
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, bowls=BOWL)
    with pytest.raises(ConfigError, match="no plugin 'bowls' among the energies; nearest: bowl .see 'dxmi plugins'"):
        plugins.load(ENERGIES, "bowls")
    with pytest.raises(ConfigError, match="no plugin 'qqqq' among the energies; 'dxmi plugins' lists the names$"):
        plugins.load(ENERGIES, "qqqq")  # there are too many to show
    with pytest.raises(ConfigError, match="no plugin 'qqqq' among the evaluators; nearest: .*densities.*fidelity"):
        plugins.load("dxmi.evaluators", "qqqq")


def test_a_command_names_the_key_whose_plugin_fails(distribution, tmp_path, capsys):
    distribution("dxmi-broken", {ENERGIES: {"broken": "broken_bowls:Bowl"}}, broken_bowls="raise ValueError('no luck')")
    (tmp_path / "c.yaml").write_text("energy: broken\nsampler: {name: diffusion}\n")
    assert main(["train", str(tmp_path / "c.yaml"), "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert error.startswith("dxmi: energy: broken: the plugin broken_bowls:Bowl fails to import: ValueError: no luck")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("value", ["???", "space.inner.bowls:Bowl", "leaves:Bowl"])
def test_no_entry_point_is_so_odd_that_it_hurts_others(value, distribution):
    """Not of the form module:Class, in a namespace package in another, and one that ends the interpreter."""
    modules = {"space/inner/bowls": BOWL, "leaves": "import sys\nsys.exit(3)\n" + BOWL}
    distribution("dxmi-odd", {ENERGIES: {"odd": value}}, **modules)
    assert main(["plugins"]) == 0 and main(["plugins", "--check"]) == 0
    build_plugin(Energy, {"name": "mlp"})
    if "inner" in value:
        build_plugin(Energy, {"name": "odd"})


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("ways:Bowl", "if True:\n" + "".join(f"    {line}\n" for line in BOWL.splitlines())),
        ("ways:Outer.Bowl", "import bowls\n\nclass Outer:\n    Bowl = bowls.Bowl\n"),
        ("ways:bowls", "import bowls\n"),
        ("ways:Bowl", "import bowls\n\ndef __getattr__(name):\n    return getattr(bowls, name)\n"),
    ],
)
def test_what_only_looks_missing_is_not_called_broken(value, text, distribution):
    distribution("dxmi-ways", {ENERGIES: {"way": value}}, bowls=BOWL, ways=text)
    assert plugins.installed(ENERGIES)["way"].problem is None


def test_a_class_may_be_installed_from_where_it_is_not_defined(distribution):
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "front:Bowl"}}, bowls=BOWL, front="from bowls import Bowl\n")
    assert build_plugin(Energy, {"name": "bowl", "scale": 2}).scale == 2


@pytest.mark.parametrize(
    ("annotation", "says"),
    [("", "scale: Bowl does not say of which type it is"), (": 'Unknown'", "an annotation that cannot be resolved")],
)
def test_an_option_whose_type_is_not_told_is_refused(annotation, says, distribution):
    text = BOWL.replace("scale: float", f"scale{annotation}")
    distribution("dxmi-bowl", {ENERGIES: {"bowl": "bowls:Bowl"}}, bowls=text)
    with pytest.raises(ConfigError, match=says):
        build_plugin(Energy, {"name": "bowl", "scale": 2})


@pytest.mark.process
def test_help_and_listing_import_no_heavy_library():
    code = """
import sys
from dxmi.cli import main
heavy = {"torch", "diffusers", "transformers", "accelerate", "datasets", "numpy"}
for arguments in (["--help"], ["plugins"], ["plugins", "--json"]):
    print("\\0")
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    if status or heavy & set(sys.modules):
        sys.exit(f"{arguments} ends with {status} and imported {heavy & set(sys.modules)}")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout.split("\0")[-1])
    assert {(ENERGIES, "mlp"), (SAMPLERS, "diffusion")} <= {(row["group"], row["name"]) for row in rows}
    assert all(row["problem"] is None for row in rows if row["distributions"] == ["dxmi"])
