"""Makes a language model answer with what losses need: values of completions in place of logits.

``attach_engine(model)`` lets ``model(..., completion_mask=...)`` return a dict. The call goes through the
model's own ``forward``, so wrappers (DDP, FSDP, autocast, adapters) see it as any other call; without
``completion_mask`` the model answers as before. This is the only place with masks and shifts.
"""

import inspect
import types
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from po.engine.encoder_decoders import encoder_decoder_values
from po.engine.fused import Separable, fused_rows, pays
from po.engine.heads import plain_head
from po.engine.images import token_marks
from po.engine.known_head import head_is_known, head_of
from po.engine.lengths import group_count, length_groups
from po.engine.logps import distributions, of_logits, token_statistics
from po.engine.packing import Packed, pack
from po.engine.routers import balance_loss
from po.engine.sharing import let_share, packed_states
from po.engine.token_values import Asked, row_values
from po.models.loading import drops_out
from po.models.sharding import is_sharded, least, most

_MASK = "completion_mask"
_BEFORE = {"past_key_values", "inputs_embeds"}  # what stands in front of a batch's tokens, or in their place


def attach_engine(model: Any, *, sharing: bool = True) -> Any:
    """Lets ``model(..., completion_mask=..., asked=...)`` return values of completions, not logits.

    A model with adapters is attached below them. Where the head of the architecture is not known here (one
    that scales its logits, say), the model's own logits are used: right, but slower and larger; a warning
    says so.

    Args:
        model: a language model of transformers.
        sharing: computes the prompt of several completions once, and no padding, where the architecture
            allows that; False for padded rows.

    Returns:
        The model.
    """
    target = model.get_base_model() if hasattr(model, "get_base_model") else model
    if not _is_attached(target):
        target._own_head = not target.config.is_encoder_decoder and head_is_known(target)
        target._can_share = None  # not tried yet
        target._plain_forward = target.forward
        target.forward = types.MethodType(_signed_like(type(target).forward), target)
    if sharing and target._can_share is None:
        target._can_share = not target.config.is_encoder_decoder and let_share(target)
    target._shares = sharing and target._can_share
    return model


def _is_attached(model: Any) -> bool:
    """Whether the model's ``forward`` is ours, wrapped or not; that of a model from ``torch.load`` is not."""
    forward = inspect.unwrap(model.__dict__.get("forward", _is_attached))
    return getattr(forward, "_is_engine", False)


def shares_prompts(model: Any) -> bool:
    """Whether rows of a model that ``attach_engine`` has prepared are packed, each prompt computed once."""
    target = model.get_base_model() if hasattr(model, "get_base_model") else model
    return bool(target._shares)


def _signed_like(plain: Callable[..., Any]) -> Callable[..., Any]:
    """`_forward` with another signature: generation looks there for whether it may pass positions."""

    def forward(self: Any, *args: Any, **kwargs: Any) -> Any:
        return _forward(self, *args, **kwargs)

    forward.__signature__ = inspect.signature(plain)  # type: ignore[attr-defined]
    forward._is_engine = True  # type: ignore[attr-defined]
    return forward


def completion_values(
    model: nn.Module, batch: Mapping[str, Tensor], asked: Asked | None = None, **more: Any
) -> tuple[dict[str, Tensor], Tensor]:
    """Values of each row's completion, and the number of its tokens.

    Token t is scored by the hidden state at t - 1 (in an encoder-decoder model: by the decoder's output at
    t). Prompt and padding contribute exactly 0; the end-of-sequence token of a completion counts, as it
    stands in the mask.

    Args:
        model: a language model of transformers after ``attach_engine``, as it is or wrapped for distributed
            training.
        batch: ``input_ids``, ``attention_mask`` and ``completion_mask``, each (rows, length), padded on the
            right, and what else the model's forward takes (``pixel_values``). For an encoder-decoder model
            ``input_ids`` and ``attention_mask`` are the prompts, ``completion_ids`` and ``completion_mask``
            (rows, tokens) the completions, ``prompt_rows`` (rows,) says whose prompt each has. For others
            ``prompt_rows`` may name the first row with the same prompt, which is then computed once.
        asked: which values; summed log-probabilities unless given.
        more: passed to the model; ``reference_distributions`` for ``kl``; ``separable`` for a loss whose
            gradients can be had in one pass, where they can: then the values carry none, and ``surrogate``
            does (``po.engine.fused``).

    Returns:
        Values by name, (rows,) unless ``Asked`` says otherwise; counts, (rows,).

    Raises:
        ValueError: a row has no completion token (an empty completion is a fault of the data), or its
            completion begins at position 0, where nothing predicts it.
    """
    mask = batch[_MASK]
    lengths = mask.sum(dim=1)
    starts_blind = mask[:, 0] if "completion_ids" not in batch else torch.zeros_like(mask[:, 0])
    unscorable = (lengths == 0) | starts_blind
    if bool(unscorable.any()):
        row = int(unscorable.nonzero()[0])
        if lengths[row] == 0:
            raise ValueError(f"row {row} of the batch has no completion token; remove empty completions")
        raise ValueError(
            f"the completion of row {row} starts at position 0, where no token predicts it; give it a prompt"
        )
    found = model(**batch, asked=asked or Asked(), **more)
    if type(found) is not dict:
        raise TypeError(
            f"{type(model).__name__} answers with {type(found).__name__}: something had taken its forward "
            "before attach_engine; attach first, wrap then"
        )
    return found, lengths


