"""The manifest, parsed and held against cases worked by hand; kubectl's commands; misuse."""

import itertools
import os
import shlex

import pytest
import yaml

from flamingo_jax.aot import chips
from launch import gke, tpu_slices

APPLY = ("apply", "--name=flamingo", "--image=registry/flamingo:1")
TRAIN = ("--", "python", "-m", "experiments.train", "--workdir=/mnt/a b/$(HOME)/it's")


def printed(capsys, action: str, *more: str) -> str:
    assert gke.main([action, "--dry_run", *more]) == 0
    return capsys.readouterr().out


def job_of(manifest: dict) -> dict:
    (job,) = manifest["spec"]["replicatedJobs"]
    return job["template"]["spec"]


def pod_of(manifest: dict) -> dict:
    return job_of(manifest)["template"]["spec"]


def container_of(manifest: dict) -> dict:
    (container,) = pod_of(manifest)["containers"]
    return container


def applied(capsys, *more: str, command=TRAIN) -> dict:
    return yaml.safe_load(printed(capsys, *APPLY, *more, *command))


@pytest.mark.parametrize(
    ("tpu", "more", "label", "hosts", "chips_per_host"),
    [
        ("v5p:4x4x4", (), "tpu-v5p-slice", 16, 4),
        ("v5p:2x2x1", (), "tpu-v5p-slice", 1, 4),
        ("v4:2x4x4", (), "tpu-v4-podslice", 8, 4),
        ("v5e:16x16", (), "tpu-v5-lite-podslice", 64, 4),
        ("v5e:2x4", ("--chips_per_host=8",), "tpu-v5-lite-podslice", 1, 8),
        ("v6e:16x16", (), "tpu-v6e-slice", 64, 4),
        ("v6e:2x4", (), "tpu-v6e-slice", 2, 4),
        ("v6e:1x1", (), "tpu-v6e-slice", 1, 1),
    ],
)
def test_a_slice(tpu, more, label, hosts, chips_per_host, capsys):
    manifest = applied(capsys, f"--tpu={tpu}", *more)
    assert (manifest["apiVersion"], manifest["kind"]) == ("jobset.x-k8s.io/v1alpha2", "JobSet")
    job = job_of(manifest)
    assert job["completionMode"] == "Indexed"
    assert job["completions"] == job["parallelism"] == hosts
    assert pod_of(manifest)["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": label,
        "cloud.google.com/gke-tpu-topology": tpu.partition(":")[2],
    }
    assert container_of(manifest)["resources"]["limits"] == {"google.com/tpu": chips_per_host}


def test_the_shapes_are_those_that_the_compiler_is_asked_for():
    """Whatever slice `aot_compile` knows can be launched, its sides from the smallest on."""
    assert set(tpu_slices.GENERATIONS) == set(chips.CHIPS)
    for name, chip in chips.CHIPS.items():
        known = {tuple(sorted(shape)) for shape in chip.shapes} - {(1, 2, 2)}
        known |= {(2, 2, 1)} if chip.dims == 3 else set()
        largest = max(itertools.chain(*chip.shapes)) + 4
        sides = [1, 2, *range(4, largest + 1, 4)]
        for shape in itertools.product(sides, repeat=chip.dims):
            topology = f"{name}:{'x'.join(map(str, shape))}"
            if shape in known:
                assert tpu_slices.parse(topology).num_hosts >= 1
            else:
                with pytest.raises(ValueError, match="there is no such slice"):
                    tpu_slices.parse(topology)


def test_several_slices_are_copies_of_one_job_each_on_its_own_nodes(capsys):
    manifest = applied(capsys, "--tpu=v6e:4x4", "--num_slices=3")
    (job,) = manifest["spec"]["replicatedJobs"]
    assert (job["replicas"], job_of(manifest)["completions"]) == (3, 4)
    assert manifest["metadata"]["annotations"] == {
        "alpha.jobset.sigs.k8s.io/exclusive-topology": "cloud.google.com/gke-nodepool"
    }
    names = {variable["name"] for variable in container_of(manifest)["env"]}
    assert not {name for name in names if "MEGASCALE" in name}  # GKE says it


def test_gpu_nodes_are_told_who_is_who(capsys):
    manifest = applied(capsys, "--gpu=nvidia-h100-80gb", "--nodes=2", "--gpus_per_node=4")
    assert job_of(manifest)["completions"] == 2
    label = {"cloud.google.com/gke-accelerator": "nvidia-h100-80gb"}
    assert pod_of(manifest)["nodeSelector"] == label
    assert container_of(manifest)["resources"]["limits"] == {"nvidia.com/gpu": 4}
    told = {each["name"]: each for each in container_of(manifest)["env"]}
    values = {name: each["value"] for name, each in told.items() if "value" in each}
    assert values["JAX_NUM_PROCESSES"] == "2"
    assert values["JAX_COORDINATOR_ADDRESS"] == "flamingo-hosts-0-0.flamingo:8476"
    assert values["JAX_LOCAL_DEVICE_IDS"] == "0,1,2,3"
    path = told["JAX_PROCESS_ID"]["valueFrom"]["fieldRef"]["fieldPath"]
    assert path == "metadata.annotations['batch.kubernetes.io/job-completion-index']"
    assert "securityContext" not in container_of(manifest)


