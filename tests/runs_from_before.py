"""What a user does with a folder of before, by the command line alone, and the figures that come of it."""

import json
import shutil

import numpy as np
import pyarrow
from losses import DIGITS, ROOT, TESTS
from PIL import Image
from pyarrow import parquet
from safetensors.numpy import load_file

from dxmi.cli import main

RUNS = TESTS / "data" / "runs"
PLACE = "@ROOT@"  # stands for the repository in files that have to name one
EXTRACTOR = ROOT / "examples" / "extractors" / "digits.safetensors"
SUFFIXES = (".yaml", ".json", ".jsonl", ".md")


def bring(name, folder):
    """A copy of a kept folder, or of a kept file, with the paths of this machine; ``folder`` may have some already."""
    target = folder / name
    if not target.exists():
        (shutil.copytree if (RUNS / name).is_dir() else shutil.copy)(RUNS / name, target)
        exchange(target, PLACE, str(ROOT))
    return target


def exchange(place, old, new):
    """Put ``new`` for ``old`` in the text files of a folder, or in one file."""
    for path in [place] if place.is_file() else place.rglob("*"):
        if path.suffix in SUFFIXES and old in (text := path.read_text()):
            path.write_text(text.replace(old, new))


def dxmi(*arguments, status=0):
    given = [str(argument) for argument in arguments]
    found = main(given)
    assert found == status, f"dxmi {' '.join(given)} ends with status {found}"


# The steps of a case. Each takes the copied folder and an empty one for what comes, and gives numbers.


def again(run, out):
    """The run from its own run.yaml: the lines of metrics.jsonl."""
    dxmi("train", run / "run.yaml", "--out", out / "again")
    assert products(out / "again") >= products(run)
    return lines(out / "again")


def resumed(run, out):
    """The lines of metrics.jsonl that a run adds which was interrupted two rounds after its checkpoint."""
    kept = [line for line in lines(run) if line["step"] <= 3]
    assert lines(run)[-1]["step"] == 5 and not (run / "energy").exists() and not (run / "sampler").exists()
    dxmi("train", run / "run.yaml", "--out", run, "--resume")
    found = lines(run)
    assert found[: len(kept)] == kept
    assert products(run) >= products(bring(run.name.removeprefix("halfway_"), out))
    return found[len(kept) :]


def resumed_at_the_end(run, out):
    """Nothing is left to play, and the products are those of before."""
    weights = "pipeline/unet/diffusion_pytorch_model.safetensors"
    kept, before = lines(run), load_file(run / weights)
    shutil.rmtree(run / "pipeline")
    dxmi("train", run / "run.yaml", "--out", run, "--resume")
    assert lines(run) == kept
    after = load_file(run / weights)
    assert before.keys() == after.keys() and all(np.array_equal(before[key], after[key]) for key in before)
    rows = json.loads((run / "evaluation.json").read_text())["rows"]
    return [row | {"metrics": without_floors(row["metrics"])} for row in rows]


def grid(source, out):
    """Eight images that are drawn: the mean grey of each column of pixels of the images."""
    dxmi("sample", source, "-n", 8, "--seed", 3, "--out", out / "grid.png")
    picture = np.asarray(Image.open(out / "grid.png").convert("L"), dtype=float)
    return picture.mean(0)[6:-2:8].tolist()


def samples(run, out):
    """Samples of vectors, with log-weights where there are some."""
    dxmi("sample", run, "-n", 6, "--seed", 3, "--out", out / "samples.safetensors")
    found = load_file(out / "samples.safetensors")
    return {key: value.astype(float).tolist() for key, value in found.items()}


def images_report(source, out):
    """Figures against the digits, from a pipeline or a run on images."""
    judge = ["--reference", DIGITS, "--extractor", EXTRACTOR, "--metrics", "fid", "--floor", "none"]
    dxmi("evaluate", source, *judge, "-n", 32, "--seeds", 0, "--out", out / "figures")
    (row,) = json.loads((out / "figures" / "report.json").read_text())["rows"]
    return without_floors(row["metrics"])


def without_floors(metrics):
    """The figures that there were before: floors stand beside them now."""
    return {name: value for name, value in metrics.items() if "_floor" not in name}


def density_report(run, out):
    """Figures of a run on a known density, and its floor's."""
    dxmi("evaluate", run, "-n", 60, "--seed", 3, "--out", out / "figures.json")
    return {row["name"]: row["metrics"] for row in json.loads((out / "figures.json").read_text())["rows"]}


