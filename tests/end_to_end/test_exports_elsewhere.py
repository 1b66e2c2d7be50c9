"""Exports of every kind of teacher, loaded where dxmi cannot be imported, and their cards' snippets."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import DIGITS
from dxmi_plugins.energies.conv import ConvEnergy
from dxmi_plugins.samplers.diffusion.sampler import DiffusionSampler
from dxmi_plugins.samplers.diffusion.student_network import Lora
from dxmi_plugins.schedulers.ancestral import AncestralScheduler
from huggingface_hub import ModelCard
from tiny import KINDS, tiny

from dxmi.api import ConfigError
from dxmi.chains import walk
from dxmi.cli.main import main
from dxmi.config import Checked, GameConfig, LearningConfig, RatesConfig, TrainConfig
from dxmi.game.algorithm import build_game
from dxmi.pipelines import call_of_folder
from dxmi.runs.model_card import model_card

pytestmark = pytest.mark.process
STEPS = 3
CAPTIONS = ["a seven", "zero"]
SETTINGS = {"edm": {"eta": 0.0, "nodes": "karras"}, "sd3": {"eta": 0.0}}
EXACT_ONLY = ["annealed"]
HALF = {"sd-bfloat16": {"lora": Lora(rank=2), "precision": "bfloat16"}}
MODES = [
    (kind, mode) for kind in (*KINDS, *HALF) for mode in ("exact", "stock") if mode == "exact" or kind not in EXACT_ONLY
]
# Stands for somebody's machine: a folder's own snippet, then its pipeline from a seed.
ELSEWHERE = """
import json, sys
sys.modules["dxmi"] = sys.modules["dxmi_plugins"] = None
import numpy, torch
for job in json.load(open(sys.argv[1])):
    space = {}
    exec(job["snippet"].replace("path/of/this/folder", job["folder"]), space)
    torch.manual_seed(0)
    images = space["pipeline"](**job["given"], output_type="np").images
    numpy.savez(job["folder"] + ".npz", images=images, shown=len(space["images"]))
assert "dxmi" not in [name for name, module in sys.modules.items() if module is not None]
"""


def about(kind):
    return CAPTIONS if kind.startswith("sd") else torch.tensor([3, 5])


def trained(kind, teacher, **options):
    """Three rounds; the sampler, and what was trainable and what was frozen before and after."""
    torch.manual_seed(0)
    prompts = CAPTIONS if kind.startswith("sd") else None
    scheduler = AncestralScheduler(STEPS, **SETTINGS.get(kind, {}))
    sampler = DiffusionSampler(str(teacher), scheduler, prompts=prompts, **options)
    x, cond = sampler.encode(torch.rand(2, 1, 8, 8) * 2 - 1, about(kind))
    energy = ConvEnergy(width=4, blocks=2, classes=sampler.classes or 0, text=prompts is not None)
    energy(x, None, cond)  # sizes
    learning = LearningConfig(lr=RatesConfig(energy=1e-3, sampler=1e-3, std=1e-2))
    game = build_game(energy, sampler, None, GameConfig(warmup=1), learning, Accelerator(cpu=True), 3)
    before = state(sampler), frozen(sampler)
    logs = [game.round(x, tuple(x.shape), cond) for _ in range(3)]
    return sampler.eval(), before, logs


def state(sampler):
    return {name: p.detach().clone() for name, p in sampler.named_parameters()}


def frozen(sampler):
    parts = [*sampler.teacher.space.parts, *sampler.teacher.conditions.parts]
    return [p.detach().clone() for part in parts for p in part.state_dict().values()]


def drawn(sampler, kind):
    """Images (2,H,W,C) in [0, 1] from the seed 0, with noise as pipelines draw it."""
    cond = sampler.teacher.conditions.encode(about(kind), torch.device("cpu"))
    torch.manual_seed(0)
    with torch.no_grad():
        *_, x = walk(sampler, lambda x, t: x.new_zeros(len(x)), (2, *sampler.teacher.shape), None, cond)
        return (sampler.decode(x) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1).numpy()


def whole(student, teacher):
    """The same adapters and stds beside the teacher's own weights, which are float32."""
    found = DiffusionSampler(str(teacher), AncestralScheduler(STEPS), prompts=CAPTIONS, lora=student.lora)
    found.load_state_dict(student.state_dict())
    return found


def resolved(teacher, prompts):
    """The config of a run, as its card has it."""
    sampler = {"name": "diffusion", "teacher": str(teacher), "scheduler": "ancestral", "prompts": prompts}
    return Checked(TrainConfig, {"energy": "conv", "sampler": sampler, "data": {"path": str(DIGITS)}}).resolved


