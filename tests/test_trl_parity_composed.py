"""Methods made of methods against TRL's DPO trainer: lists of losses, weighted pairs, a moving reference."""

import pytest
from trl_side import assert_same_steps, distance, our_steps, start, their_dpo, weights

UNBOUNDED = 1e30
"""A maximum of the weights that is never reached: TRL has none."""


def test_a_mixture_is_a_list_of_loss_types(tmp_path):
    theirs = their_dpo(
        tmp_path,
        beta=0.3,
        loss_type=["sigmoid", "ipo", "exo_pair", "sft"],
        loss_weights=[0.8, 0.1, 0.2, 0.5],
        label_smoothing=0.01,
    )
    params = {"dpo_weight": 0.8, "ipo_weight": 0.1, "exo_weight": 0.2, "sft_weight": 0.5}
    values = {"dpo_beta": 0.3, "ipo_tau": 0.3, "exo_beta": 0.3, "exo_eps": 0.01}
    ours = our_steps(tmp_path, "mix(dpo, ipo, exo, sft)", params | values)
    assert_same_steps(ours, theirs)


def test_mixed_mpo_is_the_mixture_that_trl_documents(tmp_path):
    theirs = their_dpo(tmp_path, loss_type=["sigmoid", "bco_pair", "sft"], loss_weights=[0.8, 0.2, 1.0])
    assert_same_steps(our_steps(tmp_path, "mixed_mpo", {}), theirs)


def test_rpo_is_sigmoid_with_a_weighted_sft(tmp_path):
    theirs = their_dpo(tmp_path, beta=0.3, loss_type=["sigmoid", "sft"], loss_weights=[1.0, 0.7])
    assert_same_steps(our_steps(tmp_path, "rpo", {"beta": 0.3, "nll_weight": 0.7}), theirs)


@pytest.mark.parametrize(
    ("base", "params", "options"),
    [
        ("dpo", {"beta": 0.3}, {"beta": 0.3}),
        ("ipo", {"tau": 0.3}, {"beta": 0.3, "loss_type": "ipo"}),
        ("apo_down", {"beta": 0.3}, {"beta": 0.3, "loss_type": "apo_down"}),
        (
            "mix(dpo, nca)",
            {"dpo_beta": 0.3, "nca_beta": 0.3, "nca_weight": 0.4},
            {"beta": 0.3, "loss_type": ["sigmoid", "nca_pair"], "loss_weights": [1.0, 0.4]},
        ),
    ],
)
def test_wpo_without_a_maximum_is_use_weighting(tmp_path, base, params, options):
    theirs = their_dpo(tmp_path, use_weighting=True, **options)
    assert_same_steps(our_steps(tmp_path, f"wpo({base})", {"max_weight": UNBOUNDED, **params}), theirs, ())


@pytest.mark.parametrize(
    ("base", "params", "options"),
    [
        ("dpo", {"beta": 0.3}, {"beta": 0.3}),
        ("ipo", {"tau": 0.3}, {"beta": 0.3, "loss_type": "ipo"}),
    ],
)
def test_tr_dpo_moves_the_reference_as_sync_ref_model_does(tmp_path, base, params, options):
    """Three steps, a move after the second: the third step compares with the reference that has moved."""
    sync = {"sync_ref_model": True, "ref_model_sync_steps": 2, "ref_model_mixup_alpha": 0.7}
    theirs = their_dpo(tmp_path, changes={"max_steps": 3}, **sync, **options)
    ours = our_steps(
        tmp_path, f"tr_dpo({base})", {"sync_steps": 2, "sync_mix": 0.7, **params}, changes={"max_steps": 3}
    )
    assert_same_steps(ours, theirs, ())
    moved = weights(theirs.trainer.ref_model)
    assert distance(weights(ours.trainer.reference.model), moved) < 1e-6
    assert distance(weights(start()), moved) > 1e-2
