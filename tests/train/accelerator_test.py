"""Peaks by name, and memory of the fullest device."""

import types

import jax
import pytest
from jax.experimental import topologies

from flamingo_jax.train import accelerator


def device(in_use=None, peak=None):
    stats = None if in_use is None else {"bytes_in_use": in_use, "peak_bytes_in_use": peak}
    return types.SimpleNamespace(memory_stats=lambda: stats)


def test_a_peak_is_known_by_name_and_dtype():
    assert accelerator.peak_tflops_per_s("TPU v5p", "bfloat16") == 459
    assert accelerator.peak_tflops_per_s("NVIDIA H200", "bfloat16") == pytest.approx(989.4)
    assert accelerator.peak_tflops_per_s("NVIDIA H100 PCIe", "bfloat16") == 756
    assert accelerator.peak_tflops_per_s("Tesla T4", "bfloat16") is None
    assert accelerator.peak_tflops_per_s("TPU v5p", "float32") is None
    assert accelerator.peak_tflops_per_s("cpu", "bfloat16") is None


@pytest.mark.parametrize(
    ("topology", "peak"),
    [
        ("v4:2x2x1", 275),
        ("v5e:2x2", 197),
        ("v5p:2x2x1", 459),
        ("v6e:2x2", 918),
        ("tpu7x:2x2x1", 2307 / 2),  # a chip is two devices
    ],
)
def test_tpus_are_known_by_the_names_that_libtpu_gives(topology, peak, monkeypatch):
    pytest.importorskip("libtpu")
    monkeypatch.setenv("TPU_SKIP_MDS_QUERY", "1")
    monkeypatch.setenv("TPU_WORKER_HOSTNAMES", "localhost")
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    assert accelerator.peak_tflops_per_s(device.device_kind, "bfloat16") == peak


def test_memory_is_that_of_the_fullest_device():
    gib = 2**30
    found = accelerator.memory([device(gib, 3 * gib), device(2 * gib, 2 * gib)])
    assert found == {"hbm_gib": 2.0, "hbm_peak_gib": 3.0}


def test_a_cpu_does_not_count_its_memory():
    nothing = {"hbm_gib": None, "hbm_peak_gib": None}
    assert accelerator.memory(jax.local_devices()) == nothing
    assert accelerator.memory([device(1, 1), device()]) == nothing
