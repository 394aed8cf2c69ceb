"""A step of two processes, every mesh axis above one, is the step of one device.

Four processes are too many for a test of seconds: docs/benchmarks.md has them.
"""

import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from flamingo_jax.core import partition
from tests.quick_compiling import FLAGS
from tests.train import narrow_3b

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_two_processes_with_every_mesh_axis_above_one_step_as_one_device(tmp_path):
    file = tmp_path / "step.npz"
    flags = f"--xla_force_host_platform_device_count=4 {FLAGS}"
    command = [
        *(sys.executable, "-m", "launch.local", "--num_processes=2", "--"),
        *(sys.executable, "-m", "tests.train.narrow_3b", str(file), "2", "2", "2"),
    ]
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=os.environ | {"XLA_FLAGS": flags},
        text=True,
        capture_output=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    want = narrow_3b.flat(*narrow_3b.update(partition.make_mesh(devices=jax.devices()[:1])))
    with np.load(file) as found:
        assert set(found) == set(want)
        for name in want:
            np.testing.assert_allclose(found[name], want[name], rtol=1e-5, atol=1e-5, err_msg=name)
    before = narrow_3b.params()["resampler"]["latents"]
    assert abs(want["resampler/latents"] - before).max() > 1e-3  # it was a step
