"""The manifest of a run on GKE: a JobSet of slices, or of GPU nodes, with one process a host.

What it relies on: the JobSet controller (`jobset.x-k8s.io/v1alpha2`) gives every pod a name in the
cluster's DNS and, by `exclusive-topology`, every slice a node pool to itself; GKE tells the pods of
a slice and of several slices who is who (`TPU_WORKER_HOSTNAMES`, `MEGASCALE_...`), and JAX reads
it. On GPUs the three variables of `experiments.training.processes` do.

A process that SIGTERM ends has saved and exits with 143, and a pod whose node is taken away has the
condition DisruptionTarget: after both, all begin again, as often as it takes. After any other
failure they do `max_restarts` times.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

from launch.tpu_slices import Slice

Object = dict[str, Any]

PORT = 8476  # of the coordinator on GPUs; on a TPU JAX has its own
REPLICATED = "hosts"  # the part of a pod's name between the run's and its numbers
CONTAINER = "run"
GRACE_S = 300  # to save in after `delete`; a spot node goes after 30 seconds all the same
SAVED = 143  # the status of a run that SIGTERM ended
_INDEX = "metadata.annotations['batch.kubernetes.io/job-completion-index']"
# As gcsfuse sets it by itself on accelerators: a checkpoint is a folder that gets its name last.
_BUCKET_OPTIONS = "implicit-dirs,file-system:rename-dir-limit:200000"


@dataclasses.dataclass(frozen=True)
class Gpus:
    """Nodes of one GPU type, all of whose GPUs are taken."""

    label: str  # such as nvidia-h100-80gb
    per_node: int
    num_nodes: int


@dataclasses.dataclass(frozen=True)
class Mount:
    """A bucket (`gs://NAME`) or a claim of a volume, and where pods see it."""

    source: str
    path: str

    @property
    def bucket(self) -> str | None:
        return self.source.removeprefix("gs://") if self.source.startswith("gs://") else None


@dataclasses.dataclass(frozen=True)
class Run:
    """What is run, where, and in how many slices."""

    name: str
    namespace: str
    image: str
    command: Sequence[str]
    devices: Slice | Gpus
    num_slices: int = 1
    spot: bool = False
    mounts: Sequence[Mount] = ()
    environment: Sequence[tuple[str, str]] = ()
    service_account: str | None = None
    max_restarts: int = 10


def manifest(run: Run) -> Object:
    """The JobSet."""
    on_tpu = isinstance(run.devices, Slice)
    pool = {"alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"}
    hosts = run.devices.num_hosts if on_tpu else run.devices.num_nodes
    return {
        "apiVersion": "jobset.x-k8s.io/v1alpha2",
        "kind": "JobSet",
        "metadata": {
            "name": run.name,
            "namespace": run.namespace,
            **({"annotations": pool} if on_tpu else {}),
        },
        "spec": {
            "network": {"enableDNSHostnames": True, "publishNotReadyAddresses": True},
            "failurePolicy": {
                "maxRestarts": run.max_restarts,
                "rules": [
                    {
                        "name": "takenAway",
                        "action": "RestartJobSetAndIgnoreMaxRestarts",
                        "onJobFailureReasons": ["PodFailurePolicy"],
                    }
                ],
            },
            "replicatedJobs": [
                {
                    "name": REPLICATED,
                    "replicas": run.num_slices,
                    "template": {"spec": _job(run, hosts)},
                }
            ],
        },
    }


def _job(run: Run, num_hosts: int) -> Object:
    saved = {"containerName": CONTAINER, "operator": "In", "values": [SAVED]}
    annotations = (
        {"gke-gcsfuse/volumes": "true"} if any(mount.bucket for mount in run.mounts) else {}
    )
    return {
        "completionMode": "Indexed",
        "completions": num_hosts,
        "parallelism": num_hosts,
        "backoffLimit": 0,  # a pod alone cannot come back into a run
        "podFailurePolicy": {
            "rules": [
                {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]},
                {"action": "FailJob", "onExitCodes": saved},
            ]
        },
        "template": {
            **({"metadata": {"annotations": annotations}} if annotations else {}),
            "spec": _pod(run),
        },
    }


def _pod(run: Run) -> Object:
    gpus = isinstance(run.devices, Gpus)
    where = (
        {"cloud.google.com/gke-accelerator": run.devices.label}
        if gpus
        else {
            "cloud.google.com/gke-tpu-accelerator": run.devices.label,
            "cloud.google.com/gke-tpu-topology": run.devices.topology,
        }
    )
    spot = {"cloud.google.com/gke-spot": "true"} if run.spot else {}
    pod: Object = {
        "restartPolicy": "Never",
        "terminationGracePeriodSeconds": GRACE_S,
        "hostNetwork": True,  # the network as fast as the host has it
        "dnsPolicy": "ClusterFirstWithHostNet",
        "nodeSelector": where | spot,
    }
    if run.spot:
        taint = {"key": "cloud.google.com/gke-spot", "operator": "Equal", "value": "true"}
        pod["tolerations"] = [taint | {"effect": "NoSchedule"}]
    if run.service_account:
        pod["serviceAccountName"] = run.service_account
    pod["containers"] = [_container(run)]
    volumes = [_volume(index, mount) for index, mount in enumerate(run.mounts)]
    if gpus:  # NCCL wants more than the 64 MiB of a container
        volumes.append({"name": "shm", "emptyDir": {"medium": "Memory"}})
    return pod | ({"volumes": volumes} if volumes else {})


def _container(run: Run) -> Object:
    gpus = isinstance(run.devices, Gpus)
    limits = (
        {"nvidia.com/gpu": run.devices.per_node}
        if gpus
        else {"google.com/tpu": run.devices.chips_per_host}
    )
    seen = [{"name": f"mount-{i}", "mountPath": m.path} for i, m in enumerate(run.mounts)]
    if gpus:
        seen.append({"name": "shm", "mountPath": "/dev/shm"})
    return {
        "name": CONTAINER,
        "image": run.image,
        "command": [_literal(word) for word in run.command],
        "env": _who_is_who(run) + [_variable(n, _literal(v)) for n, v in run.environment],
        # libtpu locks memory for the chips, more than an ordinary container may
        **({} if gpus else {"securityContext": {"privileged": True}}),
        "resources": {"limits": limits},
        **({"volumeMounts": seen} if seen else {}),
    }


def _who_is_who(run: Run) -> list[Object]:
    """Without the platform's name JAX would go on with the CPU where it finds no device."""
    unbuffered = _variable("PYTHONUNBUFFERED", "1")
    if isinstance(run.devices, Slice):
        return [_variable("JAX_PLATFORMS", "tpu,cpu"), unbuffered]
    values = {
        "JAX_PLATFORMS": "cuda,cpu",
        "JAX_COORDINATOR_ADDRESS": f"{run.name}-{REPLICATED}-0-0.{run.name}:{PORT}",
        "JAX_NUM_PROCESSES": str(run.devices.num_nodes),
        "JAX_LOCAL_DEVICE_IDS": ",".join(map(str, range(run.devices.per_node))),
    }
    index = {"name": "JAX_PROCESS_ID", "valueFrom": {"fieldRef": {"fieldPath": _INDEX}}}
    return [*(_variable(n, v) for n, v in values.items()), index, unbuffered]


def _variable(name: str, value: str) -> Object:
    return {"name": name, "value": value}


def _literal(text: str) -> str:
    """Kubernetes puts a variable in the place of `$(NAME)`, but not of `$$(NAME)`."""
    return text.replace("$(", "$$(")


def _volume(index: int, mount: Mount) -> Object:
    name = f"mount-{index}"
    if mount.bucket:
        attributes = {
            "bucketName": mount.bucket,
            "mountOptions": _BUCKET_OPTIONS,
            "hostNetworkPodKSA": "true",  # who one is there, also on the host's network
        }
        driver = {"driver": "gcsfuse.csi.storage.gke.io", "volumeAttributes": attributes}
        return {"name": name, "csi": driver}
    return {"name": name, "persistentVolumeClaim": {"claimName": mount.source}}
