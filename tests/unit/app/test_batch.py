"""What is done about a run that was begun before."""

from itertools import product

import pytest

from fairway.app.batch import next_step


@pytest.mark.parametrize(
    ("finished", "table", "step"),
    [(True, False, "tell"), (False, False, "go on"), (True, True, "begin anew"), (False, True, "go on")],
)
def test_a_run_of_files_is_told_again_and_one_of_a_table_done_again(
    finished: bool, table: bool, step: str
) -> None:
    told = next_step(finished=finished, gone=False, is_table=table, overwrite=False, fresh=False)
    assert told == step


def test_who_asks_for_it_anew_gets_it_and_so_does_who_has_removed_what_was_written() -> None:
    for finished, table, fresh in product((False, True), repeat=3):
        told = [
            next_step(finished=finished, gone=gone, is_table=table, overwrite=overwrite, fresh=fresh)
            for gone, overwrite in ((False, True), (True, False), (True, True))
        ]
        assert told == ["begin anew"] * 3


def test_rows_are_read_from_the_first_on_only_of_a_table() -> None:
    asked = {"finished": False, "gone": False, "overwrite": False, "fresh": True}
    assert next_step(**asked, is_table=True) == "begin anew"
    assert next_step(**asked, is_table=False) == "go on"
