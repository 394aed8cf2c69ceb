"""The clock of a run, whose file is whole whenever the run is killed."""

import json

from experiments.run_report import Clock


def test_a_clock_goes_on_from_the_time_that_was_kept(tmp_path):
    first = Clock.start(tmp_path)
    first.save()
    kept_s = json.loads(first.path.read_text())["wall_s"]
    assert kept_s > 0
    assert Clock.start(tmp_path).wall_s() > kept_s


def test_saving_never_cuts_the_file_that_a_restart_would_read(tmp_path):
    """A file that is written over in place is empty for a moment, and a kill then leaves it so."""
    clock = Clock.start(tmp_path)
    clock.save()
    whole = clock.path.read_text()
    with clock.path.open() as before:
        clock.save()
        assert before.read() == whole
    assert [file.name for file in tmp_path.iterdir()] == [clock.path.name]
