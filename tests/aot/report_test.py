"""The report of a compiled program against what its function must do; programs that do not fit."""

import json
import types

import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.aot import chips, report
from flamingo_jax.core import partition


def test_the_report_of_a_product():
    x = jax.ShapeDtypeStruct((256, 512), jnp.float32)
    step = types.SimpleNamespace(
        mesh=partition.make_mesh(data=1, devices=jax.devices()[:1]),
        batches={"pages": types.SimpleNamespace(tokens=x)},
        microbatches=1,
        model_flops=2.0 * 256 * 256 * 512,
    )
    compiled = jax.jit(lambda x: x @ x.T).lower(x).compile()
    found = report.report(compiled, step, chips.parse("v5e:1x1"))
    assert json.loads(json.dumps(found)) == found
    assert found["batches"] == {"pages": {"sequences": 256, "tokens": 512}}
    assert found["executed_flops_per_chip"] == found["model_flops"]
    assert found["hbm"]["arguments"] == 4 * 256 * 512
    assert found["hbm"]["capacity"] == 16 * 2**30
    seconds = found["seconds"]
    assert seconds["computing"] == pytest.approx(found["model_flops"] / 197e12)
    assert seconds["step"] == max(seconds["computing"], seconds["hbm"])
    assert found["mfu"] == pytest.approx(seconds["computing"] / seconds["step"])


def test_a_program_that_does_not_fit_says_what_it_needs_and_what_to_raise(libtpu):
    """In libtpu's own words: 32 GiB to read and 64 to write."""
    topology = chips.parse("v5e:1x1")
    where = jax.sharding.SingleDeviceSharding(topology.devices()[0])
    x = jax.ShapeDtypeStruct((2**17, 2**16), jnp.float32, sharding=where)
    lowered = jax.jit(lambda x: x @ x.T).trace(x).lower(lowering_platforms=("tpu",))
    with pytest.raises(report.DoesNotFit) as caught:
        report.compile_for(topology, lowered)
    text = str(caught.value)
    assert "it needs 96.00G of HBM a chip, v5e has 15.75G;" in text
    for word in ("microbatches", "--topology", "mesh.fsdp", "mesh.tensor", "execution.remat=full"):
        assert word in text


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (
            "RESOURCE_EXHAUSTED: Used 30.21G of 15.75G hbm.",
            report.DoesNotFit,
            "needs 30.21G of HBM a chip, v5e has 15.75G",
        ),
        ("RESOURCE_EXHAUSTED: HBM", report.DoesNotFit, "needs more of HBM a chip, v5e has less"),
        ("INTERNAL: a bug", jax.errors.JaxRuntimeError, "INTERNAL: a bug"),
    ],
)
def test_what_another_libtpu_may_say(message, error, words):
    def compile_():
        raise jax.errors.JaxRuntimeError(message)

    with pytest.raises(error, match=words):
        report.compile_for(chips.parse("v5e:2x2"), types.SimpleNamespace(compile=compile_))
