"""Compile time: nothing twice, nothing lost between two readings, and JAX's own events."""

import jax
import jax.numpy as jnp
import pytest

from flamingo_jax.train.compiling import CompileTime

TRACE, COMPILE = ("/jax/core/compile/" + name for name in ("jaxpr_trace", "backend_compile"))


def test_nested_and_overlapping_events_count_once():
    clock = CompileTime()
    for event, begin, end in [
        (TRACE, 2.0, 3.0),  # inside the next
        (TRACE, 1.0, 4.0),
        (COMPILE, 3.5, 6.0),
        ("/jax/other", 6.0, 9.0),
        (COMPILE, 7.0, 7.5),
    ]:
        clock._add(event, begin, end, fun_name="f")
    assert clock.seconds() == pytest.approx(5.5)
    assert clock.seconds() == 0.0
    clock._add(COMPILE, 7.25, 8.0)
    assert clock.seconds() == pytest.approx(0.5)


def test_a_new_function_is_seen_and_a_compiled_one_is_not():
    clock = CompileTime().start()
    function = jax.jit(lambda x: jnp.sin(x) * 3)
    function(jnp.ones(7)).block_until_ready()
    assert clock.seconds() > 0
    function(jnp.ones(7)).block_until_ready()
    assert clock.seconds() == 0
