"""A training whose loss is no number any more has lost its weights: it ends at once, and says so."""

import math
from collections.abc import Mapping
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from po.faults import InputFault


class FiniteLosses(TrainerCallback):  # type: ignore[misc]
    """Looks at each line of the log, so that nothing is asked of the device for it."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Checks the loss and, but under fp16, whose scaler tries large scales out, the gradients' norm.

        Raises:
            InputFault: one of them is NaN or infinite.
        """
        for name in ("loss",) if args.fp16 else ("loss", "grad_norm"):
            value = (logs or {}).get(name)
            if isinstance(value, int | float) and not math.isfinite(value):
                raise InputFault(
                    f"step {state.global_step}: {name} is {value}, and the weights are lost from here on; "
                    f"lower learning_rate ({args.learning_rate:g}) or max_grad_norm "
                    f"({args.max_grad_norm:g}), or warm up for longer"
                )
