"""The report as text: every number in its place, and what is special said."""

from experiments.planning import aot_text

REPORT = {
    "topology": "v5p:4x4x8",
    "num_slices": 2,
    "num_chips": 256,
    "mesh": {"slice": 2, "data": 16, "fsdp": 1, "tensor": 8},
    "batches": {
        "pages": {"sequences": 64, "tokens": 256},
        "pairs": {"sequences": 512, "tokens": 32},
    },
    "microbatches": 4,
    "hbm": {
        "arguments": 20 * 2**30,
        "temporaries": 56 * 2**30,
        "peak": 76 * 2**30,
        "capacity": 95 * 2**30,
        "spare": 0.2,
    },
    "model_flops": 256e15,
    "executed_flops_per_chip": 1.25e15,
    "hbm_bytes_per_chip": 1234.5e9,
    "collective_bytes_per_chip": 67e9,
    "collectives": [
        {
            "kind": "reduce-scatter",
            "axes": ["fsdp", "tensor"],
            "times": 320.0,
            "bytes": 60e9,
            "slice_bytes": 7e9,
            "seconds": 0.25,
        },
    ],
    "seconds": {
        "computing": 2.7,
        "hbm": 0.5,
        "network": 0.3,
        "step": 2.7,
        "step_without_overlap": 3.5,
    },
    "bound": "computing",
    "mfu": 0.81,
    "mfu_without_overlap": 0.62,
    "lower_s": {"wall": 31.0, "processor": 30.0},
    "compile_s": {"wall": 200.0, "processor": 301.0},
    "effort": -1.0,
}

TEXT = """\
v5p:4x4x8, 2 slices: 256 chips, mesh slice 2 x data 16 x tensor 8
batches pages 64 x 256, pairs 512 x 32, in 4 parts
lowered in 31 s (30 s of processor), compiled in 200 s (301 s of processor) with effort -1

HBM a chip       76.00 GiB of 95, 20% to spare
  arguments      20.00 GiB
  temporaries    56.00 GiB

model           256.00 PFLOP a step, all chips
executed       1250.00 TFLOP a chip, 1.25 times the model's
HBM traffic     1234.5 GB a chip
collectives      67.00 GB sent a chip
  reduce-scatter      fsdp x tensor              320 times    67.000 GB    250.00 ms

computing       2700.0 ms
HBM              500.0 ms
networks         300.0 ms
step            2700.0 ms if all overlap, bound by computing: MFU 81.0%
                3500.0 ms if nothing does: MFU 62.0%"""


def test_every_number_has_its_place():
    assert aot_text.render(REPORT) == TEXT


def test_one_chip_and_what_does_not_fit():
    hbm = REPORT["hbm"] | {"peak": 114 * 2**30, "spare": -0.2}
    changes = {"topology": "v5e:1x1", "num_slices": 1, "num_chips": 1, "effort": 0.0, "hbm": hbm}
    changes |= {"mesh": {"data": 1, "tensor": 1}, "microbatches": 1}
    first, batches, took, _, memory, *_ = aot_text.render(REPORT | changes).splitlines()
    assert first == "v5e:1x1: 1 chips, mesh of one"
    assert batches == "batches pages 64 x 256, pairs 512 x 32"
    assert took.endswith("(301 s of processor)")
    assert memory.endswith("114.00 GiB of 95, -20% to spare: does not fit")
