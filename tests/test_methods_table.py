import inspect
import math
import re
from types import MappingProxyType

import pytest
import torch
from worked_inputs import AVERAGED, SUMMED, inputs_of

from po.methods import METHODS, Method, MethodError, ParameterError, resolve
from po.methods.hyperparameters import Range
from po.methods_table import main, methods_table


def test_the_reference_free_methods_need_no_reference():
    free = {name for name, method in METHODS.items() if not method.needs_reference}
    assert free == {
        "sft", "cpo", "slic", "cpo_ipo", "simpo", "simpo_hinge", "cpo_simpo", "orpo", "simper", "alphapo",
        "arpo",
    }  # fmt: skip


def test_each_method_says_what_an_example_of_it_is():
    forms = {name: method.data for name, method in METHODS.items() if method.data != "paired"}
    unpaired = dict.fromkeys(("kto", "bco", "apo_zero_unpaired", "aot_unpaired"), "unpaired")
    assert forms == {"sft": "supervised", "pl_dpo": "ranked", **unpaired}


def test_the_methods_that_average_log_probs_are_those_of_their_papers():
    averaging = {name for name, method in METHODS.items() if method.logps == "mean"}
    assert averaging == {
        "sft", "ipo", "ln_dpo", "cpo_ipo", "simpo", "simpo_hinge", "cpo_simpo", "orpo", "simper", "alphapo",
    }  # fmt: skip


def test_methods_that_read_a_whole_micro_batch_are_marked():
    coupled = {name for name, method in METHODS.items() if method.batch_coupled}
    assert coupled == {
        "aot",
        "aot_unpaired",
        "kto",
        "kto_pair",
        "bco",
        "bco_pair",
        "beta_dpo",
        "mixed_mpo",
        "sampo",
    }


def test_inputs_and_defaults_come_from_the_signature():
    assert METHODS["cpo"].inputs == ("policy_chosen", "policy_rejected", "chosen_nll")
    assert METHODS["cpo"].defaults == {"beta": 0.1, "eps": 0.0, "nll_weight": 1.0}
    assert METHODS["simpo"].defaults == {"beta": 2.0, "gamma": 0.5, "eps": 0.0, "nll_weight": 0.0}


def test_methods_with_an_nll_offer_its_reduction_and_the_loss_does_not_see_it():
    for method in METHODS.values():
        values = method.check_params({})
        assert ("nll_reduction" in values) == ("chosen_nll" in method.inputs)
        assert set(method.loss_arguments(values)) == set(method.defaults)
    assert METHODS["orpo"].check_params({})["nll_reduction"] == "token_batch"


def test_length_norm_chooses_between_averages_and_sums_for_ipo():
    ipo = METHODS["ipo"]
    assert ipo.logps_for(ipo.check_params({})) == "mean"
    assert ipo.logps_for(ipo.check_params({"length_norm": False})) == "sum"
    assert METHODS["dpo"].logps_for({}) == "sum"


def test_the_table_and_its_entries_are_read_only():
    with pytest.raises(TypeError):
        METHODS["new"] = METHODS["dpo"]
    with pytest.raises(AttributeError):
        METHODS["dpo"].logps = "mean"
    assert isinstance(METHODS["dpo"].ranges, MappingProxyType)


@pytest.mark.parametrize(("typo", "meant"), [("simp0", "simpo"), ("DPO", "dpo"), ("dpogamma", "dpo_gamma")])
def test_an_unknown_method_gets_its_nearest_name_and_the_way_to_the_table(typo, meant):
    with pytest.raises(MethodError, match=f"Unknown method '{typo}'; did you mean '{meant}'") as refusal:
        resolve(typo)
    assert "python -m po.methods_table" in str(refusal.value)


@pytest.mark.parametrize("name", METHODS)
def test_losses_leave_their_inputs_as_they_were(name):
    inputs = inputs_of(name)
    METHODS[name].loss(**inputs)
    assert all(torch.equal(inputs[key], original) for key, original in inputs_of(name).items())


