"""What every command shares: one line and status 2 for what a user can mend, a traceback else."""

import subprocess
import sys
import textwrap

import pytest

from experiments import cli
from tests.experiments.prompt_files import ROOT

# Every kind of end a command can take, in a process of its own: absl's flags are global.
SCRIPT = textwrap.dedent(
    '''
    """A command.

        python -m command --kind=bad
    """
    import sys
    from absl import flags
    from experiments import cli
    from flamingo_jax.prompts import PromptError
    KIND = flags.DEFINE_string("kind", "good", "How to end.")
    def main():
        if KIND.value == "mendable":
            raise PromptError("a.json:\\n no such file")
        if KIND.value == "read":
            with cli.user_input():
                int("x")
        if KIND.value == "ours":
            raise ValueError("a mistake of ours")
        return 143 if KIND.value == "stopped" else None
    cli.run(main)
    '''
)


def run(*arguments):
    command = [sys.executable, "-c", SCRIPT, *arguments]
    return subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)


@pytest.mark.parametrize(
    ("arguments", "status", "stderr"),
    [
        ([], 0, ""),
        (["--kind=stopped"], 143, ""),
        (["--kind=mendable"], 2, "error: a.json: no such file\n"),
        (["--kind=read"], 2, "error: invalid literal for int() with base 10: 'x'\n"),
        (
            ["--kin=x"],
            2,
            "error: Unknown command line flag 'kin'. Did you mean: kind ? (see --help)\n",
        ),
        (["x"], 2, "error: unexpected argument 'x': every option starts with -- (see --help)\n"),
    ],
)
def test_status_and_one_line(arguments, status, stderr):
    done = run(*arguments)
    assert (done.returncode, done.stderr) == (status, stderr)


def test_a_mistake_of_ours_keeps_its_traceback():
    done = run("--kind=ours")
    assert done.returncode not in (0, 2)
    assert "Traceback" in done.stderr


def test_help_explains_with_an_example_and_is_no_error():
    done = run("--help")
    assert done.returncode == 0
    assert "python -m command --kind=bad" in done.stdout
    assert "How to end." in done.stdout


def test_only_a_users_errors_are_turned():
    with pytest.raises(cli.UserError, match="bad value"), cli.user_input():
        raise ValueError("bad\nvalue")
    with pytest.raises(KeyError), cli.user_input():
        raise KeyError("ours")
