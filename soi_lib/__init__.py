"""Record training dynamics and sort examples into Subsets of Interest.

Public names are imported on first use (PEP 562), so `import soi_lib` alone loads neither pandas nor torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from soi_lib.analysis.datamap import data_map as data_map
    from soi_lib.analysis.selection import select as select
    from soi_lib.analysis.soi import SOI as SOI
    from soi_lib.analysis.soi import categorize as categorize
    from soi_lib.analysis.transitions import transition_matrix as transition_matrix
    from soi_lib.dynamics import Meta as Meta
    from soi_lib.dynamics import TrainingDynamics as TrainingDynamics
    from soi_lib.dynamics import align as align
    from soi_lib.errors import SoiError as SoiError
    from soi_lib.recorder import DynamicsRecorder as DynamicsRecorder
    from soi_lib.training.classifier import load_classifier as load_classifier

__version__ = "0.1.0"

_HOME = {
    "TrainingDynamics": "soi_lib.dynamics",
    "Meta": "soi_lib.dynamics",
    "align": "soi_lib.dynamics",
    "SOI": "soi_lib.analysis.soi",
    "categorize": "soi_lib.analysis.soi",
    "data_map": "soi_lib.analysis.datamap",
    "transition_matrix": "soi_lib.analysis.transitions",
    "select": "soi_lib.analysis.selection",
    "DynamicsRecorder": "soi_lib.recorder",
    "load_classifier": "soi_lib.training.classifier",
    "SoiError": "soi_lib.errors",
}
"""Public names in the order in which users meet them, and their modules."""

__all__ = [*_HOME, "__version__"]


def __getattr__(name: str) -> Any:
    """Import a public name on first use."""
    if name not in _HOME:
        raise AttributeError(f"module 'soi_lib' has no attribute {name!r}; it has {', '.join(sorted(__all__))}")
    value = getattr(import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names, including those not imported yet."""
    return sorted({*globals(), *__all__})
