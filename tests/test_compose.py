"""Methods put together: what they ask for, what they give, what cannot be put together."""

import pytest
import torch
from worked_inputs import inputs_of, loss_of

from po.methods import METHODS, MethodError, resolve


def test_an_input_that_a_part_needs_under_a_setting_only_is_not_asked_for_under_others():
    for name, labels in (("wpo(sppo)", "labels"), ("mix(sppo, dpo)", "sppo_labels")):
        method = resolve(name)
        assert "win_probability" not in method.needed(method.check_params({}))
        assert "win_probability" in method.needed(method.check_params({labels: "soft"}))


def test_a_sum_with_a_conditional_input_is_the_sum_of_its_parts():
    method = resolve("mix(sppo, dpo)")
    values = method.check_params({"sppo_weight": 0.5, "dpo_weight": 2.0})
    inputs = inputs_of("dpo")
    found = method.loss(**inputs, **method.loss_arguments(values))
    expected = 0.5 * METHODS["sppo"].loss(**inputs) + 2.0 * loss_of("dpo")
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("expression", "reason"),
    [
        ("mix(wpo(ipo), dpo)", "wpo(ipo) is put together"),
        ("mix(mix(dpo, sft), ipo)", "mix(dpo, sft) is put together"),
        ("mix(dpo, dpo)", "dpo stands there twice"),
        ("mix(sft)", "needs a method that compares"),
        ("mix(dpo, kto)", "kto cannot be part"),
        ("mix(dpo, aot)", "aot cannot be part"),
        ("mix(bco_pair, beta_dpo)", "both keep a state"),
        ("mix", "name them"),
        ("wpo(wpo(dpo))", "weighs its pairs already"),
        ("wpo(kto)", "no plain loss for each"),
        ("wpo(ld_dpo)", "no plain loss for each"),
        ("wpo(dpo, ipo)", "no way to put methods together"),
        ("tr_dpo(simpo)", "simpo has none"),
        ("tr_dpo(tr_dpo(dpo))", "tr_dpo has none"),
        ("soften(dpo)", "no way to put methods together"),
    ],
)
def test_what_cannot_be_put_together_is_refused_with_the_reason(expression, reason):
    with pytest.raises(MethodError) as refusal:
        resolve(expression)
    assert reason in str(refusal.value)
