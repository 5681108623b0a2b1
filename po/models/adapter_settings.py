"""What a manifest says of a model's adapters (LoRA)."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from po.faults import InputFault
from po.methods.hyperparameters import nearest

REFERENCES = ("off", "copy", "merged")
INITIAL: Mapping[str, bool | str] = MappingProxyType({"kaiming": True, "gaussian": "gaussian"})
"""How new adapters are drawn, and peft's word for it; with either, they change nothing before training."""


@dataclass(frozen=True, kw_only=True)
class AdapterSettings:
    """Low-rank adapters (LoRA, arXiv:2106.09685): W + scale·B·A with A of r rows, drawn, and B, zero.

    Attributes:
        r: rank.
        alpha: the scale is alpha / r; with ``rslora``, alpha / sqrt(r).
        dropout: chance to drop an input of an adapter in training.
        target_modules: ``all-linear`` (all but the head), or the last parts of modules' names.
        modules_to_save: modules that are trained whole, such as ``lm_head``.
        rslora: scale for high ranks (arXiv:2312.03732).
        dora: train the length of each weight vector apart from its direction (arXiv:2402.09353).
        init: how A is drawn, one of `INITIAL`.
        reference: one of `REFERENCES`.
    """

    r: int = 16
    alpha: float = 32.0
    dropout: float = 0.0
    target_modules: str | Sequence[str] = "all-linear"
    modules_to_save: Sequence[str] = ()
    rslora: bool = False
    dora: bool = False
    init: str = "kaiming"
    reference: str = "off"

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> "AdapterSettings":
        """Those that are given, as a manifest has them; defaults for the rest.

        Raises:
            InputFault: an unknown word.
        """
        known = [field.name for field in dataclasses.fields(cls)]
        for name in given:
            if name not in known:
                raise InputFault(f"an adapter has no setting '{name}'{nearest(name, known)} It has: {known}.")
        choices = {"init": tuple(INITIAL), "reference": REFERENCES}
        for name, allowed in choices.items():
            value = given.get(name, allowed[0])
            if value not in allowed:
                message = f"adapter.{name} cannot be '{value}'{nearest(str(value), allowed)}"
                raise InputFault(f"{message} It may be: {', '.join(allowed)}.")
        return cls(**given)

    def config(self, *, encoder_decoder: bool) -> Any:
        """The same in peft's words."""
        from peft import LoraConfig

        targets = self.target_modules
        return LoraConfig(
            task_type="SEQ_2_SEQ_LM" if encoder_decoder else "CAUSAL_LM",
            r=self.r,
            lora_alpha=self.alpha,
            lora_dropout=self.dropout,
            target_modules=targets if isinstance(targets, str) else list(targets),
            modules_to_save=list(self.modules_to_save) or None,
            use_rslora=self.rslora,
            use_dora=self.dora,
            init_lora_weights=INITIAL[self.init],
        )