@pytest.mark.parametrize(
    ("name", "params", "chosen", "rejected"),
    [
        ("dpo", {}, [0.05, -0.05, 0.075], [-0.1, 0.05, -0.1]),
        ("dpo", {"reference_free": True}, [-1.2, -2.05, -0.725], [-1.4, -1.9, -0.95]),
        ("dpo_gamma", {}, [0.05, -0.05, 0.075], [-0.1, 0.05, -0.1]),
        ("cpo", {}, [-1.2, -2.05, -0.725], [-1.4, -1.9, -0.95]),
        ("simpo", {}, [-2.4, -2.5625, -29 / 12], [-28 / 12, -38 / 15, -2.375]),
        ("orpo", {}, [-0.12, -0.128125, -29 / 240], [-28 / 240, -38 / 300, -0.11875]),
        ("ipo", {}, [0.005, -0.003125, 0.0125], [-1 / 120, 1 / 300, -0.0125]),
        ("ipo", {"length_norm": False}, [0.05, -0.05, 0.075], [-0.1, 0.05, -0.1]),
    ],
)
def test_rewards_have_their_worked_values(name, params, chosen, rejected):
    method = METHODS[name]
    rewards = method.rewards(inputs_of(name, params), method.check_params(params))
    assert rewards[0].tolist() == pytest.approx(chosen)
    assert rewards[1].tolist() == pytest.approx(rejected)


def test_rewards_of_dpo_average_to_the_worked_log_values():
    dpo = METHODS["dpo"]
    chosen, rejected = dpo.rewards(SUMMED, dpo.check_params({}))
    assert (chosen.mean().item(), rejected.mean().item()) == pytest.approx((0.025, -0.05))
    assert (chosen - rejected).mean().item() == pytest.approx(0.075)
    assert (chosen > rejected).double().mean().item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.paired])
def test_rewards_carry_no_gradient(name):
    method = METHODS[name]
    inputs = {key: tensor.requires_grad_() for key, tensor in inputs_of(name).items()}
    assert not any(reward.requires_grad for reward in method.rewards(inputs, method.check_params({})))


def squared_lead(policy_chosen, policy_rejected, *, scale: float = 1.0):
    return (scale * (policy_chosen - policy_rejected)).square()


def entry(**changes):
    fields = {
        "name": "squared_lead",
        "loss": squared_lead,
        "logps": "mean",
        "ranges": {"scale": Range(0, 3, "1 per nat")},
        "formula": "(scale R)^2",
        "paper": "this test",
    }
    return Method(**(fields | changes))


def test_a_new_method_is_one_function_and_one_entry():
    method = entry()
    assert (method.inputs, method.paired, method.needs_reference, method.options) == (
        ("policy_chosen", "policy_rejected"),
        True,
        False,
        {},
    )
    values = method.check_params({"scale": 2})
    losses = method.loss(**{name: AVERAGED[name] for name in method.inputs}, **method.loss_arguments(values))
    assert losses.tolist() == pytest.approx([4 / 900, 4 * (7 / 480) ** 2, 4 / 2304])
    with pytest.raises(
        ParameterError, match=r"squared_lead allows scale in \[0, 3\] \(1 per nat\); 4 was given"
    ):
        method.check_params({"scale": 4})


def test_an_entry_that_disagrees_with_its_loss_is_refused():
    with pytest.raises(TypeError, match=r"ranges are given for \[\], but the loss has \['scale'\]"):
        entry(ranges={})
    with pytest.raises(TypeError, match=r"The default is not allowed: squared_lead allows scale >= 2"):
        entry(ranges={"scale": Range(2, math.inf, "1 per nat")})
    with pytest.raises(TypeError, match="logps must be 'mean'"):
        entry(logps="sum", length_norm=True)


@pytest.mark.parametrize("name", METHODS)
def test_every_loss_states_its_source_and_units(name):
    documentation = inspect.getdoc(METHODS[name].loss)
    assert "nats" in documentation
    assert "Returns:" in documentation
    assert name == "sft" or "Source:" in documentation


def test_the_printed_table_has_a_row_for_every_method_with_its_defaults(capsys):
    assert main([]) == 0
    printed = capsys.readouterr().out
    assert printed == methods_table()
    rows = [line for line in printed.splitlines() if line.startswith("| `")]
    assert [re.match(r"\| `(\w+)`", row).group(1) for row in rows] == list(METHODS)
    assert all(row.count("|") == 8 for row in rows)
    assert (
        "| paired | yes | sum | `beta` (0.1; > 0), `gamma` (0.5; >= 0), `eps` (0; in [0, 0.5)) |" in printed
    )


def test_the_printed_table_takes_no_arguments(capsys):
    with pytest.raises(SystemExit) as ended:
        main(["--format", "latex"])
    assert ended.value.code == 2
    assert "python -m po.methods_table" in capsys.readouterr().err
