from types import SimpleNamespace

from reports.notices import coupled


def cell(method, size, batch_coupled):
    train = {"batch_coupled": batch_coupled, "training": {"per_device_batch_size": size}}
    return SimpleNamespace(record={"method_name": method, "train": train})


def test_a_method_whose_loss_reads_the_batch_is_named_with_its_batch_sizes():
    cells = [cell("kto", 8, True), cell("kto", 4, True), cell("dpo", 8, False), cell("aot", 2, True)]
    aot, kto = coupled(cells)
    assert aot.startswith("aot: ") and "(here of 2)" in aot
    assert kto.startswith("kto: ") and "(here of 4 or 8)" in kto


def test_cells_that_were_not_trained_or_are_of_older_runs_say_nothing():
    assert coupled([SimpleNamespace(record={"method_name": "base", "train": None})]) == []
    assert coupled([SimpleNamespace(record={"method_name": "dpo", "train": {"method": "dpo"}})]) == []
