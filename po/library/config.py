"""Settings of a training as a library: transformers' arguments, a method and its hyperparameters."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from transformers import TrainingArguments
from transformers.utils import is_torch_bf16_gpu_available

from po.data import EncodeSettings
from po.faults import InputFault
from po.library.method_keywords import KEYWORDS, keyword_fields, where_else
from po.library.trl_options import MOVED, moved
from po.methods import resolve
from po.methods.aliases import ADVICE
from po.methods.hyperparameters import ParameterError, ParamValue, nearest
from po.methods.method import Method

_MethodKeywords: Any = dataclasses.make_dataclass(
    "_MethodKeywords", keyword_fields(), bases=(TrainingArguments,), repr=False
)


def _about(default: Any, text: str) -> Any:
    return field(default=default, metadata={"help": text})


@dataclass(repr=False)
class _Fields(_MethodKeywords):  # type: ignore[misc]
    """The fields of a `PreferenceConfig`, without its checks."""

    _VALID_DICT_FIELDS: ClassVar[list[str]] = [
        *TrainingArguments._VALID_DICT_FIELDS,
        "params",
        "model_init_kwargs",
        "speed",
    ]

    learning_rate: float = _about(1e-6, "The initial learning rate.")
    logging_steps: float = _about(10, "Steps between two logs; below 1 a share of all steps.")
    gradient_checkpointing: bool = _about(True, "Compute activations again to save memory.")
    bf16: bool | None = _about(None, "Compute in bfloat16; unless set, where a GPU can and fp16 is off.")
    remove_unused_columns: bool = _about(False, "Always false: the method decides which columns it reads.")

    method: str = _about("dpo", "Id, alias ('dpo:hinge') or expression ('wpo(ipo)') of a method.")
    params: dict[str, Any] | str | None = _about(None, "Hyperparameters that are no option of their own.")
    max_length: int | None = _about(1024, "Limit of prompt and completion together, in tokens.")
    max_prompt_length: int | None = _about(None, "Limit of the prompt, in tokens.")
    max_completion_length: int | None = _about(None, "Limit of a completion, EOS counted, in tokens.")
    truncation: str = _about("keep_end", "Which end of a prompt is kept: keep_end or keep_start.")
    over_long: str = _about("truncate", "Rows over a limit: truncate, drop or error.")
    equal_pairs: str = _about("drop", "Pairs of the same tokens: drop, keep or error.")
    duplicates: str = _about("keep", "Rows that were there before: keep, drop or error.")
    empty: str = _about("error", "Rows with an empty prompt or completion: error or drop.")
    disable_dropout: bool = _about(True, "Switch dropout off in policy and reference.")
    precompute_ref_log_probs: bool = _about(False, "Ask the reference once, before training.")
    router_aux_loss_coef: float = _about(0.001, "Weight of the router's loss of a mixture of experts.")
    generate_during_eval: bool = _about(False, "Write a table of samples at each evaluation.")
    eval_samples: int = _about(4, "Prompts in that table.")
    eval_new_tokens: int = _about(64, "Longest sample in that table, in tokens.")
    speed: dict[str, Any] | str | None = _about(None, "How steps are computed, see docs/speed.md.")
    model_init_kwargs: dict[str, Any] | str | None = _about(None, "For from_pretrained, with a model's id.")
    trust_remote_code: bool = _about(False, "Run code that comes with a model or tokenizer.")


class PreferenceConfig(_Fields):
    """Arguments of a `PreferenceTrainer`: those of ``transformers.TrainingArguments`` and these.

    Every hyperparameter and option of every method is a keyword, under every name that is understood
    (``beta``, ``label_smoothing``, ``simpo_gamma``, ``desirable_weight``, ...). One that the chosen method
    does not have is refused. Those of expressions (``mix(ipo, sft)`` has ``ipo_tau``) are keywords too.

    The learning rate (1e-6), the steps between logs (10), gradient checkpointing (on) and bf16 (on where a
    GPU has it) start as in TRL.

    Args:
        method: id, alias or expression of a method, see ``po.methods.resolve``.
        params: hyperparameters by name, as an alternative to keywords.
        max_length: prompt and completion together, in tokens; None for no limit. Then, and for the two that
            follow, `over_long` says what is done.
        max_prompt_length: in tokens.
        max_completion_length: in tokens, the EOS counted.
        truncation: which end of a prompt is kept where it is cut. Completions are cut at their end.
        over_long: ``truncate``, ``drop`` or ``error``; with equal_pairs, duplicates and empty see
            ``po.data.EncodeSettings``. All are counted, and told in a line.
        disable_dropout: switch dropout off.
        precompute_ref_log_probs: ask the reference once, before training; it then needs no memory. Not with
            fp16: values are stored in float32, or as bf16 has them.
        router_aux_loss_coef: weight of the router's loss of a mixture of experts.
        generate_during_eval: write a table of samples at each evaluation, see ``po.training.sample_table``.
        eval_samples: prompts in it.
        eval_new_tokens: longest sample in it.
        speed: how steps are computed, by the names of docs/speed.md. With fp16 the head is ``recompute``.
        model_init_kwargs: keyword arguments of ``from_pretrained`` where the model is given as id or path.
        trust_remote_code: run code that comes with a model or tokenizer.

    Raises:
        InputFault: an option is unknown, or one of TRL's that is something else here; it says what.
        ParameterError: the method does not have, or does not allow, a hyperparameter.
        MethodError: there is no such method.
    """

    def __init__(self, *args: Any, **keywords: Any) -> None:
        known = {entry.name for entry in dataclasses.fields(self) if entry.init}
        others = {name: keywords.pop(name) for name in sorted(set(keywords) - known)}
        wanted = {name: value for name, value in others.items() if value is not None and name not in MOVED}
        # what TRL leaves off by default is no wish
        for name in sorted(set(others) & set(MOVED)):
            if others[name] not in (None, False):
                raise InputFault(moved(name, others[name]))
        if wanted:
            _check_names(wanted, keywords.get("method", self.method), known)
            keywords["params"] = _together(keywords.get("params"), wanted)
        super().__init__(*args, **keywords)

    def __post_init__(self) -> None:
        """Fills in what depends on the machine, and checks."""
        if self.bf16 is None:
            self.bf16 = not self.fp16 and not self.use_cpu and is_torch_bf16_gpu_available()
        self.remove_unused_columns = False
        super().__post_init__()
        if isinstance(self.params, str):
            raise InputFault(f'params is "{self.params}"; on a command line it is JSON: \'{{"beta": 0.1}}\'')
        self._refuse_what_would_do_nothing()
        if self.precompute_ref_log_probs and self.resolved_method.needs_live_reference:
            raise InputFault(
                f"{self.method} asks its reference in every step, so nothing can be computed before; leave "
                "precompute_ref_log_probs out"
            )
        if self.precompute_ref_log_probs and self.fp16:
            raise InputFault(
                "precompute_ref_log_probs asks the reference in float32 or bfloat16; under fp16 policy and "
                "reference would not agree: leave precompute_ref_log_probs out, or take bf16"
            )
        self.encode_settings(encoder_decoder=False)
        self.resolved_params  # noqa: B018 - checks them

    def _refuse_what_would_do_nothing(self) -> None:
        """Options of transformers, and of ours, that this training would not read."""
        method = self.resolved_method
        useless = {
            "use_liger_kernel would replace the forward that scores completions": self.use_liger_kernel,
            "label_smoothing_factor is of losses on labels; label noise is eps, of cdpo and others": (
                self.label_smoothing_factor
            ),
            "neftune_noise_alpha would make policy and reference disagree": self.neftune_noise_alpha,
            "train_sampling_strategy 'group_by_length' reads input_ids, which rows of pairs have not": (
                self.train_sampling_strategy == "group_by_length"
            ),
            f"precompute_ref_log_probs is for methods with a reference, and {method.name} has none": (
                self.precompute_ref_log_probs and not method.needs_reference
            ),
        }
        for reason, given in useless.items():
            if given:
                raise InputFault(f"{reason}; leave it out")

    @property
    def resolved_method(self) -> Method:
        """The method."""
        return resolve(self.method)

    @property
    def given_params(self) -> dict[str, ParamValue]:
        """Hyperparameters and options that were given, under the names that they were given by."""
        given = {name: getattr(self, name, None) for name in KEYWORDS}
        return _together(self.params, {name: value for name, value in given.items() if value is not None})

    @property
    def resolved_params(self) -> dict[str, ParamValue]:
        """Every hyperparameter and option of the method, with its value.

        Raises:
            ParameterError: as the class says.
        """
        given = self.given_params
        try:
            return self.resolved_method.check_params(given)
        except ParameterError as error:
            known = {*self.resolved_method.rules, *ADVICE}
            more = {name: "" if name in known else where_else(name) for name in error.faults}
            raise ParameterError({name: text + more[name] for name, text in error.faults.items()}) from None

    def encode_settings(self, *, encoder_decoder: bool) -> EncodeSettings:
        """How texts become token ids.

        Args:
            encoder_decoder: whether the model is one.

        Raises:
            InputFault: a value that is not allowed.
        """
        names = {entry.name for entry in dataclasses.fields(EncodeSettings)} & set(vars(self))
        settings = {name: getattr(self, name) for name in names}
        return EncodeSettings(**settings, encoder_decoder=encoder_decoder)

    def to_dict(self) -> dict[str, Any]:
        """All that was used, for logs: hyperparameters of the method under their names here, no others."""
        found: dict[str, Any] = super().to_dict()
        values = self.resolved_params
        for name in KEYWORDS:
            found.pop(name, None)
        fields = {entry.name for entry in dataclasses.fields(self)}
        found |= {name: value for name, value in values.items() if name in fields}
        found["params"] = {name: value for name, value in values.items() if name not in fields} or None
        return found


def _check_names(wanted: Mapping[str, Any], method: str, known: set[str]) -> None:
    """Refuses names that neither the method nor any other has."""
    chosen = resolve(method)
    names = {*chosen.rules, *chosen.parameter_aliases, *KEYWORDS, *ADVICE}
    for name in wanted:
        if name not in names:
            guess = nearest(name, [*known, *names, *MOVED])
            raise InputFault(f"PreferenceConfig has no option '{name}'{guess}")


def _together(params: Any, more: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = dict(params or {})
    twice = sorted(set(found) & set(more))
    if twice:
        raise InputFault(f"{twice[0]} is given both in params and as a keyword; give it once")
    return found | dict(more)
