r"""A TPU slice by name: rented, set up, started on all hosts, watched, given back.

    python -m launch.tpu_vm create --name=flamingo --zone=us-east5-a --type=v5p-128 --queued --spot
    python -m launch.tpu_vm status --name=flamingo --zone=us-east5-a --queued
    python -m launch.tpu_vm install --name=flamingo --zone=us-east5-a
    python -m launch.tpu_vm run --name=flamingo --zone=us-east5-a -- python -m experiments.train \
        --config=experiments/configs/flamingo.py:3b --workdir=gs://BUCKET/runs/3b
    python -m launch.tpu_vm tail --name=flamingo --zone=us-east5-a
    python -m launch.tpu_vm stop --name=flamingo --zone=us-east5-a
    python -m launch.tpu_vm delete --name=flamingo --zone=us-east5-a --queued

Each action is a few `gcloud` commands, which `--dry_run` prints and does not run. Several slices
(`--num_slices`) are one queued resource; say the same number to every action.
"""

import argparse
import pathlib
import re
import sys
import tempfile
from collections.abc import Callable, Sequence

from launch import arguments, steps

Command = list[str]

# The image that the Cloud TPU API wants for each generation, by the first part of the type.
IMAGES = {
    "v4": "tpu-ubuntu2204-base",
    "v5litepod": "v2-alpha-tpuv5-lite",
    "v5p": "v2-alpha-tpuv5",
    "v6e": "v2-alpha-tpuv6e",
}
INSTALL = {  # how to get what is run here
    "gcloud": "https://cloud.google.com/sdk/docs/install",
    "git": "https://git-scm.com/downloads",
}
FOLDER = "flamingo_jax"  # of a host's home
ARCHIVE = f"{FOLDER}.tar.gz"
LOG, PID_FILE = "run.log", "run.pid"


def create(options: argparse.Namespace) -> list[Command]:
    """A slice at once, or a request for slices that waits until there are any."""
    what = [f"--accelerator-type={options.type}"]
    spot = ["--spot"] if options.spot else []
    if not options.queued:
        image = f"--version={image_of(options.type)}"
        return [[*_gcloud("tpu-vm", "create", options.name, options), *what, image, *spot]]
    if options.num_slices > 1:
        nodes = [f"--node-prefix={options.name}", f"--node-count={options.num_slices}"]
    else:
        nodes = [f"--node-id={options.name}"]
    limit = [f"--valid-until-duration={options.valid_for}"] if options.valid_for else []
    image = f"--runtime-version={image_of(options.type)}"
    request = _gcloud("queued-resources", "create", options.name, options)
    return [[*request, *nodes, *what, image, *spot, *limit]]


def status(options: argparse.Namespace) -> list[Command]:
    """The state of the request, or of the slice: it can be used once it says ACTIVE or READY."""
    if options.queued:
        describe = _gcloud("queued-resources", "describe", options.name, options)
        return [[*describe, "--format=value(state.state)"]]
    return [
        [*_gcloud("tpu-vm", "describe", node, options), "--format=value(state)"]
        for node in nodes_of(options)
    ]


def install(options: argparse.Namespace) -> list[Command]:
    """The last commit's files to every host, and Python with what they need.

    The images have Python 3.10, which is too old; uv brings 3.11.
    """
    archive = pathlib.Path(tempfile.gettempdir()) / ARCHIVE
    line = " && ".join(
        (
            f"rm -rf {FOLDER} && mkdir {FOLDER} && tar -xzf {ARCHIVE} -C {FOLDER}",
            f"cd {FOLDER} && python3 -m pip install -q --user uv",
            "~/.local/bin/uv venv -q --python 3.11 .venv",
            f"~/.local/bin/uv pip install -q -e '.[{options.extras}]'",
        )
    )
    commands = [["git", "archive", "--format=tar.gz", f"--output={archive}", "HEAD"]]
    for node in nodes_of(options):
        target = _gcloud("tpu-vm", "scp", str(archive), options)
        commands.append([*target[:-1], f"{node}:{ARCHIVE}", target[-1], "--worker=all"])
        commands.append(_on_hosts(node, options, line))
    return commands


