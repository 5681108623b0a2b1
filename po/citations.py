"""Papers of the methods as BibTeX entries."""

import re
from collections.abc import Mapping
from types import MappingProxyType

from po.method import Method
from po.methods import METHODS

_OTHERS = " and others"

PAPERS: Mapping[str, tuple[str, str]] = MappingProxyType(
    {
        "1708.02002": ("Lin" + _OTHERS, "Focal Loss for Dense Object Detection"),
        "2305.10425": ("Zhao" + _OTHERS, "SLiC-HF: Sequence Likelihood Calibration with Human Feedback"),
        "2305.18290": (
            "Rafailov and Sharma and Mitchell and Ermon and Manning and Finn",
            "Direct Preference Optimization: Your Language Model is Secretly a Reward Model",
        ),
        "2309.06657": (
            "Liu" + _OTHERS,
            "Statistical Rejection Sampling Improves Preference Optimization",
        ),
        "2309.16240": (
            "Wang" + _OTHERS,
            "Beyond Reverse KL: Generalizing Direct Preference Optimization with Diverse Divergence "
            "Constraints",
        ),
        "2310.12036": (
            "Azar and Rowland and Piot and Guo and Calandriello and Valko and Munos",
            "A General Theoretical Paradigm to Understand Learning from Human Preferences",
        ),
        "2401.08417": (
            "Xu and Sharaf and Chen and Tan and Shen and Van Durme and Murray and Kim",
            "Contrastive Preference Optimization: Pushing the Boundaries of LLM Performance in Machine "
            "Translation",
        ),
        "2402.00856": (
            "Ji and Lu and Niu and Ke and Wang and Zhu and Tang and Huang",
            "Towards Efficient and Exact Optimization of Language Model Alignment",
        ),
        "2402.01306": (
            "Ethayarajh and Xu and Muennighoff and Jurafsky and Kiela",
            "KTO: Model Alignment as Prospect Theoretic Optimization",
        ),
        "2402.05369": (
            "Chen and He and Yuan and Cui and Su and Zhu",
            "Noise Contrastive Alignment of Language Models with Explicit Rewards",
        ),
        "2402.10571": ("Amini and Vieira and Cotterell", "Direct Preference Optimization with an Offset"),
        "2402.13228": (
            "Pal and Karkhanis and Dooley and Roberts and Naidu and White",
            "Smaug: Fixing Failure Modes of Preference Optimisation with DPO-Positive",
        ),
        "2403.00409": (
            "Ray Chowdhury and Kini and Natarajan",
            "Provably Robust DPO: Aligning Language Models with Noisy Feedback",
        ),
        "2403.07691": (
            "Hong and Lee and Thorne",
            "ORPO: Monolithic Preference Optimization without Reference Model",
        ),
        "2403.19159": (
            "Park and Rafailov and Ermon and Finn",
            "Disentangling Length from Quality in Direct Preference Optimization",
        ),
        "2404.04102": (
            "Liang and Chen and Qiu and Wang and Wu and Fu and Shi and Wu and Ye",
            "ROPO: Robust Preference Optimization for Large Language Models",
        ),
        "2404.04656": (
            "Jung and Han and Nam and On",
            "Binary Classifier Optimization for Large Language Model Alignment",
        ),
        "2404.09656": (
            "Gorbatovski and Shaposhnikov and Malakhov and Surnachev and Aksenov and Maksimov and Balagansky "
            "and Gavrilov",
            "Learn Your Reference Model for Real Good Alignment",
        ),
        "2404.11999": ("Zeng" + _OTHERS, "Token-level Direct Preference Optimization"),
        "2404.16767": (
            "Gao" + _OTHERS,
            "REBEL: Reinforcement Learning via Regressing Relative Rewards",
        ),
        "2404.19733": ("Pang" + _OTHERS, "Iterative Reasoning Preference Optimization"),
        "2405.00675": (
            "Wu and Sun and Yuan and Ji and Yang and Gu",
            "Self-Play Preference Optimization for Language Model Alignment",
        ),
        "2405.14734": (
            "Meng and Xia and Chen",
            "SimPO: Simple Preference Optimization with a Reference-Free Reward",
        ),
        "2405.14953": (
            "Chen and Zhao and Lam and Yao and Tang",
            "MallowsPO: Fine-Tune Your LLM with Preference Dispersions",
        ),
        "2406.05882": (
            "Melnyk and Mroueh and Belgodere and Rigotti and Nitsure and Yurochkin and Greenewald and "
            "Navratil and Ross",
            "Distributional Preference Alignment of LLMs via Optimal Transport",
        ),
        "2406.08414": (
            "Lu" + _OTHERS,
            "Discovering Preference Optimization Algorithms with and for Large Language Models",
        ),
        "2406.10957": (
            "Lu" + _OTHERS,
            "Eliminating Biased Length Reliance of Direct Preference Optimization via Down-Sampled KL "
            "Divergence",
        ),
        "2406.11827": (
            "Zhou and Agrawal and Zhang and Indurthi and Zhao and Song and Xu and Zhu",
            "WPO: Enhancing RLHF with Weighted Preference Optimization",
        ),
        "2407.08639": (
            "Wu" + _OTHERS,
            "beta-DPO: Direct Preference Optimization with Dynamic beta",
        ),
        "2407.13399": (
            "Huang" + _OTHERS,
            "Correcting the Mythos of KL-Regularization: Direct Alignment without Overoptimization via "
            "Chi-Squared Preference Optimization",
        ),
        "2408.06266": (
            "D'Oosterlinck and Xu and Develder and Demeester and Singh and Potts and Kiela and Mehri",
            "Anchored Preference Optimization and Contrastive Revisions: Addressing Underspecification in "
            "Alignment",
        ),
        "2409.06411": ("Liu" + _OTHERS, "Length Desensitization in Direct Preference Optimization"),
        "2410.03115": (
            "Xu and Murray and Koehn and Hoang and Eriguchi and Khayrallah",
            "X-ALMA: Plug and Play Modules and Adaptive Rejection for Quality Translation at Scale",
        ),
        "2411.10442": (
            "Wang" + _OTHERS,
            "Enhancing the Reasoning Ability of Multimodal Large Language Models via Mixed Preference "
            "Optimization",
        ),
        "2411.15124": (
            "Lambert" + _OTHERS,
            "Tulu 3: Pushing Frontiers in Open Language Model Post-Training",
        ),
        "2412.14516": (
            "Xiao" + _OTHERS,
            "Cal-DPO: Calibrated Direct Preference Optimization for Language Model Alignment",
        ),
        "2501.03884": ("Gupta" + _OTHERS, "AlphaPO: Reward Shape Matters for LLM Alignment"),
        "2501.06645": (
            "Liu" + _OTHERS,
            "FocalPO: Enhancing Preference Optimizing by Focusing on Correct Preference Rankings",
        ),
        "2502.00883": (
            "Xiao and Yuan and Chen and Li and Liang and Ren and Honavar",
            "SimPER: A Minimalist Approach to Preference Alignment without Hyperparameters",
        ),
    }
)
"""arXiv id -> surnames of the authors, title."""

