"""What the library tells of names that were translated."""

from tiny_library import library_trainer
from tiny_training import random_pairs

from po.library import trainer


def test_a_name_that_is_read_as_another_is_told_once(tmp_path, caplog):
    type(trainer.logger).warning_once.cache_clear()
    for name in ("first", "second"):
        found = library_trainer(tmp_path / name, random_pairs(4), "cpo", alpha=0.5)
        assert found.params["nll_weight"] == 0.5
    notes = [record for record in caplog.records if "'alpha' is read as 'nll_weight'" in record.message]
    assert [note.levelname for note in notes] == ["WARNING"]
