"""What a run's folder holds, read and written."""

from dxmi.runs.energy import load_energy_folder as load_energy_folder
from dxmi.runs.energy import save_energy as save_energy
from dxmi.runs.folder import Run as Run
from dxmi.runs.folder import load_energy as load_energy
