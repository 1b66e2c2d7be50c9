"""The command line: parsing and printing."""

from dxmi.cli.main import main as main