def completion_logps(model: nn.Module, batch: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Summed log-probability of each row's completion, in nats, and its number of tokens; both (rows,)."""
    values, lengths = completion_values(model, batch)
    return values["logps"], lengths


def _forward(self: Any, *args: Any, **kwargs: Any) -> Any:
    """Stands in for the model's ``forward``; with a completion mask, answers with a dict."""
    if _MASK not in kwargs:
        return self._plain_forward(*args, **kwargs)
    kwargs = {name: value for name, value in kwargs.items() if value is not None}  # peft adds labels=None
    if self.config.is_encoder_decoder:
        kwargs.pop("separable", None)
        return encoder_decoder_values(self, **kwargs)
    return _decoder_values(self, **kwargs)


def _decoder_values(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_mask: Tensor,
    asked: Asked,
    prompt_rows: Tensor | None = None,
    separable: Separable | None = None,
    reference_distributions: Tensor | None = None,
    **extra: Tensor,
) -> dict[str, Tensor]:
    if attention_mask.shape != input_ids.shape or not extra.keys().isdisjoint(_BEFORE):
        raise ValueError(
            "the model is given more than the batch has: prefixes, as of prompt tuning, do not go"
        )
    if extra:
        extra |= token_marks(model, input_ids)
    elif model._shares and not (model.training and drops_out(model)):
        part = _Rows(input_ids, attention_mask, completion_mask)
        row = pack(input_ids, attention_mask, completion_mask, prompt_rows)
        result, router_logits = _values(
            model, part, asked, reference_distributions, {}, row, separable=separable
        )
        if asked.router:
            result["aux_loss"] = balance_loss(model, [router_logits])
        return result
    whole = bool(extra) or asked.distributions or reference_distributions is not None
    everything = (torch.arange(len(input_ids), device=input_ids.device), input_ids.shape[1])
    groups = [everything] if whole else length_groups(attention_mask, _agreed_groups(model, input_ids))
    found, gates = [], []
    for rows, end in groups:
        part = _Rows(input_ids[rows, :end], attention_mask[rows, :end], completion_mask[rows, :end])
        values, router_logits = _values(model, part, asked, reference_distributions, extra)
        found.append(values)
        gates.append(router_logits)
    order = torch.cat([rows for rows, _ in groups]).argsort()
    result = asked.together(found, order)
    if asked.router:
        result["aux_loss"] = balance_loss(model, gates)
    return result


def _agreed_groups(model: nn.Module, ids: Tensor) -> int:
    count = group_count(len(ids))
    return least(count, ids.device) if is_sharded(model) else count


@dataclass(frozen=True)
class _Rows:
    """Some rows of a batch, each (rows, length)."""

    ids: Tensor
    attention: Tensor
    completion: Bool[Tensor, "rows length"]


def _values(
    model: Any,
    rows: _Rows,
    asked: Asked,
    reference: Tensor | None,
    extra: Mapping[str, Tensor],
    packed: Packed | None = None,
    separable: Separable | None = None,
) -> tuple[dict[str, Tensor], list[Tensor]]:
    """Values of some rows, and the logits of the model's routers for each of their tokens."""
    scored = rows.attention[:, 1:] > 0 if asked.prompt else rows.completion[:, 1:]
    row, before = scored.nonzero(as_tuple=True)
    targets = rows.ids[row, before + 1]
    more = dict(extra) | ({"output_router_logits": True} if asked.router else {})
    if packed is not None and not (asked.router or is_sharded(model)):
        more["read"] = packed.places(row, before)
    if model._own_head:
        output = _body(model, rows, packed, more, model.base_model)
        head, vocabulary = head_of(model)
        hidden = output[0][row, before] if packed is None else output[0][0, packed.place[row, before]]
        agreed = partial(most, device=hidden.device) if is_sharded(model) else int
        plain = None if separable is None or agreed is not int or not pays(vocabulary) else plain_head(head)
        if separable is not None and plain is not None and not plain.frozen:
            names = (*asked.names, *asked.noted)
            surrogate, found = fused_rows(
                hidden, targets, row, separable.example, plain, separable.slopes, names
            )
            gates = [_of_tokens(gate, rows, packed) for gate in output.router_logits] if asked.router else []
            return found | {"surrogate": surrogate}, gates
        tokens = token_statistics(
            hidden, targets, head, vocabulary, asked.names, reference, agreed, asked.noted
        )
        if asked.distributions:
            tokens["distributions"] = distributions(hidden, head)
    else:
        output = _body(model, rows, packed, more, model._plain_forward)
        logits = output.logits[row, before] if packed is None else output.logits[0, packed.place[row, before]]
        logits = logits.float()
        tokens = {name: of_logits(name, logits, targets, reference) for name in asked.names}
        tokens |= {name: of_logits(name, logits.detach(), targets) for name in asked.noted}
        if asked.distributions:
            tokens["distributions"] = logits.log_softmax(dim=-1)
    gates = [] if not asked.router else [_of_tokens(gate, rows, packed) for gate in output.router_logits]
    return row_values(tokens, row, before + 1, rows.completion, asked), gates


def _body(
    model: Any, rows: _Rows, packed: Packed | None, more: Mapping[str, Any], forward: Callable[..., Any]
) -> Any:
    """Output of the model, or of its body, on the rows."""
    if packed is not None:
        return packed_states(model, packed, forward, **more)
    return forward(input_ids=rows.ids, attention_mask=rows.attention, use_cache=False, **more)


def _of_tokens(gate: Tensor, rows: _Rows, packed: Packed | None) -> Tensor:
    """A router's logits for each token of each row, (tokens, experts); a prompt's once for each row."""
    flat, inside = gate.view(-1, gate.shape[-1]), rows.attention > 0
    return flat[inside.flatten()] if packed is None else flat[packed.place[inside]]
