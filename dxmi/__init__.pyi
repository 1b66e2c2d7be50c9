from .api.energy import Energy as Energy
from .api.errors import ConfigError as ConfigError
from .api.sampler import Sampler as Sampler
from .config.plugins import plugins as plugins
from .evaluation.earlier_reports import load_report as load_report
from .evaluation.energy_scores import score as score
from .evaluation.evaluate import evaluate as evaluate
from .evaluation.report import Report as Report
from .pretraining.loop import pretrain as pretrain
from .pretraining.score_network import load_score as load_score
from .runs.folder import Run as Run
from .runs.folder import load_energy as load_energy
from .runs.inspect import inspect as inspect
from .runs.push import push as push
from .runs.sample import sample as sample
from .training.export import export as export
from .training.train import train as train

__version__: str
