"""Files and folders that are there whole or not at all."""

import pytest

from dxmi.api.files import whole_file, whole_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_there_when_it_is_whole(tmp_path):
    """Beside its place first, under a name of the same ending; folders above it are made."""
    path = tmp_path / "new" / "picture.png"
    with whole_file(path) as draft:
        draft.write_text("first")
        assert not path.exists() and draft.parent == path.parent and draft.suffix == ".png"
    assert path.read_text() == "first" and names(path.parent) == ["picture.png"]
    with whole_file(path) as draft:
        draft.write_text("second")
        assert path.read_text() == "first"
    assert path.read_text() == "second" and names(path.parent) == ["picture.png"]


def test_a_file_that_fails_leaves_the_one_of_before(tmp_path):
    path = tmp_path / "a.json"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), whole_file(path) as draft:
        draft.write_text("ha")
        raise KeyboardInterrupt
    with pytest.raises(FileNotFoundError), whole_file(path):
        pass  # the block wrote nothing
    assert path.read_text() == "old" and names(tmp_path) == ["a.json"]


def test_two_processes_may_write_the_same_file(tmp_path):
    path = tmp_path / "cache"
    with whole_file(path) as one, whole_file(path) as other:
        one.write_text("same")
        other.write_text("same")
    assert path.read_text() == "same" and names(tmp_path) == ["cache"]


def test_a_folder_is_there_when_it_is_whole(tmp_path):
    """What a killed process left goes; what somebody else called NAME.partial or NAME.old stays."""
    path, left = tmp_path / "new" / "run", tmp_path / "new" / ".run.partial"
    for own in ("run.partial", "run.old", ".run.partial"):
        (path.parent / own).mkdir(parents=True)
    (left / "half").write_text("")
    with whole_folder(path) as draft:
        assert not draft.exists()
        draft.mkdir()
        (draft / "a").write_text("1")
        assert not path.exists()
    assert names(path) == ["a"] and names(path.parent) == ["run", "run.old", "run.partial"]


def test_a_folder_that_fails_is_not_there(tmp_path):
    with pytest.raises(OSError, match="no space"), whole_folder(tmp_path / "run") as draft:
        draft.mkdir()
        raise OSError("no space left")
    assert names(tmp_path) == []


def test_a_folder_is_replaced_by_a_whole_one(tmp_path):
    """Also where a process was killed between the two renames: the old one is put back before anything is written."""
    path = tmp_path / "best"
    for text in ("1", "2"):
        with whole_folder(path, replace=True) as draft:
            draft.mkdir()
            (draft / "a").write_text(text)
        assert (path / "a").read_text() == text and names(tmp_path) == ["best"]
    path.rename(tmp_path / "best.old")
    with pytest.raises(OSError, match="no space"), whole_folder(path, replace=True) as draft:
        assert (path / "a").read_text() == "2"
        raise OSError("no space left")
    assert (path / "a").read_text() == "2" and names(tmp_path) == ["best"]
