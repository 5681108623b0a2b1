"""A manifest's methods, grids and seeds become cells: which, how they are named, what they start from."""

import json
from pathlib import Path
from typing import Any

import pytest
from manifests import changed, grid, loaded, only_fault, write

from experiments.grid import Grid
from experiments.loading import load
from experiments.problems import ManifestError


def names(found: Grid, method: str = "dpo") -> list[str]:
    """Axes and seed of a method's cells."""
    prefix = f"tiny.numbers.{method}."
    return [cell.name.removeprefix(prefix) for cell in found.cells if cell.method == method]


def dpo(**entry: Any) -> dict[str, Any]:
    return {"methods__dpo": {"from": "sft", **entry}, "seeds": [1]}


def test_a_grid_is_the_product_of_its_axes_in_the_order_written(tmp_path: Path) -> None:
    found = grid(tmp_path, **dpo(grid={"learning_rate": [1e-7, 5e-7], "beta": [0.01, 0.1]}))
    assert names(found) == [
        "beta0.01-learning_rate1e-7.s1",
        "beta0.1-learning_rate1e-7.s1",
        "beta0.01-learning_rate5e-7.s1",
        "beta0.1-learning_rate5e-7.s1",
    ]
    values = [
        (cell.params["beta"], cell.training.learning_rate) for cell in found.cells if cell.method == "dpo"
    ]
    assert values == [(0.01, 1e-7), (0.1, 1e-7), (0.01, 5e-7), (0.1, 5e-7)]


def test_zipped_axes_advance_together(tmp_path: Path) -> None:
    methods = {"sft": {}, "simpo": {"from": "sft", "zip": {"beta": [2.0, 2.5], "gamma": [1.0, 1.25]}}}
    found = grid(tmp_path, methods=methods, seeds=[1])
    assert names(found, "simpo") == ["beta2-gamma1.s1", "beta2.5-gamma1.25.s1"]


def test_grid_zip_and_list_are_combined(tmp_path: Path) -> None:
    entry = {"grid": {"epochs": [1, 2]}, "zip": {"beta": [2, 3], "gamma": [0, 1]}, "list": [{"beta": 9}]}
    found = grid(tmp_path, methods={"sft": {}, "simpo": {"from": "sft", **entry}}, seeds=[1])
    assert names(found, "simpo") == [
        "beta2-epochs1-gamma0.s1",
        "beta3-epochs1-gamma1.s1",
        "beta2-epochs2-gamma0.s1",
        "beta3-epochs2-gamma1.s1",
        "beta9.s1",
    ]
    last = found.cells[-1]
    assert (last.params["gamma"], last.training.epochs) == (0.5, 1.0)  # the defaults


def test_only_the_axes_that_vary_stand_in_a_name(tmp_path: Path) -> None:
    assert names(grid(tmp_path, **dpo(grid={"beta": [0.1], "margin": [0, 1]}))) == [
        "margin0.s1",
        "margin1.s1",
    ]
    assert names(grid(tmp_path, **dpo(grid={"beta": [0.1]}))) == ["s1"]
    assert names(grid(tmp_path, **dpo(params={"beta": 0.1}, list=[{"beta": 0.1}, {"margin": 1}]))) == [
        "s1",
        "margin1.s1",
    ]


def test_a_point_wins_over_params_also_under_another_name(tmp_path: Path) -> None:
    entry = {"from": "sft", "params": {"cpo_alpha": 0.5}, "grid": {"nll_weight": [0.1, 0.2]}}
    found = grid(tmp_path, methods={"sft": {}, "cpo": entry}, seeds=[1])
    assert [cell.params["nll_weight"] for cell in found.cells[1:]] == [0.1, 0.2]


