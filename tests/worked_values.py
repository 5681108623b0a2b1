"""Values of the losses, worked from the formulas with plain Python floats on the pairs of `worked_inputs`."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from worked_inputs import DENSITY_RATIO

NO_SHIFT = {"reward_shift": torch.tensor(0.0).double()}
PARITY_ARPO = {"c1": 0.9, "c2": 0.4, "tau_min": -1, "nll_weight": 0}


@dataclass(frozen=True)
class Worked:
    """Losses of a method under parameters, and inputs other than the usual ones."""

    method: str
    params: Mapping[str, Any]
    losses: list[float]
    inputs: Mapping[str, Tensor] = field(default_factory=dict)

    def __str__(self) -> str:
        return " ".join([self.method, *(f"{k}={v}" for k, v in self.params.items()), *self.inputs])


WORKED = [
    Worked("sft", {"nll_reduction": "seq_mean"}, [1.2, 1.28125, 1.20833333]),
    Worked("sft", {"nll_reduction": "seq_sum"}, [12.0, 20.5, 7.25]),
    Worked("dpo", {"beta": 0.1}, [0.62095705, 0.74439666, 0.60947043]),
    Worked("dpo", {"beta": 0.1, "margin": 0.5}, [0.64439666, 0.77095705, 0.63259904]),
    Worked("dpo", {"beta": 0.1, "reference_free": True}, [0.59813887, 0.77095705, 0.58696200]),
    Worked("dpo_gamma", {"beta": 0.1, "gamma": 0.5}, [0.88338216, 1.03748795, 0.86879260]),
    Worked("slic_dpo", {"beta": 0.1, "delta": 1.0}, [0.85, 1.10, 0.825]),
    Worked("slic_dpo", {"beta": 0.1, "delta": 0.1}, [0.0, 0.20, 0.0]),
    Worked("ipo", {"tau": 0.1}, [23.68444444, 25.65000434, 22.5625]),
    Worked("ipo", {"tau": 0.1, "length_norm": False}, [12.25, 36.0, 10.5625]),
    Worked("cdpo", {"eps": 0.1}, [0.63595705, 0.73439666, 0.62697043]),
    Worked("cdpo", {"eps": 0}, [0.62095705, 0.74439666, 0.60947043]),
    Worked("robust_dpo", {"eps": 0.1}, [0.60220705, 0.75689666, 0.58759543]),
    Worked("ropo", {"alpha": 14}, [1.76634932, 2.01453287, 1.74185606]),
    Worked("ropo", {"alpha": 2}, [1.37430876, 1.59498225, 1.35306049]),
    Worked("rpo", {"nll_weight": 1}, [1.86314455, 1.98658416, 1.85165793]),
    Worked("rpo", {"nll_weight": 1, "nll_reduction": "seq_mean"}, [1.82095705, 2.02564666, 1.81780376]),
    Worked("rpo", {"nll_weight": 0}, [0.62095705, 0.74439666, 0.60947043]),
    Worked("dpop", {"lam": 5}, [0.62095705, 0.88338216, 0.60947043]),
    Worked("dpop", {"lam": 50}, [0.62095705, 2.67164469, 0.60947043]),
    Worked("ln_dpo", {"beta": 5}, [0.41437009, 0.86758367, 0.25192908]),
    Worked("ln_dpo", {"beta": 0.1}, [0.68650274, 0.69638156, 0.68072530]),
    Worked("length_dpo", {"alpha": 0.05}, [0.66845965, 0.71845965, 0.65635014]),
    Worked("ld_dpo", {"alpha": 0.5}, [0.62482043, 0.74357668, 0.61519434]),
    Worked("sampo", {}, [0.62870109, 0.74275732, 0.62095705]),
    Worked("exo", {"eps": 1e-3}, [2.50551656, 2.93500427, 2.46364252]),
    Worked("f_dpo", {"divergence": "reverse_kl"}, [0.62095705, 0.74439666, 0.60947043]),
    Worked("f_dpo", {"divergence": "js"}, [0.65206798, 0.71845965, 0.64790001]),
    Worked("f_dpo", {"divergence": "forward_kl"}, [0.59312366, 0.74661380, 0.58714338]),
    Worked("f_dpo", {"divergence": "alpha", "alpha": 0.5}, [0.60993418, 0.74494536, 0.60161864]),
    Worked("chi_po", {"clip": 1}, [0.56374045, 0.80046086, 0.53341851]),
    Worked("cal_dpo", {"beta": 0.1}, [18.32641328, 31.56326169, 17.19147415]),
    Worked("tdpo1", {}, [0.63025819, 0.72875956, 0.62327301]),
    Worked("tdpo2", {"alpha": 0.5}, [0.62559518, 0.73655003, 0.61634377]),
    Worked("mallows_dpo", {"phi": 1}, [0.57970691, 0.74701531, 0.51183147]),
    Worked("mallows_dpo", {"phi": 0.29}, [0.65875447, 0.70848546, 0.63642503]),
    Worked("mallows_dpo", {"phi": 1.6}, [0.51854992, 0.78065562, 0.42186815]),
    Worked("fpo", {"focus": 2}, [0.13286689, 0.20515806, 0.12693175]),
    Worked("fpo", {"focus": 0.5}, [0.42232848, 0.53935593, 0.41172482]),
    Worked("fcpo", {"focus": 2}, [0.12798446, 0.21247819, 0.12224402]),
    Worked("fcpo", {"focus": 0.5}, [0.40680926, 0.55860038, 0.39651936]),
    Worked("focal_po", {"focus": 0.05}, [0.60197388, 0.71719962, 0.59117786]),
    Worked("discopop", {"beta": 0.05}, [0.87823441, 0.80796643, 0.87685831]),
    Worked("discopop", {"beta": 0.1}, [0.84933758, 0.78740201, 0.83271560]),
    Worked("beta_dpo", {}, [0.59331388, 0.76586268, 0.57774754]),
    Worked("nca", {}, [1.34988780, 1.41191930, 1.34422354]),
    Worked("bco_pair", {}, [1.31285631, 1.43691930, 1.30074680], NO_SHIFT),
    Worked("bco_pair", {}, [1.31273929, 1.43695833, 1.30070781]),
    Worked("apo_zero", {}, [0.96252342, 1.02499479, 0.95627960]),
    Worked("apo_down", {}, [0.97506755, 1.01248179, 0.97510253]),
    Worked("kto_pair", {}, [0.48750260, 0.51249740, 0.48125878, 0.46879063, 0.50624967, 0.46879063]),
    Worked("aot", {}, [0.74439666, 0.62095705, 0.60947043]),
    Worked("soft_dpo", {"scale": 1}, [0.69034257, 0.69389668, 0.68394299]),
    Worked("soft_dpo", {"link": "logit"}, [0.66470705, 0.69138461, 0.63447043]),
    Worked("odpo", {"alpha": 1}, [0.12142634, 0.0, 0.22461216]),
    Worked("odpo", {"transform": "identity", "nonpositive": "signed"}, [0.69314718, 0.73394697, 0.75759904]),
    Worked("rebel", {"eta": 1}, [1.82250000, 0.96040000, 2.10250000]),
    Worked("sppo", {"beta": 0.1}, [36.25, 60.5, 34.0625]),
    # P 0.8, 0.4, 0.9: the targets are 3, -1 and 4; (0.5 - 3)^2 + (-1 + 3)^2 and so on.
    Worked("sppo", {"beta": 0.1, "labels": "soft"}, [10.25, 0.5, 19.5625]),
    Worked("pl_dpo", {}, [1.68569751, 0.62095705, 0.60947043]),
    Worked("kto", {}, [0.5, 0.52497919, 0.49375033, 0.46257015, 0.5, 0.46257015]),
    Worked("apo_zero_unpaired", {}, [0.48750260, 0.51249740, 0.48125878, 0.47502081, 0.51249740, 0.47502081]),
    Worked("bco", {}, [0.66238538, 0.71207295, 0.65035391, 0.65035391, 0.72488538, 0.65035391]),
    Worked(
        "bco",
        {"udm": True},
        [0.66238538, 0.71207295, 0.65035391, 0.65035389, 6.52396779, 0.32517695],
        {"density_ratio": DENSITY_RATIO},
    ),
    Worked("aot_unpaired", {}, [0.66845965, 0.62095705, 0.68072530]),
    Worked("cpo", {"beta": 0.1, "nll_weight": 0}, [0.59813887, 0.77095705, 0.58696200]),
    Worked("cpo", {"beta": 0.1, "nll_weight": 1}, [1.84032637, 2.01314455, 1.82914950]),
    Worked("slic", {"beta": 0.1, "delta": 1, "nll_weight": 0}, [0.80, 1.15, 0.775]),
    Worked("slic", {"beta": 0.1, "delta": 1, "nll_weight": 1}, [2.0421875, 2.3921875, 2.0171875]),
    Worked(
        "slic", {"beta": 1, "delta": 1, "nll_weight": 0.1, "nll_reduction": "seq_sum"}, [1.20, 4.55, 0.725]
    ),
    Worked("cpo_ipo", {"nll_weight": 0}, [25.33444444, 25.14604601, 25.20876736]),
    Worked("simpo", {"beta": 2, "gamma": 0.5}, [1.01609358, 0.99233177, 1.00021608]),
    Worked("simpo", {"beta": 0.1, "gamma": 0.5}, [0.97615315, 0.97498499, 0.97537428]),
    Worked("simpo", {"beta": 2.5, "gamma_beta_ratio": 0.55}, [1.66747829, 1.62961949, 1.64220110]),
    Worked("simpo_hinge", {"beta": 2, "gamma_beta_ratio": 0.25}, [1.56666667, 1.52916667, 1.54166667]),
    Worked("cpo_simpo", {"beta": 2, "gamma": 0.5, "nll_weight": 1}, [2.25828108, 2.23451927, 2.24240358]),
    Worked("alphapo", {"alpha": 0.25}, [1.04526579, 1.00557621, 1.01839310]),
    Worked("alphapo", {"alpha": -0.25}, [1.01311421, 0.99066343, 0.99828122]),
    Worked("simper", {}, [0.01020901, 0.00407932, 0.00628808]),
    Worked("orpo", {"odds_weight": 0.1}, [1.31393359, 1.31251969, 1.31300535]),
    Worked("orpo", {"odds_weight": 0.1, "nll_reduction": "seq_mean"}, [1.27174609, 1.35158219, 1.27915118]),
    Worked("arpo", PARITY_ARPO, [1.55919608, 2.33212715, 1.17998117]),
    Worked("arpo", {"nll_weight": 0}, [1.44887212, 2.16125576, 1.11461099]),
    # With the likelihood, 39.75 / 32 = 1.2421875.
    Worked("arpo", {}, [2.69105962, 3.40344326, 2.35679849]),
    Worked("wpo", {"beta": 0.1}, [0.38939539, 0.58094575, 0.33588106]),
    Worked("tr_dpo", {"beta": 0.1}, [0.62095705, 0.74439666, 0.60947043]),
    Worked("mixed_mpo", {}, [2.00152440, 2.12508869, 1.98991320], NO_SHIFT),
]

MEANS = [
    ("sft", {}, 1.24218750),
    ("dpo", {}, 0.65827471),
    ("dpo", {"margin": 0.5}, 0.68265091),
    ("dpo_gamma", {}, 0.92988757),
    ("slic_dpo", {}, 0.925),
    ("ipo", {}, 23.96564959),
    ("ipo", {"length_norm": False}, 19.60416667),
    ("cdpo", {}, 0.66577471),
    ("robust_dpo", {}, 0.64889971),
    ("ropo", {}, 1.84091275),
    ("rpo", {}, 1.90046221),
    ("rpo", {"nll_reduction": "seq_mean"}, 1.88813582),
    ("dpop", {}, 1.30069072),
    ("ln_dpo", {}, 0.51129428),
    ("length_dpo", {}, 0.68108981),
    ("ld_dpo", {}, 0.66119715),
    ("sampo", {}, 0.66413849),
    ("exo", {}, 2.63472111),
    ("f_dpo", {"divergence": "js"}, 0.67280921),
    ("f_dpo", {"divergence": "forward_kl"}, 0.64229361),
    ("f_dpo", {"divergence": "alpha"}, 0.65216606),
    ("chi_po", {}, 0.63253994),
    ("cal_dpo", {}, 22.36038304),
    ("tdpo1", {}, 0.66076359),
    ("tdpo2", {}, 0.65949633),
    ("mallows_dpo", {}, 0.66788832),
    ("fpo", {}, 0.15498557),
    ("fcpo", {}, 0.15423556),
    ("focal_po", {}, 0.63678378),
    ("discopop", {}, 0.85435305),
    ("beta_dpo", {}, 0.64564137),
    ("nca", {}, 1.36867688),
    ("bco_pair", {}, 1.35013515),
    ("apo_zero", {}, 0.98126594),
    ("apo_down", {}, 0.98755062),
    ("kto_pair", {}, 0.48751495),
    ("aot", {}, 0.65827471),
    ("soft_dpo", {}, 0.68939408),
    ("soft_dpo", {"link": "logit"}, 0.66352070),
    ("odpo", {"transform": "identity", "nonpositive": "signed"}, 0.72823106),
    ("rebel", {}, 1.62846667),
    ("sppo", {}, 43.60416667),
    ("kto", {}, 0.49064497),
    ("apo_zero_unpaired", {}, 0.49063297),
    ("bco", {}, 0.67506757),
    ("aot_unpaired", {}, 0.65671400),
    ("cpo", {}, 1.89420681),
    ("slic", {}, 2.15052083),
    ("cpo_ipo", {"nll_weight": 0}, 25.22975260),
    ("simpo", {}, 1.00288048),
    ("simpo", {"beta": 2.5, "gamma_beta_ratio": 0.55}, 1.64643296),
    ("simpo_hinge", {}, 1.54583333),
    ("cpo_simpo", {}, 2.24506798),
    ("alphapo", {}, 1.02307837),
    ("simper", {}, 0.00685880),
    ("orpo", {}, 1.31315288),
    ("orpo", {"nll_reduction": "seq_mean"}, 1.30082649),
    ("arpo", {"nll_weight": 0}, 1.57491296),
    ("arpo", PARITY_ARPO, 1.69043480),
    ("wpo", {}, 0.43540740),
]

# At the start of training: policy = reference, or both completions alike with 10 tokens and log-probability
# -12. Value (of both completions together), and gradients with respect to the summed log-probability of the
# chosen and of the rejected completion, also where the loss averages. There is no NLL, lengths are equal, and
# the metric's gap is 0.1.
LOG_2, DPO = 0.69314718, (0.69314718, -0.05, 0.05)
START = [
    ("dpo", {}, *DPO),
    ("cdpo", {"eps": 0.1}, LOG_2, -0.04, 0.04),
    ("robust_dpo", {"eps": 0.1}, LOG_2, -0.0625, 0.0625),
    ("slic_dpo", {}, 1.0, -0.1, 0.1),
    ("ipo", {}, 25.0, -1.0, 1.0),
    ("exo", {}, 2.76123071, -0.17266887, 0.17266887),
    ("nca", {}, 1.38629436, -0.025, 0.025),
    ("bco_pair", {}, 1.38629436, -0.05, 0.05),
    ("bco", {}, 1.38629436, -0.05, 0.05),
    ("sppo", {}, 50.0, -10.0, 10.0),
    ("sppo", {"labels": "soft"}, 8.0, -4.0, 4.0),  # P 0.7: both targets are 2 away
    ("apo_zero", {}, 1.0, -0.025, 0.025),
    ("apo_zero_unpaired", {}, 1.0, -0.025, 0.025),
    ("apo_down", {}, 1.0, 0.0, 0.025),
    ("kto", {}, 1.0, -0.025, 0.025),
    ("kto_pair", {}, 1.0, -0.025, 0.025),
    ("kto_pair", {"detach_kl": False}, 1.0, -0.05, 0.05),
    ("aot", {}, *DPO),
    ("aot_unpaired", {}, *DPO),
    ("dpo_gamma", {}, 0.97407698, -0.06224593, 0.06224593),
    ("cpo", {"nll_weight": 0}, *DPO),
    ("slic", {"nll_weight": 0}, 1.0, -0.1, 0.1),
    ("cpo_ipo", {"nll_weight": 0}, 25.0, -1.0, 1.0),
    ("simpo", {"beta": 2, "gamma": 0.5}, 0.97407698, -0.12449187, 0.12449187),
    ("simpo", {"beta": 0.1, "gamma": 0.5}, 0.97407698, -0.00622459, 0.00622459),
    ("simpo_hinge", {}, 1.5, -0.2, 0.2),
    ("cpo_simpo", {}, 0.97407698, -0.12449187, 0.12449187),
    ("alphapo", {}, 0.97407698, -0.21005805, 0.21005805),
    ("simper", {}, 0.0, -0.03011942, 0.03011942),
    ("orpo", {}, 0.06931472, -0.00715506, 0.00715506),
    ("arpo", PARITY_ARPO, 1.55675868, -0.07891817, -0.00789182),
    ("arpo", {"nll_weight": 0}, 1.46328247, -0.07685248, 0.0),  # log(1 + exp(1.2)): tau is 0
    ("fpo", {"focus": 2}, 0.17328680, -0.02982868, 0.02982868),
    ("fpo", {"focus": 0.5}, 0.49012907, -0.04760857, 0.04760857),
    ("fcpo", {"focus": 2}, 0.17328680, -0.02982868, 0.02982868),
    ("focal_po", {}, 0.66953604, -0.04662298, 0.04662298),  # 2^-0.05 (log 2, 0.05 (1 - 0.05 log 2))
    ("ropo", {}, 1.91473885, -0.09955556, 0.09955556),
    ("soft_dpo", {"scale": 8.472978603872034}, LOG_2, -0.02, 0.02),  # P 0.7
    ("odpo", {}, 0.09531018, -0.00909091, 0.00909091),  # log 1.1, 0.1 / 11
    ("odpo", {"transform": "identity"}, 0.74439666, -0.05249792, 0.05249792),
    ("rebel", {}, 0.01, -0.2, 0.2),
    ("ln_dpo", {}, LOG_2, -0.25, 0.25),
    ("length_dpo", {}, *DPO),
    ("ld_dpo", {}, *DPO),
    ("sampo", {}, *DPO),
    ("rpo", {}, *DPO),
    ("dpop", {"lam": 5}, *DPO),
    ("discopop", {}, 0.84657359, 0.03921320, -0.03921320),
    ("beta_dpo", {}, *DPO),
    ("f_dpo", {}, *DPO),
    ("f_dpo", {"divergence": "js"}, LOG_2, -0.025, 0.025),
    ("f_dpo", {"divergence": "forward_kl"}, *DPO),
    ("f_dpo", {"divergence": "alpha"}, *DPO),
    ("chi_po", {}, LOG_2, -0.1, 0.1),
    ("cal_dpo", {}, 25.69314718, -5.5, 5.5),
    ("tdpo1", {}, *DPO),
    ("tdpo2", {}, *DPO),
    ("mallows_dpo", {}, LOG_2, -0.0145, 0.0145),  # an entropy of 1/e: the factor is phi
    ("pl_dpo", {}, *DPO),
    ("tr_dpo", {}, *DPO),
    ("wpo", {}, *DPO),
    ("mixed_mpo", {}, 0.83177662, -0.05, 0.05),
]
