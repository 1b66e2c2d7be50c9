"""The pages say what is there: files, links, options, what the code says of itself."""

import importlib.util
import re
import shlex
import sys
import tomllib

import pytest
import yaml
from conftest import ROOT
from pages import DOCS, PAGES, READ, anchors, blocks, by_hand, commands, inline, links

from dxmi.cli.parser import build_parser, without_pairs
from dxmi.config.chains import ChainsConfig
from dxmi.config.checked import Checked
from dxmi.config.pretrain import PretrainConfig
from dxmi.config.run import TrainConfig
from dxmi.config.yaml_files import Loader, absolute

OURS = re.compile(r"(\.ci|configs|docs|dxmi|examples|plugins|tests)/[\w./-]*\w/?")
RUN = {"bash", "console", "python", "yaml", "toml"}
KINDS = {"": False, "not run": True, "checked, not built": True, "in tests": True}  # and whether something follows
ids = {"ids": lambda page: str(page.relative_to(ROOT))}


@pytest.fixture(scope="module")
def generate():
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "docs"))
        spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.mark.process
def test_generated_pages_are_what_the_code_says(generate, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    assert generate.stale() == [], "run 'python docs/generate.py'"


def test_a_stale_page_is_found(generate, monkeypatch):
    monkeypatch.setattr(generate, "pages", lambda: {"index.md": "other words", "math.md": text_of("math.md")})
    assert generate.stale() == ["index.md"]
    monkeypatch.setattr(sys, "argv", ["generate.py", "--check"])
    assert generate.main() == 1


def text_of(name):
    return (ROOT / "docs" / name).read_text().replace("\n", "\n\n")  # equal up to white space


def test_the_readme_is_one_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 220


def test_every_page_is_in_the_menu_and_in_the_index():
    menu = yaml.safe_load((ROOT / "mkdocs.yml").read_text())["nav"]
    named = re.findall(r"[\w-]+\.md", str(menu))
    assert sorted(named) == sorted(page.name for page in DOCS)
    assert {page.name for page in DOCS} - {"index.md"} <= set(links(ROOT / "docs" / "index.md"))
    assert {f"docs/{page.name}" for page in DOCS} <= set(links(ROOT / "README.md"))


@pytest.mark.parametrize("page", READ, **ids)
def test_links_lead_somewhere(page):
    for link in links(page):
        place, _, anchor = link.partition("#")
        if place.startswith("https://"):
            continue
        target = (page.parent / place).resolve() if place else page
        assert target.exists(), f"{page}: {link}"
        assert not anchor or anchor in anchors(target), f"{page}: {link}"
        if page in DOCS:  # a site is built of this folder alone
            assert target.is_relative_to(ROOT / "docs"), f"{page}: {link}"


@pytest.mark.parametrize("page", PAGES + READ[-2:], **ids)
def test_files_that_are_named_exist(page):
    for word in (word for code in inline(page) for word in code.split() if OURS.fullmatch(word)):
        assert (ROOT / word).exists(), f"{page}: {word}"


@pytest.mark.parametrize("page", PAGES, **ids)
def test_blocks_say_why_they_are_not_run(page):
    for block in blocks(page):
        assert block.kind in KINDS and KINDS[block.kind] == bool(block.why), f"{block}: {block.kind}"
        assert block.language in RUN | {"text", "bibtex"}, f"{block}: {block.language}"


@pytest.mark.parametrize("page", READ, **ids)
def test_commands_that_are_named_exist(page):
    """Also of those that take too long to be run: the scripts, their options, the configs, dxmi's own options."""
    shown = [line for block in blocks(page) if block.language in ("bash", "console") for line in commands(block)]
    for line in shown + [code for code in inline(page) if code.startswith(("dxmi ", "python examples"))]:
        words = shlex.split(line.replace("…", "").replace("...", ""))
        if words[0] == "python":
            script = ROOT / words[1]
            source = script.read_text() + (ROOT / "examples" / "anomaly_loop.py").read_text()
            assert all(f'"{word}"' in source for word in words if word.startswith("--")), f"{page}: {line}"
        elif words[0].removeprefix(".venv/bin/") == "dxmi" and len(words) > 1 and words[1].islower():
            options, rest = build_parser().parse_known_args(complete(without_pairs(words[1:])[0]))
            assert not rest or getattr(options, "takes_overrides", False), f"{page}: {line}"
        for word in words:
            assert not word.startswith("configs/") or (ROOT / word).exists(), f"{page}: {line}"


def complete(words):
    """A command as it is named in a sentence, with what argparse wants beside: ``dxmi push`` needs a repository."""
    more = {"push": ["a", "b/c"], "score": ["a", "b"], "export": ["a", "--out", "b"], "inspect": ["a"]}
    given = [word for word in words[1:] if not word.startswith("-")]
    return words if "--out" in words else words + more.get(words[0], [])[len(given) :]


@pytest.mark.parametrize("page", PAGES, **ids)
def test_yaml_and_toml_are_right(page):
    """A piece of a run's file is checked among the least that a run needs."""
    for block in blocks(page):
        if block.language == "toml":
            assert tomllib.loads(block.text)
        for piece in pieces(block.text) if block.language == "yaml" and block.kind != "not run" else []:
            config = absolute(yaml.load(piece, Loader), ROOT / "configs")
            kind, least = kind_of(config)
            checked = Checked(kind, least | config)
            if block.kind != "checked, not built":
                checked.build()


def kind_of(config):
    if "objective" in config:
        return PretrainConfig, {}
    if "chains" in config:
        return ChainsConfig, {"sampler": "mala"}
    return TrainConfig, {"energy": {"name": "mlp"}, "sampler": {"name": "langevin"}}


def pieces(text):
    """A block that shows the same key twice shows two ways to write it."""
    keys = re.findall(r"^(\w+):", text, re.M)
    return text.splitlines() if len(set(keys)) < len(keys) else [text]


def test_the_pages_name_no_machine():
    for page in READ:
        assert not re.search(r"(?<![\w.])/(work|tmp|home|root)/", by_hand(page)), page