def test_axes_are_named_as_in_the_table_of_methods(tmp_path: Path) -> None:
    found = grid(
        tmp_path, methods={"sft": {}, "cpo": {"from": "sft", "grid": {"cpo_alpha": [0.1, 0.2]}}}, seeds=[1]
    )
    assert names(found, "cpo") == ["nll_weight0.1.s1", "nll_weight0.2.s1"]
    assert found.notes == ("cpo: 'cpo_alpha' is read as 'nll_weight'.",)


def test_a_ratio_keeps_its_name_and_sets_gamma(tmp_path: Path) -> None:
    entry = {"from": "sft", "params": {"beta": 4}, "grid": {"gamma_beta_ratio": [0.25, 0.5]}}
    found = grid(tmp_path, methods={"sft": {}, "simpo": entry}, seeds=[1])
    assert names(found, "simpo") == ["gamma_beta_ratio0.25.s1", "gamma_beta_ratio0.5.s1"]
    assert [cell.params["gamma"] for cell in found.cells[1:]] == [1.0, 2.0]


def test_two_names_of_one_hyperparameter_in_one_place_are_a_fault(tmp_path: Path) -> None:
    fault = only_fault(
        tmp_path, methods__simpo={"from": "sft", "params": {"gamma": 1, "gamma_beta_ratio": 0.5}}
    )
    assert fault == "methods.simpo: simpo: gamma and gamma_beta_ratio set the same margin; give one of them."


def test_every_method_has_every_seed_but_what_is_not_trained(tmp_path: Path) -> None:
    found = grid(tmp_path, methods__base={"train": False}, seeds=[3, 5])
    assert [cell.name for cell in found.cells] == [
        "tiny.numbers.sft.s3",
        "tiny.numbers.sft.s5",
        "tiny.numbers.base",
        "tiny.numbers.dpo.s3",
        "tiny.numbers.dpo.s5",
    ]


def test_a_child_starts_from_its_own_seed_or_from_the_first(tmp_path: Path) -> None:
    own = grid(tmp_path, seeds=[3, 5], from_seed="same")
    assert [(cell.seed, cell.parent.seed) for cell in own.cells if cell.parent] == [(3, 3), (5, 5)]
    first = grid(tmp_path, seeds=[3, 5], from_seed="first")
    assert [(cell.seed, cell.parent.seed) for cell in first.cells if cell.parent] == [(3, 3), (5, 3)]
    assert names(first, "sft") == ["s3"]


def test_parents_come_before_children_whatever_the_order_of_writing(tmp_path: Path) -> None:
    methods = {
        "dpo": {"from": "sft2"},
        "cpo": {"list": [{"beta": 0.2}]},
        "sft2": {"method": "sft", "from": "sft"},
        "sft": {},
    }
    found = grid(tmp_path, methods=methods, seeds=[1])
    assert [cell.method for cell in found.cells] == ["sft", "cpo", "sft2", "dpo"]
    by_name = {cell.method: cell for cell in found.cells}
    assert by_name["dpo"].parent is by_name["sft2"]
    assert by_name["cpo"].parent is None
    assert by_name["cpo"].pairs_from is by_name["sft"]


def test_a_parent_with_two_points_is_refused(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, methods__sft={"grid": {"learning_rate": [1e-3, 1e-4]}})
    assert fault == "methods.sft: other methods start from 'sft', so it must have one point, not 2"


def test_models_and_tasks_multiply(tmp_path: Path) -> None:
    data = changed(seeds=[1])
    data["models"]["other"] = data["models"]["tiny"] | {"dtype": "bfloat16"}
    data["tasks"]["more"] = data["tasks"]["numbers"]
    found = grid(tmp_path, models=data["models"], tasks=data["tasks"], seeds=[1])
    assert len(found.cells) == 2 * 2 * 2
    for cell in found.cells:
        if cell.parent:
            assert (cell.parent.model, cell.parent.task) == (cell.model, cell.task)


def rule(when: dict[str, Any]) -> dict[str, Any]:
    return {"when": when, "reason": "not in the study"}


