"""Counts of several readers as those of one run."""

from experiments.training import run_log


def state(next_index, examples, **skipped):
    return {"pairs": {"next_index": next_index, "examples": examples, "skipped": skipped}}


def test_counts_add_up_and_the_place_is_that_of_all():
    states = [state(24, 7, truncated=1), state(24, 6, truncated=1, not_a_pair=1), state(24, 8)]
    total = run_log.total_place(iter(states))
    assert total == state(24, 21, truncated=2, not_a_pair=1)
    assert states[0] == state(24, 7, truncated=1)  # its own counts go on


def test_processes_that_read_the_same_rows_count_once():
    everyone = [{"share": share, "data": share} for share in (0, 0, 1, 1)]
    assert [one["data"] for one in run_log.one_of_each_share(everyone)] == [0, 1]
