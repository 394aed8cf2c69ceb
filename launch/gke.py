r"""A run on Google Kubernetes Engine: on TPU slices or GPU nodes, started again when they are lost.

    python -m launch.gke apply --name=flamingo --image=IMAGE --tpu=v5p:4x4x4 --spot \
        -- python -m experiments.train \
        --config=experiments/configs/flamingo.py:3b --workdir=gs://BUCKET/runs/3b
    python -m launch.gke status --name=flamingo
    python -m launch.gke logs --name=flamingo
    python -m launch.gke delete --name=flamingo

`apply` hands `kubectl` a manifest, which `--dry_run` prints and does not apply. The cluster has the
JobSet controller, and node pools of the type or the permission to make some. `delete` lets the run
finish its step and save.
"""

import argparse
import re
import sys
from collections.abc import Sequence

from launch import arguments, jobset, steps, tpu_slices, yaml_text
from launch.steps import Step

INSTALL = {"kubectl": "https://kubernetes.io/docs/tasks/tools"}
_NAME = re.compile(r"[a-z]([a-z0-9-]{0,38}[a-z0-9])?")
_LABEL = "jobset.sigs.k8s.io"


def apply(options: argparse.Namespace) -> list[Step]:
    """The run, to the cluster."""
    text = yaml_text.dump(jobset.manifest(_run(options)))
    return [Step([*_kubectl(options), "apply", "--filename=-"], reads=text)]


def status(options: argparse.Namespace) -> list[Step]:
    """How often the run has begun again, whether it has ended, and where its pods are."""
    get = [*_kubectl(options), "get"]
    pods = f"--selector={_LABEL}/jobset-name={options.name}"
    return [
        Step([*get, "jobset", options.name]),
        Step([*get, "pods", pods, "--output=wide"]),
    ]


def logs(options: argparse.Namespace) -> list[Step]:
    """What one host says, from the last lines on, until Ctrl-C; only host 0 shows progress."""
    pod = {
        f"{_LABEL}/jobset-name": options.name,
        f"{_LABEL}/job-index": options.slice,
        "batch.kubernetes.io/job-completion-index": options.host,
    }
    selector = ",".join(f"{label}={value}" for label, value in pod.items())
    look = ["logs", "--follow", "--tail=50", f"--container={jobset.CONTAINER}"]
    return [Step([*_kubectl(options), *look, f"--selector={selector}"])]


def delete(options: argparse.Namespace) -> list[Step]:
    """Ends the run, and comes back when all its pods have saved and gone."""
    return [Step([*_kubectl(options), "delete", "jobset", options.name, "--cascade=foreground"])]


ACTIONS = {action.__name__: action for action in (apply, status, logs, delete)}


def main(argv: Sequence[str]) -> int:
    """Runs the action's commands one after the other, until one fails; its status."""
    return steps.main(_parser(), argv, ACTIONS, _complaint, INSTALL)


def _kubectl(options: argparse.Namespace) -> list[str]:
    context = [f"--context={options.context}"] if options.context else []
    return ["kubectl", *context, f"--namespace={options.namespace}"]


def _run(options: argparse.Namespace) -> jobset.Run:
    devices = (
        tpu_slices.parse(options.tpu, options.chips_per_host)
        if options.tpu
        else jobset.Gpus(options.gpu, options.gpus_per_node, options.nodes)
    )
    return jobset.Run(
        name=options.name,
        namespace=options.namespace,
        image=options.image,
        command=options.command,
        devices=devices,
        num_slices=options.num_slices,
        spot=options.spot,
        mounts=options.mount,
        environment=options.env,
        service_account=options.service_account,
        max_restarts=options.max_restarts,
    )


def _mount(text: str) -> jobset.Mount:
    """`SOURCE:PATH`, as a type of an argument."""
    source, _, path = text.rpartition(":")
    named = source.removeprefix("gs://")
    if not re.fullmatch(r"[a-z0-9][a-z0-9._-]*", named) or not path.startswith("/"):
        raise argparse.ArgumentTypeError(f"{text!r}: write gs://BUCKET:/PATH or CLAIM:/PATH")
    return jobset.Mount(source, path)


def _variable(text: str) -> tuple[str, str]:
    """`NAME=VALUE`, as a type of an argument."""
    name, equals, value = text.partition("=")
    if not equals or not re.fullmatch(r"[A-Za-z_]\w*", name):
        raise argparse.ArgumentTypeError(f"{text!r}: write NAME=VALUE")
    return name, value


def _parser() -> arguments.Parser:
    parser = arguments.Parser(prog="python -m launch.gke", description=__doc__)
    parser.add_argument("action", choices=ACTIONS)
    parser.add_argument("--name", required=True, help="of the run in the cluster")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--context", help="cluster; kubectl's current one by default")
    parser.add_argument("--image", help="apply: with this repository and what it needs")
    parser.add_argument("--tpu", help="apply: a slice, such as v5p:4x4x4")
    parser.add_argument("--chips_per_host", type=arguments.positive, help="8 for v5e:2x4 as one")
    parser.add_argument("--num_slices", type=arguments.positive, default=1)
    parser.add_argument("--gpu", help="apply: a type of GPU, such as nvidia-h100-80gb")
    parser.add_argument("--gpus_per_node", type=arguments.positive, default=8)
    parser.add_argument("--nodes", type=arguments.positive, default=1, help="with --gpu")
    parser.add_argument("--spot", action="store_true", help="cheaper, taken away any time")
    parser.add_argument("--mount", type=_mount, action="append", default=[], help="SOURCE:PATH")
    parser.add_argument("--env", type=_variable, action="append", default=[], help="NAME=VALUE")
    parser.add_argument("--service_account", help="of Kubernetes, that may read the buckets")
    parser.add_argument("--max_restarts", type=arguments.count, default=10, help="after failures")
    parser.add_argument("--slice", type=arguments.count, default=0, help="logs: its number")
    parser.add_argument("--host", type=arguments.count, default=0, help="logs: its number")
    parser.add_argument("--dry_run", action="store_true", help="print the manifest or the commands")
    return parser


def _complaint(options: argparse.Namespace) -> str | None:
    """What is wrong with the arguments together, and how to mend it."""
    if not _NAME.fullmatch(options.name):
        return f"--name={options.name}: write up to 40 small letters, digits and -"
    if options.action != "apply":
        return f"{options.action} takes no command behind --" if options.command else None
    if not options.command:
        return "no command: write it behind --, as in -- python -m experiments.train ..."
    if not options.image:
        return "--image: name the image that holds this repository and what it needs"
    if bool(options.tpu) == bool(options.gpu):
        return "give either --tpu, such as v5p:4x4x4, or --gpu, such as nvidia-h100-80gb"
    if options.gpu:
        if not re.fullmatch(r"[a-z0-9-]+", options.gpu):
            return f"--gpu={options.gpu}: write GKE's name, such as nvidia-h100-80gb"
        if options.num_slices > 1 or options.chips_per_host:
            return "--num_slices and --chips_per_host are of TPUs: give --nodes, --gpus_per_node"
        return None
    try:
        devices = tpu_slices.parse(options.tpu, options.chips_per_host)
    except ValueError as error:
        return f"--tpu={options.tpu}: {error}"
    if options.num_slices > 1 and devices.num_hosts == 1:
        return f"--num_slices: GKE joins slices of several hosts, and {options.tpu} has one"
    return None


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
