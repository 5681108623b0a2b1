"""Names that papers, TRL and CustomPOs-for-SLMs use, and what they are called here.

``trainer:loss_type`` names what TRL's trainer of that name calls so (``dpo:hinge``); ``custom_po:`` is the
trainer of CustomPOs-for-SLMs, ``simpo:`` that of SimPO's authors. Such a name means the function that the
trainer computes. Numbers that are not given start from the defaults here, which are the papers'.
"""

from collections.abc import Mapping
from types import MappingProxyType

METHOD_ALIASES: Mapping[str, str] = MappingProxyType(
    {
        "nll": "sft",
        "dpo:sft": "sft",
        "dpo:sigmoid": "dpo",
        "rdpo_noise": "robust_dpo",
        "robust": "robust_dpo",
        "dpo:robust": "robust_dpo",
        "dpo-gamma": "dpo_gamma",
        "custom_po:dpo-gamma": "dpo_gamma",
        "dpo:hinge": "slic_dpo",
        "rso": "slic_dpo",
        "slic-dpo": "slic_dpo",
        "dpo:ipo": "ipo",
        "custom_po:ipo": "ipo",
        "exo_pair": "exo",
        "dpo:exo_pair": "exo",
        "nca_pair": "nca",
        "dpo:nca_pair": "nca",
        "dpo:bco_pair": "bco_pair",
        "BCOTrainer": "bco",
        "bco:bco": "bco",
        "kto:bco": "bco",  # early TRL
        "sppo_hard": "sppo",
        "dpo:sppo_hard": "sppo",
        "dpo:aot": "aot",
        "aot_pair": "aot_unpaired",  # TRL's name of it before 2026
        "dpo:aot_pair": "aot_unpaired",
        "dpo:aot_unpaired": "aot_unpaired",
        "dpo:apo_zero": "apo_zero",
        "dpo:apo_down": "apo_down",
        "dpo:discopop": "discopop",
        "dpo:sigmoid_norm": "ln_dpo",
        "sigmoid_norm": "ln_dpo",
        "dpo:kto_pair": "kto_pair",  # early TRL
        "custom_po:kto_pair": "kto_pair",
        "rpo_alpha": "rpo",
        "irpo": "rpo",
        "dpo+sft": "rpo",
        "ld_alpha": "ld_dpo",
        "use_weighting": "wpo",
        "sync_ref_model": "tr_dpo",
        "cpo:sigmoid": "cpo",
        "cpo:hinge": "slic",
        "slic-cpo": "slic",
        "slic_cpo": "slic",
        "cpo:ipo": "cpo_ipo",
        "cpo:simpo": "cpo_simpo",  # TRL's cpo_alpha is 1 unless set, so its SimPO has the likelihood term
        "cpo-simpo": "cpo_simpo",
        "cpo:alphapo": "alphapo",  # that sets cpo_alpha to 0
        "simpo:sigmoid": "simpo",
        "custom_po:simpo": "simpo",
        "simpo:hinge": "simpo_hinge",
        "orpo:orpo": "orpo",
        "custom_po:orpo": "orpo",
        "kto:kto": "kto",
        "kto:apo_zero_unpaired": "apo_zero_unpaired",
        "mallows-dpo": "mallows_dpo",
        "custom_po:mallows-dpo": "mallows_dpo",
        "custom_po:fpo": "fpo",
        "custom_po:fcpo": "fcpo",
        "custom_po:mpo": "soft_dpo",
        "custom_po:ropo": "ropo",
        "dpo-positive": "dpop",
        "smaug": "dpop",
        "r-dpo": "length_dpo",
        "plackett-luce": "pl_dpo",
    }
)
"""Other name -> id."""

PRESETS: Mapping[str, Mapping[str, str | bool | float]] = MappingProxyType(
    {
        "dpo:bco_pair": {"delta_rule": "none"},  # since 0.29
        "bco:bco": {"delta_rule": "pooled"},
        "kto:bco": {"delta_rule": "pooled"},
        "orpo:orpo": {"nll_scope": "prompt_and_completion"},
        "dpo:kto_pair": {"detach_kl": False},
        "custom_po:kto_pair": {"detach_kl": False},
        "custom_po:ipo": {"length_norm": False},
    }
)
"""Other name -> settings without which it would mean another function than it does there."""

AMBIGUOUS: Mapping[str, Mapping[str, str]] = MappingProxyType(
    {
        "hinge": {"slic_dpo": "TRL's DPO trainer, 'dpo:hinge'", "slic": "TRL's CPO trainer, 'cpo:hinge'"},
        "sigmoid": {"dpo": "TRL's DPO trainer, 'dpo:sigmoid'", "cpo": "TRL's CPO trainer, 'cpo:sigmoid'"},
        "custom_po:hinge": {
            "slic_dpo": "CustomPOs-for-SLMs with a reference",
            "slic": "there with reference_free and lambda_sft",
        },
        "custom_po:sigmoid": {
            "dpo": "CustomPOs-for-SLMs with a reference",
            "cpo": "there with reference_free and lambda_sft",
        },
        "mpo": {
            "soft_dpo": "DPO with soft labels, in CustomPOs-for-SLMs",
            "mixed_mpo": "Mixed Preference Optimization, in TRL: a 'mix' of dpo, bco_pair and sft",
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
        "average_log_prob": "length_norm",
        "ref_model_sync_steps": "sync_steps",
        "ref_model_mixup_alpha": "sync_mix",
    }
)
"""Other name -> canonical hyperparameter, in every method that has the second and not the first."""

_NOISE = "DPO with smoothed labels is cdpo; in TRL, sigmoid does not read label_smoothing since 0.29."
_MOVES = "A reference that follows the policy is the method tr_dpo(METHOD)."
_DIVERGENCE = "DPO with another divergence is f_dpo."
_LIKELIHOOD = "DPO with a likelihood term is rpo; others get one by mix(METHOD, sft)."

ADVICE: Mapping[str, str] = MappingProxyType(
    {
        "label_smoothing": _NOISE,
        "eps": _NOISE,
        "ld_alpha": "LD-DPO is the method ld_dpo.",
        "discopop_tau": "DiscoPOP is the method discopop.",
        "f_divergence_type": _DIVERGENCE,
        "f_alpha_divergence_coef": _DIVERGENCE,
        "use_weighting": "WPO is the method wpo(METHOD).",
        "sync_ref_model": _MOVES,
        "ref_model_sync_steps": _MOVES,
        "ref_model_mixup_alpha": _MOVES,
        "sync_steps": _MOVES,
        "sync_mix": _MOVES,
        "rpo_alpha": _LIKELIHOOD,
        "cpo_alpha": _LIKELIHOOD,
        "lambda_sft": _LIKELIHOOD,
        "nll_weight": _LIKELIHOOD,
        "loss_type": "The method names the loss, as in dpo:hinge.",
        "contrast_loss_type": "The method names the loss, as in custom_po:fpo.",
        "loss_weights": "A weighted sum is mix(METHOD, METHOD); its weights are called METHOD_weight.",
        "lambda_contrast": "Only the ratio of the two weights counts: divide nll_weight by it.",
        "sft_type": "It is nll_reduction: token is token_batch, instance is seq_sum.",
        "phi_star": "It is phi, which is -2 phi_star.",
        "use_reward_logit": "It is link, of soft_dpo: logit or sigmoid.",
        "average_log_prob": "Averaged log-probabilities are in ln_dpo, ipo, simpo and orpo.",
    }
)
"""Option of another trainer -> what to do where a method does not have it."""
