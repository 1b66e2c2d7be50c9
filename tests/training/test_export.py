"""Exports of every kind of teacher, loaded where dxmi cannot be imported; the model card; ``dxmi export``."""

import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from conftest import DIGITS, EXTRACTOR, interrupted
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


@pytest.mark.parametrize("loaded", [True, False])
def test_a_card_names_hub_ids_that_were_loaded(loaded, tmp_path, monkeypatch):
    """A relative path that is not there any more looks like one, and is nobody's business."""
    cache = tmp_path / "hub"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(cache))
    if loaded:
        for name, text in (("refs/main", "abc"), ("snapshots/abc/model_index.json", "{}")):
            (cache / "models--someone--teacher" / name).parent.mkdir(parents=True)
            (cache / "models--someone--teacher" / name).write_text(text)
    config = resolved("someone/teacher", None)
    config["data"]["path"] = "someone/data"
    model_card(tmp_path, config, 4, None)
    card = ModelCard.load(tmp_path / "README.md")
    assert card.data.base_model == ("someone/teacher" if loaded else None) and "on someone/data," in card.content
    assert f"Teacher: {'someone/teacher' if loaded else 'teacher'}." in card.content


@pytest.mark.parametrize(
    ("kind", "options", "match"),
    [
        (
            "ddpm",
            {"nodes": "quadratic"},
            r"^scheduler.nodes: no stock scheduler has the timesteps \[800, 200, 0\]; .*trailing, or",
        ),
        (
            "ddpm",
            {"eta": 0.0},
            "^scheduler.nodes: .*trailing and a number of steps that divides 1000, or export exact$",
        ),
        ("ddpm", {"eta": 0.5}, "^scheduler.eta: a stock scheduler makes steps with eta 0 or 1, not 0.5; "),
        (
            "edm",
            {"nodes": "karras"},
            "^scheduler.eta: stock schedulers make EDM steps without new noise alone; .* eta: 0, or",
        ),
        ("edm", {"nodes": "karras", "extra_node": True}, "^scheduler.extra_node: stock schedulers end at the data; "),
        (
            "edm",
            {"eta": 0.0},
            "^scheduler.nodes: stock schedulers make no steps at the timesteps .*nodes: karras and eta: 0",
        ),
        ("sd3", {}, "^scheduler.eta: stock schedulers make flow-matching steps without new noise alone; "),
    ],
)
def test_what_stock_schedulers_cannot_say_is_refused(kind, options, match, tmp_path):
    sampler = DiffusionSampler(str(tiny(kind, tmp_path)), AncestralScheduler(STEPS, **options))
    with pytest.raises(ConfigError, match=match) as caught:
        sampler.stock()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("ddpm", {"nodes": "leading"}),
        ("ddpm", {"nodes": "leading", "eta": 0.0}),
        ("ddpm", {"nodes": [999, 749, 499, 249], "eta": 0.0}),
        ("sdxl", {"eta": 0.0}),
        ("edm", {"nodes": "karras", "eta": 0.0, "rho": 3.0}),
        ("sd3", {"nodes": [950, 600, 300, 20], "eta": 0.0}),
    ],
)
def test_what_stock_schedulers_can_say_is_found(kind, options, tmp_path):
    sampler = DiffusionSampler(str(tiny(kind, tmp_path)), AncestralScheduler(4, **options)).stock()
    found = sampler.plain_scheduler
    assert type(found).__module__.startswith("diffusers.")
    if "rho" in options:
        assert found.config.rho == pytest.approx(3.0, abs=1e-4)


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


# The command


@pytest.mark.parametrize(("kind", "given"), [("classes", []), ("dit", []), ("sd", ["--prompt", "a seven"])])
def test_sample_draws_from_exports_of_conditional_teachers(exports, kind, given, tmp_path, capsys):
    folder, _ = exports[kind]["exact"]
    out = tmp_path / "grid.png"
    assert main(["sample", str(folder), "-n", "2", "--out", str(out), *given]) == 0 and out.exists()
    capsys.readouterr()
    wrong, message = ([], "draws from text; give one") if given else (["--prompt", "a"], "does not draw from text")
    assert main(["sample", str(folder), "-n", "2", "--out", str(tmp_path / "other.png"), *wrong]) == 2
    assert capsys.readouterr().err.startswith(f"dxmi: --prompt: {folder} {message}")


@pytest.fixture
def finished(config, write, tmp_path, capsys):
    """A run with figures whose nodes are stock."""
    config["sampler"]["scheduler"]["nodes"] = "trailing"
    config["evaluators"] = [{"name": "fidelity", "extractor": str(EXTRACTOR), "samples": 64}]
    config |= {"compare_steps": [], "lr": {"std": 0.3}}
    run = tmp_path / "run"
    assert main(["train", str(write(config)), "--out", str(run)]) == 0
    capsys.readouterr()
    return run


def test_export_measures_what_stock_costs_and_refuses_folders_that_exist(finished, tmp_path, capsys):
    stock, exact = tmp_path / "stock", tmp_path / "exact"
    assert main(["export", str(finished), "--mode", "stock", "--out", str(stock)]) == 0
    printed = capsys.readouterr().out
    assert "exact" in printed and "stock" in printed
    rows = [line for line in (stock / "README.md").read_text().splitlines() if line.startswith(("| exact", "| stock"))]
    figures = [[float(cell) for cell in row.split("|")[4:-1]] for row in rows]  # after name, steps, n
    assert len(figures) == 2 and figures[0] != figures[1]
    assert all(row.split("|")[3] == " 64 " for row in rows)
    student = json.loads((finished / "evaluation.json").read_text())["rows"][0]["metrics"]
    assert figures[0][0] == pytest.approx(next(iter(student.values())), rel=1e-2)  # as printed: three digits
    assert json.loads((stock / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "DDPMScheduler"
    kept = tmp_path / "exact.partial" / "thesis.txt"
    kept.parent.mkdir()
    kept.write_text("precious")
    assert main(["export", str(finished), "--out", str(exact)]) == 0
    assert (exact / "scheduler" / "few_step.py").exists() and kept.read_text() == "precious"
    assert {path.name for path in tmp_path.iterdir() if path.name.startswith(".")} == set()
    capsys.readouterr()
    assert main(["export", str(finished), "--out", str(exact)]) == 2
    assert capsys.readouterr().err == f"dxmi: --out: {exact} exists; give another folder\n"


def test_export_refuses_what_is_no_finished_run(config, write, tmp_path, capsys):
    run, out = tmp_path / "run", tmp_path / "new" / "out"
    with interrupted(2):
        main(["train", str(write(config)), "--out", str(run)])
    for folder, message in (
        (run, "holds no finished run with a pipeline; 'dxmi train ... --resume' goes on with it"),
        (tmp_path, "holds no run (there is no run.yaml); give the folder that 'dxmi train' left"),
    ):
        capsys.readouterr()
        assert main(["export", str(folder), "--mode", "stock", "--out", str(out)]) == 2
        assert capsys.readouterr().err == f"dxmi: {folder}: {message}\n"
    assert not out.exists()


def test_a_refused_export_leaves_nothing(config, write, tmp_path, capsys):
    run = tmp_path / "run"
    assert main(["train", str(write(config)), "--out", str(run)]) == 0  # quadratic nodes
    capsys.readouterr()
    assert main(["export", str(run), "--mode", "stock", "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err.startswith("dxmi: sampler.scheduler.nodes: no stock scheduler has the timesteps")
    assert not list(tmp_path.glob("out*"))
