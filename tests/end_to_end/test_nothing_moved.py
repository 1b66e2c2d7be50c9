"""Whole runs have the losses that they had before the code was sorted into rooms; ``losses.py`` recorded them."""

import json

import pytest
from losses import LOOSE, NAMES, RECORD, compare, play

RECORDED = json.loads(RECORD.read_text())


def test_every_run_is_recorded():
    assert list(RECORDED["losses"]) == NAMES
    assert all(len(lines) == 30 for lines in RECORDED["losses"].values())


@pytest.mark.parametrize("name", NAMES)
def test_losses_are_those_of_before(name):
    compare(play(name), RECORDED["losses"][name], RECORDED["machine"], LOOSE.get(name, 1e-3))
