from .anomaly.evaluator import Anomaly as Anomaly
from .densities.evaluator import Densities as Densities
from .fidelity.evaluator import Fidelity as Fidelity
