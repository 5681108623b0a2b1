"""The trainer as a library: TRL's way to call one, any method, any form of preference data."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import set_seed
from transformers.utils import logging

from po.faults import InputFault
from po.library.config import PreferenceConfig
from po.library.data import PreferenceData
from po.library.start import choose_reference, load_policy, load_processing_class, name_of
from po.settings import speed_of
from po.training.model_card import DataFacts, facts_of, write_model_card
from po.training.sample_table import SampleTable
from po.training.trainer import MethodTrainer

logger = logging.get_logger(__name__)


class PreferenceTrainer(MethodTrainer):
    """Trains a model with a method of ``po.METHODS`` on a preference data set.

        trainer = PreferenceTrainer(
            model="my-sft-model",
            args=PreferenceConfig("out", method="dpo", beta=0.1),
            train_dataset=load_dataset("json", data_files="pairs.jsonl", split="train"),
        )
        trainer.train()

    Args:
        model: of transformers or peft, or its id or path. It is trained in place.
        ref_model: the reference, a model or its id or path. Without one it is the model before training (see
            ``po.library.start.choose_reference``). Refused for a method that has no reference.
        args: the settings; method ``dpo`` with its defaults unless given.
        data_collator: in place of ``po.training.collate.Collator``; must give the same tensors.
        train_dataset: a ``datasets.Dataset`` or a list, rows as ``po.data.forms`` has them, or of token ids.
        eval_dataset: the same, or several by name.
        processing_class: tokenizer, or processor; the model's own unless given.
        compute_metrics: not offered: a preference loss has no predictions.
        callbacks: of transformers.
        optimizers: optimizer and scheduler.
        quantization_config: for a model that is given as id or path.
        peft_config: adds adapters, which alone are trained.

    Raises:
        InputFault: models, data or settings that do not go together; says what to do.
    """

    def __init__(  # its length is that of TRL's signature
        self,
        model: Any,
        ref_model: Any = None,
        args: PreferenceConfig | None = None,
        data_collator: Callable[[list[Any]], Mapping[str, Any]] | None = None,
        train_dataset: Any = None,
        eval_dataset: Any = None,
        processing_class: Any = None,
        compute_metrics: Any = None,
        callbacks: list[Any] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        quantization_config: Any = None,
        peft_config: Any = None,
    ) -> None:
        if compute_metrics is not None:
            raise InputFault(
                "compute_metrics would get no predictions; see eval_rewards/accuracies in the log"
            )
        if isinstance(train_dataset, Mapping):
            splits = ", ".join(map(str, train_dataset))
            raise InputFault(f"train_dataset has several splits ({splits}); give one, as data['train']")
        self.start = model if isinstance(model, str) else name_of(model)
        args = PreferenceConfig(f"{Path(self.start).name}-dpo") if args is None else args
        if not isinstance(args, PreferenceConfig):
            raise InputFault(f"args is a {type(args).__name__}; give a PreferenceConfig with its options")
        set_seed(args.seed)  # new adapters are drawn
        policy = load_policy(model, args, quantization_config, peft_config)
        processing_class = load_processing_class(processing_class, policy, args)
        self.reference_choice = choose_reference(policy, ref_model, args, fresh=peft_config is not None)
        self._data = PreferenceData(args, processing_class, policy, self.reference_choice)
        rows = self._data.ready(train_dataset, "train_dataset")
        eval_rows = self._data.ready(eval_dataset, "eval_dataset")
        super().__init__(
            model=policy,
            args=args,
            train_dataset=rows,
            eval_dataset=eval_rows,
            data_collator=data_collator or self._data.collator(),
            processing_class=processing_class,
            callbacks=callbacks,
            optimizers=optimizers,
            method=args.resolved_method,
            params=args.resolved_params,
            reference=self.reference_choice.reference,
            same_start=self.reference_choice.same_start,
            router_aux_loss_coef=args.router_aux_loss_coef,
            speed=speed_of(args.speed),
        )
        self._settle(args)

    def _settle(self, args: PreferenceConfig) -> None:
        """What is left to do once all is put together; a reference that was asked before may go."""
        self._tell(args)
        if args.generate_during_eval:
            self._add_samples(args)
        self.reference_choice = self.reference_choice.without_model()
        self._data.close()

    def _tell(self, args: PreferenceConfig) -> None:
        """Names that were translated, and values that are seldom meant."""
        _, notes = self.method.canonical(args.given_params)
        for note in notes:
            logger.warning_once(note)
        for remark in self.method.advice(self.params):
            logger.warning(f"{self.method.name}: {remark}")

    def _add_samples(self, args: PreferenceConfig) -> None:
        rows = self.eval_dataset
        rows = next(iter(rows.values())) if isinstance(rows, dict) else rows
        if not rows or self.processing_class is None:
            raise InputFault("generate_during_eval needs an eval_dataset and a tokenizer (processing_class)")
        table = SampleTable(
            self.processing_class,
            rows,
            self.reference,
            args.eval_samples,
            args.eval_new_tokens,
            Path(args.output_dir) / "samples",
            self._data.images,
        )
        if self.reference_choice.asked_before is not None and not self.reference_choice.same_start:
            table.remember(self.reference_choice.asked_before)
        self.add_callback(table)

    def evaluate(
        self, eval_dataset: Any = None, ignore_keys: list[str] | None = None, metric_key_prefix: str = "eval"
    ) -> dict[str, float]:
        """The mean loss and the logged means of a data set, under TRL's names.

        Args:
            eval_dataset: as the class takes it; the one that the trainer was made with unless given.
            ignore_keys: of no use here.
            metric_key_prefix: stands before each name.

        Raises:
            InputFault: a new data set, where values of the model before training are needed.
        """
        rows = self._data.ready(eval_dataset, "eval_dataset")
        found: dict[str, float] = super().evaluate(rows, ignore_keys, metric_key_prefix)
        return found

    def predict(
        self, test_dataset: Any, ignore_keys: list[str] | None = None, metric_key_prefix: str = "test"
    ) -> Any:
        """The same as metrics of ``transformers``' PredictionOutput; there are no predictions.

        Args:
            test_dataset: as the class takes it.
            ignore_keys: of no use here.
            metric_key_prefix: stands before each name.

        Raises:
            InputFault: values of the model before training are needed.
        """
        rows = self._data.ready(test_dataset, "test_dataset")
        return super().predict(rows, ignore_keys, metric_key_prefix)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Saves the model, and its card."""
        super().save_model(output_dir, _internal_call)
        if self.args.should_save:
            self._write_card(Path(output_dir or self.args.output_dir), {})

    def create_model_card(
        self, model_name: str | None = None, dataset_name: str | None = None, **header: Any
    ) -> None:
        """Writes the card into ``output_dir``; what is pushed to the hub comes this way.

        Args:
            model_name: title of the card.
            dataset_name: id of the training data, where they do not know it themselves.
            header: more fields of the card's header: tags, language, license.
        """
        if self.is_world_process_zero():
            self._write_card(Path(self.args.output_dir), header, model_name, dataset_name)

    def _write_card(
        self,
        folder: Path,
        header: Mapping[str, Any],
        model_name: str | None = None,
        dataset_name: str | None = None,
    ) -> None:
        name = (
            model_name or (self.args.hub_model_id or Path(self.args.output_dir).resolve().name).split("/")[-1]
        )
        sets = {"training": self.train_dataset}
        if self.eval_dataset is not None:
            several = isinstance(self.eval_dataset, dict)
            evaluated = self.eval_dataset if several else {"": self.eval_dataset}
            sets |= {f"evaluation {key}".strip(): rows for key, rows in evaluated.items()}
        data = [
            DataFacts.of(use, (dataset_name if use == "training" else None) or rows.source, rows)
            for use, rows in sets.items()
            if rows is not None
        ]
        reference = self.reference_choice.description
        facts = facts_of(self, name=name, start=self.start, reference=reference, data=data)
        write_model_card(folder, dataclasses.replace(facts, header=header))