_NO_PAPER = ("maximum likelihood", "a weighted sum")
_ARXIV = re.compile(r"arXiv:(\d{4}\.\d{5})")


def cited(method: Method) -> tuple[Method, ...]:
    """A method and those of which it is put together, as in ``wpo(ipo)``; each once."""
    parts = [METHODS[name] for name in re.findall(r"\w+", method.name) if name in METHODS]
    return tuple({part.name: part for part in (method, *parts)}.values())


def citations(method: Method) -> tuple[str, ...]:
    """BibTeX entries of the papers of a method and its parts, each once; a source without one has a note."""
    found: dict[str, str] = {}
    for part in cited(method):
        ids = _ARXIV.findall(part.paper)
        if part.paper not in _NO_PAPER:
            found |= {arxiv: _of_arxiv(arxiv) for arxiv in ids} or {part.paper: _of_note(part)}
    return tuple(found.values())


def _of_arxiv(arxiv: str) -> str:
    authors, title = PAPERS[arxiv]
    year = f"20{arxiv[:2]}"
    first = re.sub(r"\W", "", authors.partition(" and ")[0]).lower()
    return _entry(
        f"{first}{year}{_word(title)}",
        title=f"{{{title}}}",
        author=authors,
        year=year,
        eprint=arxiv,
        archivePrefix="arXiv",
        url=f"https://arxiv.org/abs/{arxiv}",
    )


def _of_note(method: Method) -> str:
    return _entry(method.name, title=f"{{{method.name}}}", note=method.paper)


def _word(title: str) -> str:
    """The first word of a title that says something, for a key."""
    words = (re.sub(r"\W", "", word).lower() for word in title.split())
    return next(word for word in words if len(word) > 2)


def _entry(key: str, **fields: str) -> str:
    lines = ",\n".join(f"  {name} = {{{value}}}" for name, value in fields.items())
    return f"@misc{{{key},\n{lines}\n}}"
