"""The paper's algorithm (MATH 3)."""

from dxmi.game.algorithm import DxMI as DxMI
from dxmi.game.algorithm import build_game as build_game
from dxmi.game.energy_losses import energy_loss as energy_loss
from dxmi.game.energy_losses import gcd as gcd
from dxmi.game.energy_losses import hinge as hinge
from dxmi.game.energy_losses import n2ce as n2ce
from dxmi.game.energy_losses import nce as nce
from dxmi.game.objectives import lambda_returns as lambda_returns
from dxmi.game.objectives import mean_square_steps as mean_square_steps
from dxmi.game.objectives import soft_q as soft_q
from dxmi.game.objectives import time_cost as time_cost
from dxmi.game.players import Players as Players
from dxmi.game.players import descend as descend
from dxmi.game.replay_buffer import ReplayBuffer as ReplayBuffer
from dxmi.game.rollouts import Rollouts as Rollouts
from dxmi.game.state import State as State
from dxmi.game.state import Update as Update
from dxmi.game.updates import choose_updates as choose_updates