def test_excluded_cells_are_left_out(tmp_path: Path) -> None:
    found = grid(tmp_path, exclude=[rule({"method": "dpo", "seed": 2})])
    assert [cell.name for cell in found.cells if cell.method == "dpo"] == ["tiny.numbers.dpo.s1"]
    assert found.warnings == ()


def test_a_rule_that_matches_nothing_is_a_warning(tmp_path: Path) -> None:
    override = {"when": {"params.beta": 9}, "set": {"training.epochs": 2}}
    found = grid(tmp_path, exclude=[rule({"seed": 9})], overrides=[override])
    assert found.warnings == ("overrides[0] matches no cell", "exclude[0] matches no cell")
    limits = {"rules": [{"when": {"stage": "score", "seed": 9}, "set": {"cpus": 2}}]}
    assert loaded(tmp_path, resources=limits).grid.warnings == ("resources.rules[0] matches no stage",)


def test_excluding_everything_is_a_fault(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, exclude=[rule({})])
    assert fault == "exclude: every cell is excluded; nothing is left to run"


def test_excluding_a_parent_without_its_children_is_a_fault(tmp_path: Path) -> None:
    fault = only_fault(tmp_path, exclude=[rule({"method": "sft"})])
    expected = "exclude[0]: leaves out 'sft', which 'dpo' needs in task 'numbers'; exclude that too"
    assert fault.startswith(expected)


def test_overrides_change_the_cells_that_match_and_no_others(tmp_path: Path) -> None:
    rules = [
        {"when": {"method": "dpo", "seed": 2}, "set": {"params.beta": 0.7, "training.epochs": 3.0}},
        {"when": {"params.beta": {"le": 0.1}}, "set": {"generation.max_new_tokens": 16}},
    ]
    found = grid(tmp_path, overrides=rules)
    values = {cell.name.removeprefix("tiny.numbers."): cell for cell in found.cells}
    assert (values["dpo.s2"].params["beta"], values["dpo.s2"].training.epochs) == (0.7, 3.0)
    assert (values["dpo.s1"].params["beta"], values["dpo.s1"].training.epochs) == (0.1, 1.0)
    # a rule sees the values before any rule changed them
    assert values["dpo.s2"].generation.max_new_tokens == 16
    assert values["sft.s1"].generation.max_new_tokens == 32


def test_rules_see_defaults_and_canonical_names(tmp_path: Path) -> None:
    methods = {"sft": {}, "cpo": {"from": "sft", "params": {"cpo_alpha": 0.5}}}
    override = {"when": {"params.nll_weight": 0.5, "params.eps": 0}, "set": {"params.lambda_sft": 0.25}}
    found = grid(tmp_path, methods=methods, overrides=[override], seeds=[1])
    assert found.cells[1].params["nll_weight"] == 0.25


def test_an_overridden_beta_takes_the_margin_along_if_that_is_a_ratio(tmp_path: Path) -> None:
    methods = {"sft": {}, "simpo": {"from": "sft", "params": {"beta": 2, "gamma_beta_ratio": 0.5}}}
    override = {"when": {"method": "simpo"}, "set": {"params.beta": 10}}
    found = grid(tmp_path, methods=methods, overrides=[override], seeds=[1])
    assert found.cells[1].params["gamma"] == 5.0


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"params.beta": -1}, "params.beta: dpo allows beta > 0 (reward per nat); -1 was given."),
        ({"params.gamma": 1}, "params.gamma: dpo has no parameter 'gamma'"),
        ({"params.beta": [0.1]}, "params.beta: dpo allows beta > 0"),
        ({"training.per_device_batch_size": 3}, "training.per_device_batch_size: global_batch_size 8 is not"),
        ({"generation.n": 2}, "generation.n: decoding settings: n = 2 outputs need do_sample: true"),
        ({"generation.backend": "x"}, "generation.backend: 'x' is no backend"),
    ],
)
def test_a_bad_override_is_a_fault_with_its_place(
    tmp_path: Path, values: dict[str, Any], expected: str
) -> None:
    fault = only_fault(tmp_path, overrides=[{"when": {"method": "dpo"}, "set": values}])
    assert fault.startswith(f"overrides[0].set.{expected}")


