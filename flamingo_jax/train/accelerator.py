"""What is known of the devices a run stands on: their published peak, their memory in use.

Peaks are dense bfloat16 matrix products (summed in float32), as the makers publish them, by JAX's
name of the device (`device_kind`; of NVIDIA's the driver's name). One device is one chip, but on
TPU7x half of one. A T4 multiplies no bfloat16, so it has none.
"""

from collections.abc import Sequence
from typing import Any

GIB = 2**30

BF16_PEAK_TFLOPS_PER_S = {
    "TPU v4": 275.0,
    "TPU v5 lite": 197.0,  # v5e
    "TPU v5e": 197.0,
    "TPU v5": 459.0,  # v5p
    "TPU v5p": 459.0,
    "TPU v6 lite": 918.0,  # v6e
    "TPU v6e": 918.0,
    "TPU7x": 2307.0 / 2,  # Ironwood
    "NVIDIA A100-SXM4-40GB": 312.0,
    "NVIDIA A100-SXM4-80GB": 312.0,
    "NVIDIA A100-PCIE-40GB": 312.0,
    "NVIDIA A100 80GB PCIe": 312.0,
    "NVIDIA L4": 121.0,
    "NVIDIA L40S": 362.0,
    "NVIDIA GeForce RTX 4090": 165.2,
    "NVIDIA H100 80GB HBM3": 989.4,
    "NVIDIA H100 PCIe": 756.0,
    "NVIDIA H100 NVL": 835.0,
    "NVIDIA H200": 989.4,
    "NVIDIA GH200 480GB": 989.4,
    "NVIDIA B200": 2250.0,
    "NVIDIA GB200": 2500.0,
}


def peak_tflops_per_s(device_kind: str, compute_dtype: str) -> float | None:
    """The peak of one device; None where it is not known, as for any dtype but bfloat16."""
    return BF16_PEAK_TFLOPS_PER_S.get(device_kind) if compute_dtype == "bfloat16" else None


def capacity(devices: Sequence[Any]) -> int | None:
    """Bytes that a program may take of the device that has least; None where one does not say."""
    found = [(device.memory_stats() or {}).get("bytes_limit") for device in devices]
    return None if None in found else min(found)


def memory(devices: Sequence[Any]) -> dict[str, float | None]:
    """`hbm_gib` in use now and `hbm_peak_gib` so far, of the fullest device.

    None where a device does not count its memory, as CPUs do not.
    """
    found = [device.memory_stats() or {} for device in devices]

    def most(field: str) -> float | None:
        values = [stats.get(field) for stats in found]
        return max(values) / GIB if values and None not in values else None

    return {"hbm_gib": most("bytes_in_use"), "hbm_peak_gib": most("peak_bytes_in_use")}
