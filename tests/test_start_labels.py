"""Labels of single completions, looked at before training; foreign prompts; a reference that cannot move."""

import warnings
from types import SimpleNamespace

import pytest

from po.faults import InputFault
from po.methods import METHODS
from po.references.mismatch import with_mismatched
from po.references.moving import FollowPolicy
from po.training.start_checks import check_classes


def rows(*labels):
    return [{"desirable": label} for label in labels]


def test_aot_on_labels_needs_more_than_one_completion_a_micro_batch():
    aot = METHODS["aot_unpaired"]
    with pytest.raises(InputFault, match="per_device_batch_size is 1; raise it"):
        check_classes(aot, aot.check_params({}), rows(True, False), 1)
    check_classes(aot, aot.check_params({}), rows(True, False), 2)
    check_classes(aot, aot.check_params({}), [{"chosen_ids": [1], "rejected_ids": [2]}], 1)


@pytest.mark.parametrize(("weight", "warned"), [(1.0, True), (0.5, False), (0.3, True)])
def test_weights_that_leave_one_kind_of_label_too_heavy_are_told(weight, warned):
    kto = METHODS["kto"]
    values = kto.check_params({"desirable_weight": weight})
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        check_classes(kto, values, rows(True, True, False), 4)
    assert bool(found) == warned


def test_pictures_make_prompts_different():
    asked = [
        {"prompt_ids": [5], "images": [name], "completion_ids": [index], "desirable": True}
        for index, name in enumerate(("a.png", "b.png", "a.png"))
    ]
    assert [row["mismatched_ids"] for row in with_mismatched(asked)] == [[[1]], [[0]], [[1]]]
    with pytest.raises(InputFault, match="at least two prompts"):
        with_mismatched([asked[0], asked[2]])


@pytest.mark.parametrize(("steps", "warned"), [(10, True), (64, False)])
def test_a_training_too_short_for_the_reference_to_move_is_told(steps, warned):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        FollowPolicy(None, steps=64, mix=0.6).on_train_begin(None, SimpleNamespace(max_steps=steps), None)
    assert [("never moves" in str(w.message)) for w in found] == [True] * warned
