"""Training core: preference-optimization losses, the table of methods, log-probabilities and the trainers.

    from po import METHODS, PreferenceConfig, PreferenceTrainer

The names are loaded when they are used, so that planning a study does not load transformers.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from po.library.config import PreferenceConfig
    from po.library.trainer import PreferenceTrainer
    from po.methods import METHODS

__all__ = ["METHODS", "PreferenceConfig", "PreferenceTrainer"]

_PLACES = {
    "METHODS": "po.methods",
    "PreferenceConfig": "po.library.config",
    "PreferenceTrainer": "po.library.trainer",
}


def __getattr__(name: str) -> Any:
    if name not in _PLACES:
        raise AttributeError(f"module 'po' has no attribute '{name}'; there are {', '.join(__all__)}")
    return getattr(importlib.import_module(_PLACES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