def test_faults_of_the_grid_have_lines_too(tmp_path: Path) -> None:
    rest = json.dumps(changed()).removeprefix("{")
    text = f'{{\n"exclude": [{{"when": {{}}, "reason": "all"}}],\n{rest}'
    with pytest.raises(ManifestError) as raised:
        load(write(tmp_path, text), tmp_path / "runs")
    assert [(problem.place, problem.line) for problem in raised.value.problems] == [("exclude", 2)]


def test_a_repeated_point_is_run_once_with_a_warning(tmp_path: Path) -> None:
    found = grid(tmp_path, **dpo(grid={"beta": [0.1, 0.10, 0.2]}))
    assert names(found) == ["beta0.1.s1", "beta0.2.s1"]
    assert found.warnings == ("methods.dpo: 1 repeated point(s) of the grid; each is run once",)


def test_points_that_mean_the_same_are_one_cell_with_a_warning(tmp_path: Path) -> None:
    points = [{"beta": 0.1}, {"beta": 0.1, "margin": 0}, {"beta": 0.1, "margin": 1}]
    plan = loaded(tmp_path, **dpo(list=points))
    assert names(plan.grid) == ["s1", "margin1.s1"]
    same = "'tiny.numbers.dpo.margin0.s1' is the same experiment as 'tiny.numbers.dpo.s1'"
    assert plan.grid.warnings == (f"{same}; it is run once, under that name",)


def test_two_methods_that_mean_the_same_are_one_cell(tmp_path: Path) -> None:
    plan = loaded(tmp_path, methods__copy={"method": "dpo", "from": "sft"}, seeds=[1])
    assert [cell.method for cell in plan.grid.cells] == ["sft", "dpo"]
    assert len({job.folder for job in plan.graph.jobs.values() if job.stage == "train"}) == 2


def test_children_of_equal_parents_share_the_parents_folder(tmp_path: Path) -> None:
    methods = {"sft": {}, "twin": {"method": "sft"}, "dpo": {"from": "sft"}, "cpo": {"from": "twin"}}
    plan = loaded(tmp_path, methods=methods, seeds=[1])
    documents = {cell.method: plan.study.cell(cell).document for cell in plan.grid.cells}
    assert set(documents) == {"sft", "dpo", "cpo"}
    assert documents["cpo"]["parent"] == documents["dpo"]["parent"]


def test_equal_weights_measured_in_two_ways_are_a_fault(tmp_path: Path) -> None:
    override = {"when": {"method": "copy"}, "set": {"generation.max_new_tokens": 16}}
    fault = only_fault(
        tmp_path, methods__copy={"method": "dpo", "from": "sft"}, overrides=[override], seeds=[1]
    )
    assert (
        "'tiny.numbers.copy.s1' trains the same weights as 'tiny.numbers.dpo.s1' but generates in another way"
        in fault
    )


def test_values_that_are_seldom_meant_are_warned_of(tmp_path: Path) -> None:
    found = grid(tmp_path, methods__simpo={"from": "sft", "params": {"beta": 0.1, "gamma": 0.5}})
    assert len(found.warnings) == 1
    assert found.warnings[0].startswith("methods.simpo: The target margin is 5 nats per token")


def test_what_is_not_pinned_on_a_hub_is_warned_of(tmp_path: Path) -> None:
    plan = loaded(tmp_path, models={"hub": {"id": "org/name"}}, seeds=[1])
    assert plan.grid.warnings == (
        "models.hub: 'org/name' without a revision; give the commit, it may change",
    )
    pinned = loaded(tmp_path, models={"hub": {"id": "org/name", "revision": "abc"}}, seeds=[1])
    assert pinned.grid.warnings == ()
