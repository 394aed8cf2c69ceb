"""What every command shares: one line and status 2 for what a user can mend, a traceback else."""

import json
import subprocess
import sys
import textwrap

import pytest

from experiments import cli
from tests.experiments.prompt_files import ROOT

# Every kind of end that a command can take, each in a process of its own, as flags are global;
# forked behind the imports, which take seconds.
SCRIPT = textwrap.dedent(
    '''
    """A command.

        python -m command --kind=bad
    """
    import json
    import os
    import sys
    import tempfile
    from absl import flags
    from experiments import cli
    from flamingo_jax.prompts import PromptError
    import jax
    from ml_collections import config_flags
    KIND = flags.DEFINE_string("kind", "good", "How to end.")
    CONFIG = config_flags.DEFINE_config_file("config", None, "Recipe.")
    def main():
        if KIND.value == "mendable":
            raise PromptError("a.json:\\n no such file")
        if KIND.value == "read":
            with cli.user_input():
                int("x")
        if KIND.value == "recipe":
            CONFIG.value.steps
        if KIND.value == "device memory":
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Allocating 9 bytes.\\n and more")
        if KIND.value == "host memory":
            raise MemoryError("Unable to allocate 9 GiB")
        if KIND.value == "device":
            raise jax.errors.JaxRuntimeError("INTERNAL: a mistake of ours")
        if KIND.value == "interrupted":
            raise KeyboardInterrupt
        if KIND.value == "ours":
            raise ValueError("a mistake of ours")
        return 143 if KIND.value == "stopped" else None
    def end(arguments):
        files = [tempfile.TemporaryFile() for _ in range(2)]
        child = os.fork()
        if not child:
            os.dup2(files[0].fileno(), 1)
            os.dup2(files[1].fileno(), 2)
            sys.argv[1:] = arguments
            cli.run(main)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for file in files:
            file.seek(0)
        return status, *(file.read().decode() for file in files)
    print(json.dumps([end(arguments) for arguments in json.loads(sys.argv[1])]))
    '''
)

ENDS = [
    ([], 0, ""),
    (["--kind=stopped"], 143, ""),
    (["--kind=mendable"], 2, "error: a.json: no such file\n"),
    (["--kind=read"], 2, "error: invalid literal for int() with base 10: 'x'\n"),
    (
        ["--kind=device memory"],
        2,
        "error: out of memory (Allocating 9 bytes.): use shorter or fewer prompts; in training "
        "smaller batches, more microbatches or more devices\n",
    ),
    (
        ["--kind=host memory"],
        2,
        "error: out of memory (Unable to allocate 9 GiB): use shorter or fewer prompts; in "
        "training smaller batches, more microbatches or more devices\n",
    ),
    (
        ["--kind=recipe", "--config=none.py:demo"],
        2,
        "error: recipe none.py: No such file or directory: write PATH.py:VARIANT, as "
        "experiments/configs/flamingo.py:demo in the repository's root\n",
    ),
    (
        ["--config=none.py", "--config.steps=3"],
        2,
        "error: --config: recipe none.py: No such file or directory: write PATH.py:VARIANT, as "
        "experiments/configs/flamingo.py:demo in the repository's root\n",
    ),
    (
        ["--config=experiments/configs/base.py"],
        2,
        "error: --config: the file is no recipe, for it has no function get_config\n",
    ),
    (
        ["--config=experiments/configs/flamingo.py:micro", "--config.steps.x=1"],
        2,
        "error: --config: the recipe has no key 'steps.x'. Its keys are in its file\n",
    ),
    (["--kind=interrupted"], 130, "interrupted\n"),
    (
        ["--kin=x"],
        2,
        "error: Unknown command line flag 'kin'. Did you mean: kind ? (see --help)\n",
    ),
    (["x"], 2, "error: unexpected argument 'x': every option starts with -- (see --help)\n"),
]
OURS, DEVICE, HELP = ["--kind=ours"], ["--kind=device"], ["--help"]


@pytest.fixture(scope="module")
def ended():
    """(status, output, errors) by arguments."""
    asked = [*(arguments for arguments, *_ in ENDS), OURS, DEVICE, HELP]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, json.dumps(asked)],
        capture_output=True,
        text=True,
        cwd=ROOT,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return dict(zip(map(str, asked), json.loads(done.stdout), strict=True))


@pytest.mark.parametrize(("arguments", "status", "stderr"), ENDS)
def test_status_and_one_line(ended, arguments, status, stderr):
    found, _, errors = ended[str(arguments)]
    assert (found, errors) == (status, stderr)


@pytest.mark.parametrize("arguments", [OURS, DEVICE])
def test_a_mistake_of_ours_keeps_its_traceback(ended, arguments):
    status, _, errors = ended[str(arguments)]
    assert status not in (0, 2)
    assert "Traceback" in errors


def test_help_explains_with_an_example_and_is_no_error(ended):
    status, output, _ = ended[str(HELP)]
    assert status == 0
    assert "python -m command --kind=bad" in output
    assert "How to end." in output


def test_only_a_users_errors_are_turned():
    with pytest.raises(cli.UserError, match="bad value"), cli.user_input():
        raise ValueError("bad\nvalue")
    with pytest.raises(KeyError), cli.user_input():
        raise KeyError("ours")