def snippet(folder):
    return (folder / "README.md").read_text().split("```python\n")[1].split("```")[0]


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """Every kind, one in half precision too: trained, written in both modes, drawn from elsewhere in one process."""
    home, found, jobs = tmp_path_factory.mktemp("exports"), {}, []
    for kind in (*KINDS, *HALF):
        teacher = tiny(kind.split("-")[0], home / "teachers" / kind)
        sampler, before, logs = trained(kind, teacher, **HALF.get(kind, {}))
        found[kind] = {"sampler": sampler, "before": before, "logs": logs}
        for mode, student in (("exact", sampler), ("stock", None if kind in EXACT_ONLY else sampler.stock())):
            if student is None:
                continue
            folder = home / f"{kind}-{mode}"
            student.save_pretrained(folder)
            model_card(folder, resolved(teacher, sampler.prompts), STEPS, None, student.call_options)
            used = call_of_folder(folder)
            given = used.options(2, [3, 5], CAPTIONS) | used.once | {"num_inference_steps": STEPS}
            job = {"folder": str(folder), "snippet": snippet(folder), "given": {**given, **student.call_options}}
            jobs.append(job)
            found[kind][mode] = folder, drawn(whole(student, teacher) if kind in HALF else student, kind)
    (home / "jobs.json").write_text(json.dumps(jobs))
    done = subprocess.run([sys.executable, "-c", ELSEWHERE, home / "jobs.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_three_rounds_change_what_is_trainable_and_nothing_else(exports, kind):
    found = exports[kind]
    sampler, (weights, parts) = found["sampler"], found["before"]
    assert all(value.isfinite().all() for log in found["logs"] for value in log.values())
    after = state(sampler)
    assert all(value.isfinite().all() for value in after.values())
    moved = sum(not torch.equal(after[name], weights[name]) for name in weights)
    assert moved > len(weights) / 2 and not torch.equal(after["log_std"], weights["log_std"])
    assert all(torch.equal(a, b) for a, b in zip(frozen(sampler), parts, strict=True))


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_an_export_draws_the_runs_samples_where_there_is_no_dxmi(exports, kind, mode):
    folder, own = exports[kind][mode]
    with np.load(f"{folder}.npz") as elsewhere:
        np.testing.assert_allclose(elsewhere["images"], own, atol=1e-4)
    assert own.std() > 1e-3  # no blank images
    assert (folder / "scheduler" / "few_step.py").exists() == (mode == "exact")
    assert bool(list(folder.rglob("*.py"))) == (mode == "exact")


@pytest.mark.parametrize("kind", KINDS)
def test_stock_has_the_stds_of_the_formula_and_the_students_network(exports, kind):
    sampler = exports[kind]["sampler"]
    if kind in EXACT_ONLY:
        with pytest.raises(ConfigError, match="^teacher: diffusers has no scheduler .*; export exact$"):
            sampler.stock()
        return
    rows, stds = sampler.schedule.rows, sampler.stock().stds.double()
    up = rows[:, 4] * (1 - (rows[:, 1] * rows[:, 4] / (rows[:, 3] * rows[:, 2])) ** 2).clamp_min(0).sqrt()
    torch.testing.assert_close(stds, sampler.schedule.config.eta * up, rtol=1e-5, atol=1e-7)
    assert stds[-1] == 0 and not torch.allclose(stds.float(), sampler.stds, atol=1e-4)


@pytest.mark.parametrize(("kind", "mode"), MODES)
def test_the_cards_snippet_works_as_pasted_and_its_front_matter_is_read(exports, kind, mode):
    folder, _ = exports[kind][mode]
    with np.load(f"{folder}.npz") as elsewhere:
        conditional = kind in ("classes", "dit") or kind.startswith("sd")
        assert elsewhere["shown"] == (4 if conditional else 16)
    text = snippet(folder)
    assert f"num_inference_steps={STEPS}" in text
    assert ("trust_remote_code=True" in text) == (mode == "exact")
    assert ("guidance_scale=1.0" in text) == (kind == "dit" or kind.startswith("sd"))
    card = ModelCard.load(folder / "README.md")
    tag = "text-to-image" if kind.startswith("sd") else "unconditional-image-generation"
    assert card.data.library_name == "diffusers" and card.data.pipeline_tag == tag and "dxmi" in card.data.tags
    assert card.data.license is None and card.data.base_model is None  # the teacher is a folder
    assert str(folder.parent) not in card.content  # nor is its path anybody's business


def test_adapters_are_exported_beside_the_whole_and_load_as_the_card_says(tmp_path, monkeypatch):
    teacher, folder = tiny("sd", tmp_path / "teacher"), tmp_path / "student"
    sampler, _, _ = trained("sd", teacher, lora=Lora(rank=2))
    sampler.save_pretrained(folder)
    model_card(folder, resolved(teacher, CAPTIONS), STEPS, None)
    assert (folder / "lora" / "pytorch_lora_weights.safetensors").stat().st_size < 0.2 * size(folder / "unet")
    whole, adapters = (part.split("```")[0] for part in (folder / "README.md").read_text().split("```python\n")[1:])
    monkeypatch.setattr(sys, "path", [*sys.path])
    for code in (whole, adapters):
        space = {}
        exec(code.replace("path/of/this/folder", str(folder)).replace('"teacher"', f'"{teacher}"'), space)
        torch.manual_seed(0)
        given = {"prompt": CAPTIONS, "guidance_scale": 1.0, "num_inference_steps": STEPS, "output_type": "np"}
        np.testing.assert_allclose(space["pipeline"](**given).images, drawn(sampler, "sd"), atol=1e-4)


def size(folder):
    return sum(file.stat().st_size for file in folder.iterdir())


@pytest.mark.parametrize(("kind", "given"), [("classes", []), ("dit", []), ("sd", ["--prompt", "a seven"])])
def test_sample_draws_from_exports_of_conditional_teachers(exports, kind, given, tmp_path, capsys):
    folder, _ = exports[kind]["exact"]
    out = tmp_path / "grid.png"
    assert main(["sample", str(folder), "-n", "2", "--out", str(out), *given]) == 0 and out.exists()
    capsys.readouterr()
    wrong, message = ([], "draws from text; give one") if given else (["--prompt", "a"], "does not draw from text")
    assert main(["sample", str(folder), "-n", "2", "--out", str(tmp_path / "other.png"), *wrong]) == 2
    assert capsys.readouterr().err.startswith(f"dxmi: --prompt: {folder} {message}")