def image_scores(source, out):
    """Energies of the first digits."""
    dxmi("score", source, DIGITS, "--json", out / "scores.json")
    found = json.loads((out / "scores.json").read_text())
    assert len(found) == 1797
    return found[:20]


def vector_scores(source, out):
    """Energies of eight points, and how they rank labels."""
    points = [[float(x), float(y)] for x in (-2, 0, 1, 3) for y in (-1, 2)]
    parquet.write_table(pyarrow.table({"x": points, "bad": [0, 1] * 4}), out / "points.parquet")
    given = ["--column", "x", "--labels", "bad", "--json", out / "scores.json"]
    dxmi("score", source, out / "points.parquet", *given)
    found = json.loads((out / "scores.json").read_text())
    return [found["energies"], found["metrics"]]


def exported(run, out):
    """Both exports: what they draw."""
    found = {}
    for mode in ("exact", "stock"):
        dxmi("export", run, "--mode", mode, "--out", out / mode)
        assert (out / mode / "scheduler" / "few_step.py").exists() == (mode == "exact")
        (out / "of" / mode).mkdir(parents=True)
        found[mode] = grid(out / mode, out / "of" / mode)
    return found


def inspected(pipeline, out):
    """What a pipeline is said to be, and that the config it is given plays a round."""
    dxmi("inspect", pipeline, "--json", out / "told.json", "--config", out / "mine.yaml")
    keys = ["--data.path", DIGITS, "--data.batch_size", 4, "--energy", "{name: conv, width: 2, blocks: 1}"]
    brief = ["--steps", 1, "--every.log", 1, "--tracker", "null", "--compare_steps", "[]", "--evaluators", "[]"]
    dxmi("train", out / "mine.yaml", *keys, *brief, "--out", out / "mine")
    return lines(out / "mine")


def pretrained_again(folder, out):
    """The network that the kept config makes, as sums of its tensors, which are those of the kept one."""
    dxmi("pretrain", bring(f"{folder.name}.yaml", folder.parent), "--out", out / "network")
    sums = {}
    for path in sorted((out / "network").rglob("*.safetensors")):
        new, old = load_file(path), load_file(folder / path.relative_to(out / "network"))
        assert {k: v.shape for k, v in new.items()} == {k: v.shape for k, v in old.items()}
        sums |= {k: [float(v[k].astype(float).sum()) for v in (new, old)] for k in new}
    assert products(out / "network") == products(folder) and sums
    for key, (new, old) in sums.items():
        assert abs(new - old) <= 1e-3 * max(1, abs(old)), key
    return {key: new for key, (new, _) in sums.items()}


def chains_again(run, out):
    """Chains from the run.yaml that they left: diagnostics and ends. No figures can be had of them."""
    dxmi("sample", run / "run.yaml", "--out", out / "again")
    assert products(out / "again") >= products(run)
    dxmi("evaluate", run, status=2)
    found = load_file(out / "again" / "samples.safetensors")
    told = json.loads((out / "again" / "diagnostics.json").read_text())
    told.pop("stamp")
    return {"told": told, "samples": found["samples"].astype(float).tolist()}


def compared(report, out):
    """A report of before beside one that is made now of the same pipeline: they are of one kind."""
    now = images_report(bring("ddpm", report.parent), out)
    dxmi("evaluate", "--compare", report, out / "figures")
    return now


def lines(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def products(folder):
    """What lies in a folder, but pictures."""
    return {path.name for path in folder.iterdir() if path.suffix != ".png"}


# Each folder and what is done with it.
CASES = [
    (name, does)
    for name, doings in {
        "images": [again, resumed_at_the_end, grid, images_report, image_scores, exported],
        "images_value": [again, grid, image_scores],
        "vectors": [again, samples, vector_scores],
        "policy": [again, samples, vector_scores],
        "digits_vgs": [again, grid, image_scores],
        "density": [again, samples, density_report],
        "chains": [chains_again],
        "pcd": [again, samples, vector_scores],
        "ddpm": [pretrained_again, grid, inspected],
        "multi_noise": [pretrained_again, grid, inspected],
        "score": [pretrained_again],
        "energy": [pretrained_again, vector_scores],
        "report": [compared],
        "halfway_images": [resumed],
        "halfway_vectors": [resumed],
        "halfway_density": [resumed],
        "halfway_pcd": [resumed],
    }.items()
    for does in doings
]


def do(name, does, folder):
    """One case, in an empty folder."""
    out = folder / "out"
    out.mkdir()
    return does(bring(name, folder), out)
