"""The one trainer: transformers' Trainer with a loss from the table of methods."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import Trainer

from po.engine.forward import attach_engine, completion_values, shares_prompts
from po.engine.routers import has_router
from po.methods.loss_state import LossState
from po.methods.method import Method
from po.models.loading import drops_out
from po.models.sharding import keep_answers_exact
from po.references.moving import FollowPolicy, MovingReference
from po.references.sources import LiveReference, Reference
from po.settings import SpeedSettings
from po.training.arguments import check_one_device
from po.training.collate import mismatched_part, text_part
from po.training.finite import FiniteLosses
from po.training.kernels import use_kernels
from po.training.log import RunningMeans, has_line, record
from po.training.one_pass import is_separable, separable_loss
from po.training.piecewise import Piecewise, obstacle
from po.training.quantities import Quantities, StepCounts, once
from po.training.repeats import marked
from po.training.start_checks import FirstStepChanges, check_agreement, check_classes, check_scope

_STATE = "loss_state.json"


class MethodTrainer(Trainer):  # type: ignore[misc]
    """Trains a language model on rows of token ids with a method of ``po.methods``.

    The gradient of an optimizer step is that of the mean loss over its examples, whatever the split into
    micro-batches and processes; a ``token_batch`` likelihood term is normalized by the chosen tokens of the
    whole step. Methods marked ``batch_coupled`` see one micro-batch at a time. The logged loss is that mean,
    averaged over the steps since the last log. In evaluation it is a mean over batches, each by its own
    tokens: with a ``token_batch`` likelihood it depends a little on the size of evaluation's batches.
    ``po.training.repeats`` tells of the last step of an epoch with several processes.

    The log has what TRL logs, under its names: ``rewards/*`` (of log-probabilities as the loss sees them,
    summed or averaged), ``logps/*`` (summed), ``nll_loss``, ``aux_loss``; and ``logps_mean/*`` (per token),
    ``logratio/*`` (policy - reference, summed) and ``logratio_mean/*`` (per token). Where TRL logs summed
    rewards for a method that averages (IPO), they are its ``tau`` times ``logratio/*``. Of the completion
    tokens of steps that end with a line in the log (and of the last step): ``logits/*``, the mean logit, and
    ``entropy/*``, in units of log(vocabulary); not of an encoder-decoder model.

    Args:
        method: entry of the table, or one put together.
        params: hyperparameters and options, as ``method.check_params`` returns them.
        reference: what knows the reference's values; needed where the method does.
        same_start: the reference is the policy before its first step, which is checked.
        router_aux_loss_coef: weight of the load-balancing loss of a mixture of experts; others have none.
        speed: how steps are computed. Under fp16 the head is ``recompute``: one pass rounds before scaling.

    Raises:
        InputFault: several GPUs in one process, or a model or rows that the method cannot learn with.
        ValueError: the reference is missing, or cannot move.
    """

    def __init__(
        self,
        *args: Any,
        method: Method,
        params: Mapping[str, Any],
        reference: Reference | None = None,
        same_start: bool = False,
        router_aux_loss_coef: float = 0.0,
        speed: SpeedSettings | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        check_one_device(self.args.n_gpu)
        keep_answers_exact(self.accelerator)
        if method.needs_reference and reference is None:
            raise ValueError(f"{method.name} compares with a reference; give one")
        self.method, self.params = method, dict(params)
        self.quantities = Quantities(method, self.params)
        self.loss_state = method.state() if method.state is not None else LossState()
        self.reference = reference if method.needs_reference else None
        self._same_start = same_start
        self.loss_is_scaled_for_ga = True
        self.model_accepts_loss_kwargs = False
        self._means = {"train": RunningMeans(), "eval": RunningMeans()}
        self._step = StepCounts(0, 0)
        self._micro_batch = 0
        check_scope(self.quantities.asked, self.model)
        if method.data == "unpaired" and self.train_dataset is not None:
            check_classes(method, params, self.train_dataset, self.args.per_device_train_batch_size)
        self.speed = speed = speed or SpeedSettings()
        attach_engine(self.model, sharing=speed.sharing == "auto")
        if isinstance(self.reference, LiveReference):
            self.reference.place(self.accelerator.device)
            attach_engine(self.reference.model, sharing=speed.sharing == "auto")
        use_kernels(self.model, speed)
        scaled = self.accelerator.mixed_precision == "fp16"
        self._one_pass = speed.head == "fused" and not scaled and is_separable(method, self.quantities)
        routed = router_aux_loss_coef > 0 and has_router(self.accelerator.unwrap_model(self.model))
        self.router_aux_loss_coef = router_aux_loss_coef if routed else 0.0
        self.piecewise = self._split_by(speed)
        for watcher in (FirstStepChanges(), FiniteLosses()):
            self.add_callback(watcher)
        self._moving = self._follow() if method.reference_sync else None

    def _follow(self) -> MovingReference:
        if not isinstance(self.reference, MovingReference):
            raise ValueError(f"{self.method.name} moves its reference; give a MovingReference")
        steps, mix = int(self.params["sync_steps"]), float(self.params["sync_mix"])
        self.add_callback(FollowPolicy(self.reference, steps, mix))
        return self.reference

    def _split_by(self, speed: SpeedSettings) -> Piecewise:
        optimizer = str(self.args.optim.value)
        reason = obstacle(self.method, self.accelerator, optimizer, router=self.router_aux_loss_coef > 0)
        model = self.accelerator.unwrap_model(self.model)
        shared = shares_prompts(model) and not drops_out(model)
        return Piecewise(
            self.accelerator, self.method, obstacle=reason, shared=shared, budget=speed.token_budget
        )

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], None]:
        """The micro-batches of an optimizer step, after counting its examples and tokens everywhere."""
        samples, _ = super().get_batch_samples(epoch_iterator, num_batches, device)
        samples = marked(samples, self.method, self.accelerator.gradient_state)
        counts = [self.quantities.counts(batch) for batch in samples]
        found = torch.tensor([[c.examples, c.tokens] for c in counts], device=device).sum(dim=0)
        self._step = StepCounts(*self.accelerator.reduce(found, reduction="sum").tolist())
        self._micro_batch = 0
        return samples, None

    def training_step(self, model: Any, inputs: dict[str, Tensor], num_items_in_batch: Any = None) -> Tensor:
        """Loss of a micro-batch after its backward pass, which is done in pieces; see ``Piecewise``."""
        whole = super().training_step

        def step(piece: Mapping[str, Tensor]) -> Tensor:
            loss: Tensor = whole(model, dict(piece), num_items_in_batch)
            return loss

        return self.piecewise.run(model, self.optimizer, inputs, step, self._means["train"].snapshot())

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Any = None,
    ) -> Any:
        """Share of this micro-batch in the step's mean loss; in evaluation, the mean loss of the batch."""
        training = model.training
        counted = self.quantities.counts(inputs)
        step = self._step if training else counted
        losses, aux = self._losses(model, inputs, step, training=training)
        # Gradients and logged losses are averaged over processes.
        scale = self.accelerator.num_processes if training else 1
        examples = self.quantities.layout.examples(inputs)
        loss = losses.sum() * (examples / len(losses) * scale / step.examples)
        if aux is not None:
            loss = loss + self.router_aux_loss_coef * aux * (counted.examples * scale / step.examples)
        return (loss, {"losses": losses.detach()}) if return_outputs else loss

    def _losses(
        self, model: Any, batch: dict[str, Tensor], step: StepCounts, *, training: bool
    ) -> tuple[Tensor, Tensor | None]:
        """The losses of a batch, one per example unless the method says otherwise, and the router's."""
        asked = self.quantities.asked
        reference: Any = None
        more: dict[str, Any] = {}
        if self.reference is not None:
            with self.accelerator.autocast():  # the policy has it by itself
                reference = self.reference.values(batch, self.quantities.asked_reference)
            if asked.kl:
                more["reference_distributions"] = reference["distributions"]
        routed, looked_at = self.router_aux_loss_coef > 0, training and self._is_logged()
        asked = replace(asked, router=routed, logged=looked_at)
        if training and self._one_pass:
            more["separable"] = separable_loss(self.quantities, self._loss, batch, reference, step)
        policy, lengths = completion_values(model, text_part(batch), asked, **more)
        if training and reference is not None:
            self._check_start(policy["logps"], reference["logps"], lengths)
        values = self.quantities.of(batch, policy, reference, lengths, step, self._generator(training))
        if "policy_mismatched" in self.loss_state.reads:
            values |= self._mismatched(model, batch)
        provided = self.loss_state.measure(values, self.params, self._total, training=training)
        values |= {name: value.to(lengths.device) for name, value in provided.items()}
        losses = once(self._loss(values), batch)
        if (surrogate := policy.get("surrogate")) is not None:
            losses = losses + (surrogate - surrogate.detach()) / len(losses)
        means = self._means["train" if training else "eval"]
        record(means, self.quantities, batch, values, (policy, reference, lengths))
        if "aux_loss" in policy:
            means.add("aux_loss", policy["aux_loss"].reshape(1))
        return losses, policy.get("aux_loss")

    def _loss(self, values: Mapping[str, Tensor]) -> Tensor:
        taken = {name: values[name] for name in self.method.inputs if name in values}
        losses: Tensor = self.method.loss(**taken, **self.method.loss_arguments(self.params))
        return losses

    def _is_logged(self) -> bool:
        """Whether this step ends with a line in the log; what costs time is measured for these only."""
        encodes = self.accelerator.unwrap_model(self.model).config.is_encoder_decoder
        last = self.accelerator.gradient_state.end_of_dataloader
        return not encodes and has_line(self.args, self.state, last_of_epoch=last)

    def _check_start(self, policy: Tensor, reference: Tensor, lengths: Tensor) -> None:
        if self._same_start and self.state.global_step == 0:
            model = self.accelerator.unwrap_model(self.model)
            bf16 = self.args.bf16 or model.dtype == torch.bfloat16
            check_agreement(policy.detach(), reference, lengths, model, bf16=bf16)
            self._same_start = False

    @torch.no_grad()
    def _mismatched(self, model: Any, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """Policy and reference on the completions of other prompts."""
        assert self.reference is not None  # a KL is measured against one
        policy = completion_values(model, mismatched_part(batch))[0]["logps"]
        with self.accelerator.autocast():
            reference = self.reference.mismatched(batch)
        return {"policy_mismatched": policy, "reference_mismatched": reference}

    def _total(self, values: Tensor) -> Tensor:
        total: Tensor = self.accelerator.reduce(values, reduction="sum")
        return total

    def _generator(self, training: bool) -> torch.Generator:
        """What a rule draws tokens with; a resumed run draws the same."""
        place = (self.state.global_step, self._micro_batch, self.accelerator.process_index)
        self._micro_batch += training
        seed = self.args.seed if training else self.args.seed + 1
        generator = torch.Generator()
        generator.manual_seed(hash((seed, *(place if training else ()))) % 2**63)
        return generator

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluates; training then goes on with the random numbers that it would have drawn without."""
        devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
        with torch.random.fork_rng(devices):  # a loader draws a seed for its workers, be there none
            found: dict[str, float] = super().evaluate(*args, **kwargs)
        return found

    def evaluation_loop(
        self,
        dataloader: Any,
        description: str,
        prediction_loss_only: bool | None = None,
        ignore_keys: list[str] | None = None,
        metric_key_prefix: str = "eval",
    ) -> Any:
        """The mean loss of a data set and the logged means, for `evaluate` and for `predict`."""
        means = self._means["eval"] = RunningMeans()
        found = super().evaluation_loop(
            dataloader, description, prediction_loss_only, ignore_keys, metric_key_prefix
        )
        taken = means.take(self.accelerator)
        found.metrics.update({f"{metric_key_prefix}_{name}": mean for name, mean in taken.items()})
        return found

    def prediction_step(
        self, model: Any, inputs: dict[str, Any], prediction_loss_only: bool, ignore_keys: Any = None
    ) -> Any:
        """The loss of an evaluation batch, divided by its own examples; there are no predictions."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds training's means since the last log, over all processes."""
        if "loss" in logs:
            logs |= self._means["train"].take(self.accelerator)
        super().log(logs, *args, **kwargs)

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Adds what the loss remembers, and the weights of a reference that moves."""
        super()._save_checkpoint(model, trial)
        folder = Path(self._get_output_dir(trial=trial)) / f"checkpoint-{self.state.global_step}"
        if self.args.should_save and (state := self.loss_state.state_dict()):
            (folder / _STATE).write_text(json.dumps(state), encoding="utf-8")
        if self._moving is not None:
            self._moving.save(folder, writes=self.args.should_save)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Takes up what ``_save_checkpoint`` added."""
        super()._load_optimizer_and_scheduler(checkpoint)
        if checkpoint is None:
            return
        saved = Path(checkpoint) / _STATE
        if saved.is_file():
            self.loss_state.load_state_dict(json.loads(saved.read_text(encoding="utf-8")))
        if self._moving is not None:
            self._moving.load(Path(checkpoint))
