"""Values of completions under encoder-decoder models: the encoder runs once for each prompt."""

from typing import Any

from torch import Tensor
from transformers.modeling_outputs import BaseModelOutput

from po.engine.logps import of_logits
from po.engine.token_values import Asked, row_values

_IGNORED = -100  # label of padding, as transformers has it


def encoder_decoder_values(
    model: Any,
    *,
    input_ids: Tensor,
    attention_mask: Tensor,
    completion_ids: Tensor,
    completion_mask: Tensor,
    prompt_rows: Tensor,
    asked: Asked,
    reference_distributions: Tensor | None = None,
) -> dict[str, Tensor]:
    """Values of each completion; see ``po.engine.forward.completion_values``.

    Labels stand where the decoder predicts them, so nothing is shifted here: the model's own function makes
    the decoder's inputs out of the labels, with its start token (mBART: the language of the text) in front.

    Args:
        model: T5, BART, mBART, Marian, or one built like them.
        input_ids: prompts.
        attention_mask: of the prompts.
        completion_ids: labels, (rows, tokens).
        completion_mask: True where a label counts.
        prompt_rows: row of each completion's prompt, (rows,).
        asked: what the answer shall hold.
        reference_distributions: for ``kl``.

    Raises:
        ValueError: prompt tokens or the router's loss were asked for.
    """
    if asked.prompt or asked.router:
        raise ValueError("an encoder-decoder model scores completions only, and no router's loss")
    encoded = model.get_encoder()(input_ids=input_ids, attention_mask=attention_mask)[0]
    labels = completion_ids.masked_fill(~completion_mask, _IGNORED)
    logits = model._plain_forward(
        encoder_outputs=BaseModelOutput(last_hidden_state=encoded[prompt_rows]),
        attention_mask=attention_mask[prompt_rows],
        decoder_input_ids=model.prepare_decoder_input_ids_from_labels(labels=labels),
        use_cache=False,
    ).logits
    row, column = completion_mask.nonzero(as_tuple=True)
    scored, targets = logits[row, column].float(), completion_ids[row, column]
    tokens = {name: of_logits(name, scored, targets, reference_distributions) for name in asked.names}
    if asked.distributions:
        tokens["distributions"] = scored.log_softmax(dim=-1)
    return row_values(tokens, row, column, completion_mask, asked)
