"""A run at a standstill ends and says where; one that moves, ends, or is only stopped does not."""

import os
import pathlib
import signal
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).parents[3]
SCRIPT = """
import sys, time
from experiments.training import stall

stall._TICK_S = 0.1

def read_from_a_disk_that_is_gone():
    print("reading", flush=True)
    time.sleep(60)

what, minutes = sys.argv[1], float(sys.argv[2])
with stall.StallWatch(minutes, "process 1 of 4") as watch:
    for _ in range(10):
        time.sleep(0.1)
        watch.moved()
        print("moved", flush=True)
    if what == "stuck":
        read_from_a_disk_that_is_gone()
time.sleep(2 if what == "over" else 0)
"""


def start(what: str, minutes: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, what, str(minutes)],
        cwd=ROOT,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )


def test_only_a_run_that_stands_still_ends_and_it_names_the_place():
    runs = {
        "stuck": start("stuck", 0.02),
        "over": start("over", 0.02),
        "stopped": start("stopped", 0.02),
        "unwatched": start("moves", 0.0),
    }
    stopped = runs["stopped"]
    stopped.stdout.readline()
    os.kill(stopped.pid, signal.SIGSTOP)
    time.sleep(1)
    os.kill(stopped.pid, signal.SIGCONT)
    errors = {what: run.communicate(timeout=60)[1] for what, run in runs.items()}
    status = {what: run.returncode for what, run in runs.items()}
    assert status == {"stuck": 1, "over": 0, "stopped": 0, "unwatched": 0}, errors
    assert "process 1 of 4: no step for 0.02 minutes" in errors["stuck"]
    assert "read_from_a_disk_that_is_gone" in errors["stuck"]