def run(options: argparse.Namespace) -> list[Command]:
    """The command on every host, in the background; what it says goes to a file there."""
    line = " && ".join(
        (
            f"cd {FOLDER} && . .venv/bin/activate",
            f"{{ nohup {arguments.typed(options.command)} > {LOG} 2>&1 & }}",
            f"echo $! > {PID_FILE}",
        )
    )
    return [_on_hosts(node, options, line) for node in nodes_of(options)]


def tail(options: argparse.Namespace) -> list[Command]:
    """What one host says, from the last lines on, until Ctrl-C; only host 0 shows progress."""
    node = nodes_of(options)[0]
    return [_on_hosts(node, options, f"tail -n 50 -F {FOLDER}/{LOG}", worker=options.worker)]


def stop(options: argparse.Namespace) -> list[Command]:
    """SIGTERM to every host's process: the run finishes its step and saves."""
    line = f"kill -TERM $(cat {FOLDER}/{PID_FILE})"
    return [_on_hosts(node, options, line) for node in nodes_of(options)]


def delete(options: argparse.Namespace) -> list[Command]:
    """Gives everything back; disks of the hosts are lost."""
    if options.queued:
        request = _gcloud("queued-resources", "delete", options.name, options)
        return [[*request, "--force", "--quiet"]]
    nodes = nodes_of(options)
    return [[*_gcloud("tpu-vm", "delete", node, options), "--quiet"] for node in nodes]


ACTIONS = {action.__name__: action for action in (create, status, install, run, tail, stop, delete)}


def main(argv: Sequence[str]) -> int:
    """Runs the action's commands one after the other, until one fails; its status."""

    def typed(action: Callable[[argparse.Namespace], list[Command]]):
        return lambda options: [steps.Step(words) for words in action(options)]

    actions = {name: typed(action) for name, action in ACTIONS.items()}
    return steps.main(_parser(), argv, actions, _complaint, INSTALL)


def image_of(accelerator: str) -> str:
    """The image for a type such as v5p-128; KeyError for a generation that is not known."""
    return IMAGES[accelerator.partition("-")[0]]


def nodes_of(options: argparse.Namespace) -> list[str]:
    """The slices' names, as a queued resource numbers them."""
    if options.num_slices == 1:
        return [options.name]
    return [f"{options.name}-{i}" for i in range(options.num_slices)]


def _gcloud(group: str, verb: str, name: str, options: argparse.Namespace) -> Command:
    project = [f"--project={options.project}"] if options.project else []
    return ["gcloud", "compute", "tpus", group, verb, name, *project, f"--zone={options.zone}"]


def _on_hosts(node: str, options: argparse.Namespace, line: str, worker: str = "all") -> Command:
    ssh = _gcloud("tpu-vm", "ssh", node, options)
    return [*ssh, f"--worker={worker}", f"--command={line}"]


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m launch.tpu_vm", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--name", required=True, help="of the slice, and of its queued resource")
    parser.add_argument("--zone", required=True, help="such as us-east5-a")
    parser.add_argument("--project", help="gcloud's current one by default")
    parser.add_argument("--type", help="create: generation and size, such as v5p-128")
    parser.add_argument("--queued", action="store_true", help="a request that waits for its turn")
    parser.add_argument("--spot", action="store_true", help="create: cheaper, taken away any time")
    parser.add_argument("--valid_for", help="create --queued: give up after this time, such as 6h")
    parser.add_argument("--num_slices", type=arguments.positive, default=1)
    parser.add_argument("--extras", default="demo,gcs,tpu", help="install: parts of setup.py")
    parser.add_argument("--worker", default="0", help="tail: the number of a host")
    parser.add_argument("--dry_run", action="store_true", help="print the commands, run none")
    return parser


def _complaint(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together, and how to mend it."""
    if options.action == "create":
        if not options.type or not re.fullmatch(r"\w+-\d+", options.type):
            return f"--type={options.type}: write generation and size, such as v5p-128"
        if options.type.partition("-")[0] not in IMAGES:
            return f"--type={options.type}: unknown generation, use one of {sorted(IMAGES)}"
        if options.num_slices > 1 and not options.queued:
            return "--num_slices: several slices come as one queued resource, add --queued"
        if options.valid_for and not options.queued:
            return "--valid_for: only a queued resource waits, add --queued"
    if options.action == "run" and not options.command:
        return "no command: write it behind --, as in -- python -m experiments.train ..."
    if options.action != "run" and options.command:
        return f"{options.action} takes no command behind --"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
