"""The script that `sbatch` takes: what is asked of SLURM, who is who, and going on after the limit.

SLURM numbers the processes that `srun` starts, and the script passes the numbers on in the three
variables of `experiments.training.processes`. JAX finds SLURM too, but only to give a process the
one GPU of its number on its node; `JAX_LOCAL_DEVICE_IDS` says instead which GPUs it has. The port
is the one that JAX would take: by the job's number, so that two jobs of a node have two.
"""

import argparse
import shlex

NOT_AGAIN = "USR1"  # to the script alone: when the run has saved, its job is not queued again

# `srun` may end the others when one process ends; here process 0 makes the report last.
_TEMPLATE = """\
#!/bin/bash
{requests}

{environment}head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export JAX_COORDINATOR_ADDRESS="$head:$((61440 + SLURM_JOB_ID % 4096))"
again=yes
trap 'again=no' {not_again}
srun --kill-on-bad-exit=0 --wait=0{cpus} bash -c '
  export JAX_NUM_PROCESSES=$SLURM_NTASKS JAX_PROCESS_ID=$SLURM_PROCID{devices}
  exec "$@"
' run {command}
status=$?
if [ "$status" = 143 ] && [ "$again" = yes ]; then  # it was told to end, and has saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
"""


def script(options: argparse.Namespace) -> str:
    """The whole script for `launch.slurm submit`."""
    cpus = options.cpus_per_node and max(1, options.cpus_per_node // _per_node(options))
    requests = {
        "job-name": options.name,
        "output": log_of(options),
        "open-mode": "append",
        "nodes": options.nodes,
        "ntasks-per-node": _per_node(options),
        "gpus-per-node": options.gpus_per_node or None,
        "cpus-per-task": cpus,
        "time": options.time,
        "signal": f"TERM@{options.save_s}",
        "partition": options.partition,
        "account": options.account,
    }
    lines = [f"--{name}={_word(value)}" for name, value in requests.items() if value is not None]
    lines += ["--requeue", *map(_option, options.option)]
    activate = shlex.quote(f"{options.venv}/bin/activate")
    return _TEMPLATE.format(
        requests="\n".join(f"#SBATCH {line}" for line in lines),
        environment=f". {activate}\n" if options.venv else "",
        not_again=NOT_AGAIN,
        cpus=f" --cpus-per-task={cpus}" if cpus else "",
        devices=_devices(options),
        command=shlex.join(options.command),
    )


def log_of(options: argparse.Namespace) -> str:
    """The file to which the job and all its restarts write."""
    return options.log or f"{options.name}.log"


def _per_node(options: argparse.Namespace) -> int:
    return options.gpus_per_node if options.process_per_gpu else 1


def _devices(options: argparse.Namespace) -> str:
    """Which of the node's GPUs a process has, for the line that exports who it is."""
    if not options.gpus_per_node:
        return ""
    if options.process_per_gpu:
        return " JAX_LOCAL_DEVICE_IDS=$SLURM_LOCALID"
    return " JAX_LOCAL_DEVICE_IDS=" + ",".join(map(str, range(options.gpus_per_node)))


def _option(option: str) -> str:
    name, equals, value = option.partition("=")
    return name + equals + (_word(value) if equals else "")


def _word(value: object) -> str:
    """As `sbatch` reads it, which takes quotes as a shell does."""
    return shlex.quote(str(value))
