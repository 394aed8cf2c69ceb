"""The command that compiles for chips that are not there, misused: one line and status 2."""

import os
import subprocess
import sys

import pytest

from tests.experiments.prompt_files import ROOT

RUN = (
    "import runpy; runpy.run_module('experiments.aot_compile', run_name='__main__', alter_sys=True)"
)
RECIPE = "--config=experiments/configs/flamingo.py:micro"


def refused(*arguments: str, script: str = RUN) -> str:
    """What the command says, of a machine without a TPU."""
    outside = {name: value for name, value in os.environ.items() if not name.startswith("TPU_")}
    done = subprocess.run(
        [sys.executable, "-c", script, RECIPE, *arguments],
        cwd=ROOT, env=outside, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 2
    assert not done.stdout
    return done.stderr


def test_without_libtpu_the_install_command_is_said():
    script = f"import sys; sys.modules['libtpu'] = None; {RUN}"
    assert refused("--topology=v5e:2x2", script=script) == (
        "error: the TPU compiler is not installed: pip install 'flamingo_jax[tpu]'\n"
    )


def test_slices_of_recipe_and_flag_must_agree():
    """And libtpu, which has been asked for devices by then, adds nothing of its own."""
    pytest.importorskip("libtpu")
    assert refused("--topology=v5e:2x2", "--config.mesh.slice=2") == (
        "error: mesh.slice=2 with --num_slices=1: set both to the number of slices\n"
    )


@pytest.mark.parametrize(("flag", "name"), [("--json", "missing/step.json"), ("--hlo", ".")])
def test_a_file_that_cannot_be_written_is_said_before_anything_else(flag, name, tmp_path):
    said = refused("--topology=v6e:32x32", f"{flag}={tmp_path / name}")
    why = "cannot be written: name a file in a folder that is there"
    assert said == f"error: {flag}={tmp_path / name} {why}\n"


def test_what_takes_minutes_is_said_as_is_what_does_not_fit():
    pytest.importorskip("libtpu")
    script = (
        "from flamingo_jax.aot import report\n"
        "def compile_for(topology, lowered):\n"
        "    raise report.DoesNotFit(f'{topology.name} is full')\n"
        f"report.compile_for = compile_for\n{RUN}"
    )
    assert refused("--topology=v5e:2x2", script=script).splitlines() == [
        "lowering the train step for v5e:2x2 ...",
        "compiling it, which takes minutes where the model is large ...",
        "error: v5e:2x2 is full",
    ]


def test_no_program_is_kept_as_none_could_be_read_back():
    """JAX warned of it whenever the same step was compiled again."""
    pytest.importorskip("libtpu")
    script = (
        "import jax\nfrom flamingo_jax.aot import report\n"
        "def compile_for(topology, lowered):\n"
        "    raise report.DoesNotFit(f'kept: {jax.config.jax_enable_compilation_cache}')\n"
        f"report.compile_for = compile_for\n{RUN}"
    )
    assert refused("--topology=v5e:2x2", script=script).splitlines()[-1] == "error: kept: False"
