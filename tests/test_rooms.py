"""The house: rooms stand on rooms below, nothing goes in a circle, files and functions stay short and documented."""

from pathlib import Path

import rooms

KNOWN = rooms.modules()
EDGES = rooms.imports(KNOWN)


def test_no_circle_and_no_arrow_upward():
    """Imports in functions and for type checkers are counted: a type is knowledge too."""
    assert rooms.circles(EDGES) == [] and rooms.upward(rooms.arrows(EDGES)) == []


def test_a_circle_and_an_arrow_upward_would_be_seen():
    loop = {
        "dxmi.api.a": {"dxmi.api.b"},
        "dxmi.api.b": {"dxmi.api.c"},
        "dxmi.api.c": {"dxmi.api.a"},
        "dxmi.api.d": set(),
    }
    assert rooms.circles(loop) == [{"dxmi.api.a", "dxmi.api.b", "dxmi.api.c"}]
    assert rooms.upward(rooms.arrows({"dxmi.api.a": {"dxmi.config.b"}})) == [("dxmi.api", "dxmi.config")]
    assert rooms.upward(rooms.arrows({"dxmi.data.a": {"dxmi.chains.b"}})) == [("dxmi.data", "dxmi.chains")]


def test_a_name_that_a_folder_offers_is_followed_to_its_file():
    assert rooms.longest(rooms.offered("dxmi.api.Energy", KNOWN), KNOWN) == "dxmi.api.energy"
    assert rooms.longest(rooms.offered("dxmi.chains.walk", KNOWN), KNOWN) == "dxmi.chains.rollout"
    assert rooms.longest(rooms.offered("dxmi.config.plugins", KNOWN), KNOWN) == "dxmi.config.plugins"


def test_at_most_four_files_are_loose():
    loose = {path.name for path in (rooms.ROOT / "dxmi").glob("*.py")}
    assert loose == {"__init__.py", "__main__.py", "testing.py", "screen.py"}


def test_every_room_is_on_a_floor():
    on_floors = set.union(*rooms.FLOORS)
    assert {rooms.room(name) for name in KNOWN} - {"dxmi", "dxmi_plugins"} == on_floors


def test_files_and_functions_are_short():
    long = [str(path) for path in KNOWN.values() if len(path.read_text().splitlines()) > 250]
    long += [name for path in KNOWN.values() for name, length in rooms.functions(path) if length > 50]
    assert long == []


def test_everything_public_is_typed_and_documented():
    assert [line for path in KNOWN.values() for line in rooms.undocumented(path)] == []


def test_what_lacks_a_type_or_a_docstring_would_be_seen(tmp_path, monkeypatch):
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    file = Path(tmp_path / "a.py")
    file.write_text('def f(x):\n    """F."""\n\n\nclass C:\n    """C."""\n\n    def g(self) -> None:\n        pass\n')
    assert rooms.undocumented(file) == ["a.py:f: no types", "a.py:C.g: no docstring"]
