"""A profile of the steps that were asked for, and nothing without a request."""

import jax
import jax.numpy as jnp
import pytest

from experiments.training.profiling import Profiler, parse_steps


def test_steps_are_read():
    assert parse_steps("", 5) is None
    assert parse_steps("3:5", 5) == (3, 5)
    assert parse_steps("4:9", 5) == (4, 9)  # as far as the run goes


def test_steps_that_the_run_does_not_reach_are_refused():
    with pytest.raises(ValueError, match=r"profile.steps='6:9': the run ends with steps=5"):
        parse_steps("6:9", 5)


@pytest.mark.parametrize("text", ["5", "5:3", "0:2", "a:b", "1:2:3", "-1:2"])
def test_other_text_is_refused_with_an_example(text):
    with pytest.raises(ValueError, match=r"write FIRST:LAST, such as 10:12"):
        parse_steps(text, 5)


def run(profiler, steps):
    for step in steps:
        with profiler.around(step):
            result = jax.jit(lambda x: x + 1)(jnp.ones(3))
        profiler.after(step, result)
    profiler.close()


def traces(folder):
    return list(folder.rglob("*.xplane.pb"))


def test_only_what_was_asked_for_is_traced(tmp_path):
    run(Profiler(tmp_path / "none", None), range(1, 4))
    run(Profiler(tmp_path / "later", (8, 9)), range(1, 4))
    assert not traces(tmp_path)
    run(Profiler(tmp_path / "asked", (2, 3)), range(1, 6))
    assert len(traces(tmp_path / "asked")) == 1


def test_a_run_that_resumes_inside_or_ends_inside_still_writes(tmp_path):
    run(Profiler(tmp_path, (2, 9)), range(4, 6))
    assert len(traces(tmp_path)) == 1
