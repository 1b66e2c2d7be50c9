"""Networks without a game: score matching, DDPM, reconstruction."""

from dxmi.pretraining import score_losses as score_losses
from dxmi.pretraining.loop import pretrain as pretrain
from dxmi.pretraining.score_network import EnergyScore as EnergyScore
from dxmi.pretraining.score_network import ScoreNetwork as ScoreNetwork
from dxmi.pretraining.score_network import load_score as load_score
from dxmi.pretraining.score_network import save_score as save_score
from dxmi.pretraining.scores import DIALECTS as DIALECTS
from dxmi.pretraining.scores import asymmetry as asymmetry
from dxmi.pretraining.scores import convert as convert
from dxmi.pretraining.scores import negative_gradient as negative_gradient
