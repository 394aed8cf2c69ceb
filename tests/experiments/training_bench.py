"""A training command in processes of its own, for the tests that stop, kill and misuse it."""

import contextlib
import os
import pathlib
import subprocess
import sys
import time

from flamingo_jax.train import metrics
from tests.quick_compiling import FLAGS

ROOT = pathlib.Path(__file__).parents[2]


class Bench:
    """Starts one training command, with a cache folder and a compilation cache of their own."""

    def __init__(
        self,
        folder: pathlib.Path,
        module: str = "experiments.train",
        recipes: str = "experiments/configs/flamingo.py",
    ):
        self.folder, self.module, self.recipes = folder, module, recipes
        self.environment = os.environ | {
            "FLAMINGO_JAX_CACHE": str(folder / "cache"),
            "JAX_PLATFORMS": "cpu",
            "JAX_COMPILATION_CACHE_DIR": str(folder / "compiled"),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
            "XLA_FLAGS": FLAGS,  # of one device
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "2",
        }

    def start(
        self, name: str, *options: str, variant: str = "micro", num_processes: int = 1
    ) -> subprocess.Popen:
        launcher = [sys.executable, "-m", "launch.local", f"--num_processes={num_processes}", "--"]
        command = [
            *(launcher if num_processes > 1 else ()),
            *(sys.executable, "-m", self.module),
            f"--config={self.recipes}:{variant}",
            f"--workdir={self.folder / name}",
            *options,
        ]
        return subprocess.Popen(
            command,
            cwd=ROOT,
            env=self.environment,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def finish(self, process: subprocess.Popen) -> tuple[int, str]:
        """Exit status and standard error."""
        _, errors = process.communicate(timeout=300)
        return process.returncode, errors

    def reach(self, process: subprocess.Popen, name: str, step: int) -> None:
        """Waits until the run has logged `step`."""
        file = self.folder / name / "metrics.jsonl"
        while not (file.exists() and any(r["step"] >= step for r in metrics.read_rows(file))):
            assert process.poll() is None, process.communicate()[1]
            time.sleep(0.01)

    def pid_of(self, name: str, process: int) -> int:
        """The operating system's number of one of a run's processes."""
        for folder in pathlib.Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):  # it has ended meanwhile, or is not ours
                variables = (folder / "environ").read_bytes()
                command = (folder / "cmdline").read_bytes()
                its_number = f"JAX_PROCESS_ID={process}\0".encode() in variables  # no launcher's
                if its_number and f"--workdir={self.folder / name}\0".encode() in command:
                    return int(folder.name)
        raise AssertionError(f"{name} has no process {process}")

    def rows(self, name: str) -> list[dict]:
        return metrics.read_rows(self.folder / name / "metrics.jsonl")
