"""Kills and restarts of a mixture leave no trace in what is read: every byte, in order.

`FLAMINGO_TEST_RESTARTS` sets how often a run is dropped and goes on, `FLAMINGO_TEST_KILLS` how many
processes are really killed (50 take about five minutes).
"""

import json
import os
import random
import signal
import subprocess
import sys
import time

import pytest

from tests.data_pipelines.resuming_run import SAVE_EVERY, datasets, digest, mixture

NUM_STEPS = 20


@pytest.fixture
def folder(build_dataset, tmp_path):
    for name, records in datasets().items():
        build_dataset(records, name, num_shards=2)
    return str(tmp_path)


@pytest.fixture
def digests(folder) -> list[str]:
    """Of each step of an uninterrupted run of one process."""
    whole = mixture(folder)
    steps = [digest([next(whole)]) for _ in range(NUM_STEPS)]
    assert len(set(steps)) == NUM_STEPS
    return steps


def test_restarts_from_the_last_save_read_the_same_bytes(folder, digests):
    """Runs are dropped at random steps, mostly between saves; some had several processes."""
    num_restarts = int(os.environ.get("FLAMINGO_TEST_RESTARTS", "20"))
    processes_of = {5: 2, 6: 3, 7: 1, 12: 3, 13: 2, 15: 6}  # by restart; all others had one
    rng, saved, finished = random.Random(0), {"step": 0, "data": None}, 0
    for restart in range(num_restarts):
        count = processes_of.get(restart, 1)
        parts = [mixture(folder, saved["data"], (p, count)) for p in range(count)]
        last_step = min(saved["step"] + rng.randint(count > 1, 5), NUM_STEPS)
        for step in range(saved["step"], last_step):
            assert digest([next(part) for part in parts]) == digests[step]
            if (step + 1) % SAVE_EVERY == 0:
                saved = json.loads(json.dumps({"step": step + 1, "data": parts[0].state()}))
        if last_step == NUM_STEPS:
            saved, finished = {"step": 0, "data": None}, finished + 1
    assert finished >= 1


def test_processes_killed_at_any_moment_go_on_as_if_they_had_not_been(folder, digests, tmp_path):
    num_kills = int(os.environ.get("FLAMINGO_TEST_KILLS", "1"))
    rng, log, kills = random.Random(1), tmp_path / "log", 0
    command = [sys.executable, "-m", "tests.data_pipelines.resuming_run", folder, str(tmp_path)]
    while kills < num_kills:
        lines = log.read_text().count("\n") if log.exists() else 0
        wanted = lines + rng.randint(0, 5)  # at 0 it is killed at once, while it starts
        process = subprocess.Popen([*command, str(NUM_STEPS)], stderr=subprocess.PIPE)
        while process.poll() is None and lines < wanted:
            time.sleep(rng.random() * 0.02)
            lines = log.read_text().count("\n") if log.exists() else 0
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        elif process.returncode:
            raise AssertionError(process.stderr.read().decode())
        else:  # it ended before its kill: begin again
            (tmp_path / "state.json").unlink()
        process.wait()
        process.stderr.close()
    subprocess.run([*command, str(NUM_STEPS)], check=True, capture_output=True)
    steps = [line.split() for line in log.read_text().splitlines()]
    assert all(digests[int(step)] == seen for step, seen in steps)
    assert {int(step) for step, _ in steps} == set(range(NUM_STEPS))
