r"""A run on nodes of a SLURM cluster: submitted, looked after, saved and ended.

    python -m launch.slurm submit --name=flamingo --nodes=4 --gpus_per_node=8 --time=24:00:00 \
        -- python -m experiments.train --config=experiments/configs/flamingo.py:3b --workdir=runs/3b
    python -m launch.slurm status --name=flamingo
    python -m launch.slurm follow --name=flamingo
    python -m launch.slurm cancel --name=flamingo

`submit` hands `sbatch` a script, which `--dry_run` prints and does not submit. Before the time
limit the run is told to save; the script then queues its job again, and the same command goes on
from the checkpoint. So it is with jobs that SLURM takes nodes away from. Start it in the
repository's root, on a disk that all nodes see.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from launch import arguments, sbatch, steps
from launch.steps import Step

INSTALL = {
    "sbatch": "https://slurm.schedmd.com, and start it on a login node",
    "squeue": "https://slurm.schedmd.com, and start it on a login node",
    "scancel": "https://slurm.schedmd.com, and start it on a login node",
    "tail": "https://www.gnu.org/software/coreutils",
}
_TIME = re.compile(r"\d+(-\d+(:\d\d){0,2}|(:\d\d){0,2})")  # SLURM's: minutes, h:m:s, days-h:m:s


def submit(options: argparse.Namespace) -> list[Step]:
    """The job, to the queue; `sbatch` reads the script and answers with the job's number."""
    return [Step(["sbatch"], reads=sbatch.script(options))]


def status(options: argparse.Namespace) -> list[Step]:
    """Waiting or running, since when, until when, on which nodes or why not yet."""
    columns = "%.12i %.9P %.10T %.12M %.12l %.6D %R"
    return [Step(["squeue", "--me", f"--name={options.name}", f"--format={columns}"])]


def follow(options: argparse.Namespace) -> list[Step]:
    """What the run says, from the last lines on, over restarts too, until Ctrl-C."""
    return [Step(["tail", "-n", "50", "-F", "--", sbatch.log_of(options)])]


def cancel(options: argparse.Namespace) -> list[Step]:
    """Takes it from the queue; a run finishes its step, saves, and is not queued again."""
    mine = ["scancel", "--me", f"--name={options.name}"]
    return [
        Step([*mine, "--state=PENDING"]),
        Step([*mine, "--state=RUNNING", "--batch", f"--signal={sbatch.NOT_AGAIN}"]),
        Step([*mine, "--state=RUNNING", "--signal=TERM"]),
    ]


ACTIONS = {action.__name__: action for action in (submit, status, follow, cancel)}


def main(argv: Sequence[str]) -> int:
    """Runs the action's commands one after the other, until one fails; its status."""
    return steps.main(_parser(), argv, ACTIONS, _complaint, INSTALL)


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m launch.slurm", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--name", required=True, help="of the job")
    parser.add_argument("--log", help="file of all that it says; NAME.log by default")
    parser.add_argument("--nodes", type=arguments.positive, default=1)
    parser.add_argument("--gpus_per_node", type=arguments.count, help="submit; 0: on CPUs")
    parser.add_argument("--process_per_gpu", action="store_true", help="instead of one a node")
    parser.add_argument("--cpus_per_node", type=arguments.positive, help="for reading data")
    parser.add_argument("--time", help="limit, such as 24:00:00 or 2-00:00:00")
    parser.add_argument("--save_s", type=arguments.positive, default=120, help="before the limit")
    parser.add_argument("--partition")
    parser.add_argument("--account")
    parser.add_argument("--option", action="append", default=[], help="another one of sbatch")
    parser.add_argument("--venv", default=".venv", help="environment; empty: the one there is")
    parser.add_argument("--dry_run", action="store_true", help="print the script, submit nothing")
    return parser


def _complaint(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together, and how to mend it."""
    if not re.fullmatch(r"[\w.-]+", options.name):
        return f"--name={options.name}: write letters, digits, points, - and _ only"
    for name in ("log", "time", "partition", "account", "venv"):
        if "\n" in (getattr(options, name) or ""):
            return f"--{name}: write it in one line"
    if options.action != "submit":
        if options.command:
            return f"{options.action} takes no command behind --"
        return None
    if not options.command:
        return "no command: write it behind --, as in -- python -m experiments.train ..."
    if options.time and not _TIME.fullmatch(options.time):
        return f"--time={options.time}: write minutes, 24:00:00 or 2-00:00:00"
    if options.gpus_per_node is None:
        return "--gpus_per_node: say how many GPUs of a node the run takes; 0: it runs on CPUs"
    if options.process_per_gpu and not options.gpus_per_node:
        return "--process_per_gpu: there are none with --gpus_per_node=0"
    for option in options.option:
        if not re.fullmatch(r"--[a-z][\w-]*(=.*)?", option):
            return f"--option={option}: write one of sbatch's, as in --option=--mem=0"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
