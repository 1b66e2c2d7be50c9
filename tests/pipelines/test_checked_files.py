"""What a pipeline's folder holds: pickles, code of its own, and which code is dxmi's."""

import hashlib
import importlib
import json
import shutil
from pathlib import Path

import pytest
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.schedulers import few_step
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from tiny import KINDS, tiny

from dxmi.api import ConfigError
from dxmi.api.fingerprint import file_sha256
from dxmi.pipelines import load_pipeline, look
from dxmi.pipelines.checked_files import RELEASED, digests, is_own_code

SOURCE = Path(few_step.__file__)
AT_516620F = "2981fe7cc50fbe0a4eb8c8bcf468c94bc73930bc3a1383bb809ec9aa64164fae"
"""of few_step.py before the modules moved; every run of then holds a copy"""


def test_every_release_of_few_step_is_listed():
    """Whoever changes the file adds its digest; none is ever taken out, or runs of before would be refused."""
    released = json.loads((SOURCE.parent / RELEASED).read_text())
    assert hashlib.sha256(SOURCE.read_bytes()).hexdigest() in released["few_step.py"]
    assert AT_516620F in released["few_step.py"]


def student(tmp_path):
    folder = tmp_path / "student"
    DiffusionSampler(str(tiny("ddpm", tmp_path / "teacher")), AncestralScheduler(3)).save_pretrained(folder)
    return folder


@pytest.fixture
def later(tmp_path, monkeypatch):
    """As if few_step.py had changed since: the installed module is another one, the list as it stands."""
    package = tmp_path / "later"
    package.mkdir()
    (package / "few_step.py").write_text(SOURCE.read_text() + "\n# changed\n")
    shutil.copy(SOURCE.parent / RELEASED, package)
    find = importlib.import_module("dxmi.config.plugins").find_file

    def found(module):
        spec = find(module)
        if spec is not None and spec.origin == str(SOURCE):
            spec.origin = str(package / "few_step.py")
        return spec

    monkeypatch.setattr("dxmi.config.plugins.find_file", found)
    return package


def test_students_of_before_load_after_the_file_has_changed(later, tmp_path):
    folder = student(tmp_path)
    assert digests(later / "few_step.py") == {AT_516620F, file_sha256(later / "few_step.py")}
    assert load_pipeline(str(folder)).scheduler.config.table
    shutil.copy(later / "few_step.py", folder / "scheduler")
    assert is_own_code(folder)
    (later / RELEASED).unlink()
    shutil.copy(SOURCE, folder / "scheduler")
    assert not is_own_code(folder)
    with pytest.raises(ConfigError, match="custom code in few_step.py"):
        load_pipeline(str(folder))


def test_code_is_own_only_where_all_of_it_is(tmp_path):
    folder = student(tmp_path)
    assert is_own_code(folder)
    (folder / "scheduler" / "more.py").write_text("")
    assert not is_own_code(folder) and not is_own_code(tiny("ddpm", tmp_path / "none"))


def test_files_are_told_before_anything_is_loaded(tmp_path):
    files = look(student(tmp_path))
    assert (files.kind, files.code, files.pickle) == ("DDPMPipeline", ["scheduler/few_step.py"], None)
    KINDS["sd"]().save_pretrained(tmp_path / "pickled", safe_serialization=False)
    files = look(tmp_path / "pickled")
    assert files.code == [] and files.pickle.split("/")[1] in ("diffusion_pytorch_model.bin", "pytorch_model.bin")
    assert files.options == dict.fromkeys(("safety_checker", "feature_extractor", "image_encoder"))


def test_both_loaders_refuse_pickles_in_their_own_words(tmp_path):
    """The teacher's words are tested with teachers."""
    KINDS["ddpm"]().save_pretrained(tmp_path, safe_serialization=False)
    words = "only safetensors are read, since pickles can run code; if you trust it, load it by diffusers with use_safe"
    with pytest.raises(ConfigError, match=f"^{tmp_path}: {words}"):
        load_pipeline(str(tmp_path))


@pytest.mark.parametrize("module", ["../../evil", "/evil", "a/b", "..evil"])
def test_a_module_that_leads_out_of_the_folder_is_refused(module, tmp_path):
    """Beside a copy of few_step.py, which is trusted, nothing else may be named that would run."""
    folder = student(tmp_path)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass X: pass\n")
    index = json.loads((folder / "model_index.json").read_text())
    (folder / "model_index.json").write_text(json.dumps({**index, "unet": [module, "X"]}))
    with pytest.raises(ConfigError, match="which is no module of the folder or of Python"):
        load_pipeline(str(folder))
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    "content",
    [
        "[1, 2]",
        "{}",
        '{"_class_name": "DDPMPipeline", "unet": []}',
        '{"_class_name": "DDPMPipeline", "unet": 3}',
        "{",
        '{"_class_name": 3}',
        '{"_class_name": ["a"]}',
    ],
)
def test_a_damaged_index_is_told_in_one_line(content, tmp_path):
    folder = student(tmp_path)
    (folder / "model_index.json").write_text(content)
    with pytest.raises(ConfigError) as error:
        load_pipeline(str(folder))
    assert error.value.key == str(folder) and "\n" not in str(error.value)