def test_what_is_taken_away_begins_again_and_is_not_counted(capsys):
    manifest = applied(capsys, "--tpu=v5p:4x4x4", "--spot", "--max_restarts=3")
    pod, job, policy = pod_of(manifest), job_of(manifest), manifest["spec"]["failurePolicy"]
    assert pod["nodeSelector"]["cloud.google.com/gke-spot"] == "true"
    assert pod["tolerations"][0]["key"] == "cloud.google.com/gke-spot"
    assert (pod["restartPolicy"], job["backoffLimit"]) == ("Never", 0)
    disrupted, saved = job["podFailurePolicy"]["rules"]
    assert disrupted == {"action": "FailJob", "onPodConditions": [{"type": "DisruptionTarget"}]}
    assert (saved["action"], saved["onExitCodes"]["values"]) == ("FailJob", [143])
    assert saved["onExitCodes"]["containerName"] == container_of(manifest)["name"]
    (rule,) = policy["rules"]
    assert rule["action"] == "RestartJobSetAndIgnoreMaxRestarts"
    assert rule["onJobFailureReasons"] == ["PodFailurePolicy"]
    assert policy["maxRestarts"] == 3


def test_the_command_is_words_in_which_kubernetes_puts_nothing(capsys):
    manifest = applied(capsys, "--tpu=v6e:1x1", "--env=A=$(B) c")
    *_, workdir = container_of(manifest)["command"]
    assert workdir == "--workdir=/mnt/a b/$$(HOME)/it's"
    assert {"name": "A", "value": "$$(B) c"} in container_of(manifest)["env"]


@pytest.mark.parametrize("word", ["yes", "12", "1e3", "null", "a: b", "- x", "", "x\ny", "~", "#"])
def test_texts_stay_texts(word, capsys):
    manifest = applied(capsys, "--tpu=v6e:1x1", command=("--", "echo", word))
    assert container_of(manifest)["command"] == ["echo", word]


def test_buckets_and_claims_are_mounted(capsys):
    mounts = ("--mount=gs://bucket:/mnt/shared", "--mount=filestore:/data")
    manifest = applied(capsys, "--tpu=v6e:4x4", *mounts, "--service_account=trainer")
    bucket, claim = pod_of(manifest)["volumes"]
    assert bucket["csi"]["driver"] == "gcsfuse.csi.storage.gke.io"
    attributes = bucket["csi"]["volumeAttributes"]
    assert attributes["bucketName"] == "bucket"
    assert attributes["hostNetworkPodKSA"] == "true"  # the pod is on its host's network
    assert pod_of(manifest)["hostNetwork"]
    assert claim["persistentVolumeClaim"] == {"claimName": "filestore"}
    seen = {each["name"]: each["mountPath"] for each in container_of(manifest)["volumeMounts"]}
    assert seen == {bucket["name"]: "/mnt/shared", claim["name"]: "/data"}
    template = job_of(manifest)["template"]
    assert template["metadata"]["annotations"] == {"gke-gcsfuse/volumes": "true"}
    assert template["spec"]["serviceAccountName"] == "trainer"


def test_kubectl_reads_the_manifest(capfd, monkeypatch, tmp_path):
    (tmp_path / "kubectl").write_text('#!/bin/sh\necho "# $*"; cat\n')
    (tmp_path / "kubectl").chmod(0o755)
    manifest = printed(capfd, *APPLY, "--tpu=v6e:4x4", *TRAIN)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert gke.main([*APPLY, "--context=c", "--tpu=v6e:4x4", *TRAIN]) == 0
    first, rest = capfd.readouterr().out.split("\n", 1)
    assert first == "# --context=c --namespace=default apply --filename=-"
    assert rest == manifest


def test_logs_are_those_of_one_host(capsys):
    (line,) = printed(capsys, "logs", "--name=f", "--slice=1", "--host=3").splitlines()
    (selector,) = [word for word in shlex.split(line) if word.startswith("--selector=")]
    assert set(selector.removeprefix("--selector=").split(",")) == {
        "jobset.sigs.k8s.io/jobset-name=f",
        "jobset.sigs.k8s.io/job-index=1",
        "batch.kubernetes.io/job-completion-index=3",
    }


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*APPLY, "--tpu=v5p:4x4x4"), "write it behind --"),
        (("apply", "--name=f", "--tpu=v6e:4x4", *TRAIN), "--image: name the image"),
        (("apply", "--name=My_run", *TRAIN), "small letters, digits and -"),
        ((*APPLY, *TRAIN), "either --tpu, such as v5p:4x4x4, or --gpu"),
        ((*APPLY, "--tpu=v6e:4x4", "--gpu=nvidia-l4", *TRAIN), "either --tpu"),
        ((*APPLY, "--tpu=v5p", *TRAIN), "write GENERATION:TOPOLOGY"),
        ((*APPLY, "--tpu=v9:4x4", *TRAIN), "use one of ['v4', 'v5e', 'v5p', 'v6e']"),
        ((*APPLY, "--tpu=v6e:16x8", *TRAIN), "8x16"),
        ((*APPLY, "--tpu=v5p:4x4", *TRAIN), "no such slice, use 2x2x1"),
        ((*APPLY, "--tpu=v5p:4x4x4", "--chips_per_host=8", *TRAIN), "4 chips each, not 8"),
        ((*APPLY, "--tpu=v6e:2x2", "--num_slices=2", *TRAIN), "joins slices of several hosts"),
        ((*APPLY, "--gpu=nvidia-l4", "--num_slices=2", *TRAIN), "are of TPUs"),
        ((*APPLY, "--gpu=NVIDIA H100", *TRAIN), "write GKE's name"),
        ((*APPLY, "--tpu=v6e:1x1", "--mount=/mnt", *TRAIN), "write gs://BUCKET:/PATH"),
        ((*APPLY, "--tpu=v6e:1x1", "--env=A", *TRAIN), "write NAME=VALUE"),
        (("logs", "--name=f", "--", "true"), "logs takes no command"),
        (("stop", "--name=f"), "invalid choice: 'stop'"),
    ],
)
def test_misuse_is_one_line_and_status_2(arguments, words, capsys):
    with pytest.raises(SystemExit) as end:
        gke.main(arguments)
    assert end.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert words in line
