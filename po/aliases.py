"""Names that papers, TRL and CustomPOs-for-SLMs use, and what they are called here."""

from collections.abc import Mapping
from types import MappingProxyType

METHOD_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "nll": "sft",
        "dpo:sigmoid": "dpo",
        "dpo-gamma": "dpo_gamma",
        "dpo:hinge": "slic_dpo",
        "rso": "slic_dpo",
        "slic-dpo": "slic_dpo",
        "dpo:ipo": "ipo",
        "cpo:sigmoid": "cpo",
        "cpo:hinge": "slic",
        "slic-cpo": "slic",
        "slic_cpo": "slic",
        "cpo:simpo": "cpo_simpo",  # TRL's cpo_alpha is 1 unless set, so its SimPO has the likelihood term
        "cpo-simpo": "cpo_simpo",
    }
)
"""Other name -> id. ``trainer:loss_type`` names what TRL's trainer of that name calls so."""

AMBIGUOUS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "hinge": {"slic_dpo": "TRL's DPO trainer, 'dpo:hinge'", "slic": "TRL's CPO trainer, 'cpo:hinge'"},
        "sigmoid": {"dpo": "TRL's DPO trainer, 'dpo:sigmoid'", "cpo": "TRL's CPO trainer, 'cpo:sigmoid'"},
        "mpo": {
            "soft_dpo": "DPO with soft labels, in CustomPOs-for-SLMs",
            "mix": "Mixed Preference Optimization, in TRL",
        },
        "rdpo": {
            "robust_dpo": "DPO that is robust to label noise",
            "length_dpo": "DPO that is regularized by length",
        },
    }
)
"""Names that mean several methods -> the ids they may mean, and who uses them so."""

PARAMETER_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "label_smoothing": "eps",
        "simpo_gamma": "gamma",
        "cpo_alpha": "nll_weight",
        "rpo_alpha": "nll_weight",
        "alpha": "nll_weight",
        "lambda_sft": "nll_weight",
        "sft_weight": "nll_weight",
    }
)
"""Other name -> canonical hyperparameter, in every method that has the second and not the first."""
