"""Peaks by name, and memory of the fullest device."""

import types

import jax
import pytest

from flamingo_jax.train import accelerator


def device(in_use=None, peak=None):
    stats = None if in_use is None else {"bytes_in_use": in_use, "peak_bytes_in_use": peak}
    return types.SimpleNamespace(memory_stats=lambda: stats)


def test_a_peak_is_known_by_name_and_dtype():
    assert accelerator.peak_tflops_per_s("TPU v5p", "bfloat16") == 459
    assert accelerator.peak_tflops_per_s("NVIDIA H200", "bfloat16") == pytest.approx(989.4)
    assert accelerator.peak_tflops_per_s("TPU v5p", "float32") is None
    assert accelerator.peak_tflops_per_s("cpu", "bfloat16") is None


def test_memory_is_that_of_the_fullest_device():
    gib = 2**30
    found = accelerator.memory([device(gib, 3 * gib), device(2 * gib, 2 * gib)])
    assert found == {"hbm_gib": 2.0, "hbm_peak_gib": 3.0}


def test_a_cpu_does_not_count_its_memory():
    nothing = {"hbm_gib": None, "hbm_peak_gib": None}
    assert accelerator.memory(jax.local_devices()) == nothing
    assert accelerator.memory([device(1, 1), device()]) == nothing
