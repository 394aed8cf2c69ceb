"""Checkpoints: a round trip to the last bit, a damaged newest one, nothing but damage."""

import collections
import resource
import shutil
import time
from concurrent import futures

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flamingo_jax.core import partition
from flamingo_jax.train import state
from flamingo_jax.train.checkpoint import CheckpointError, Checkpoints

OPTIMIZER = optax.adam(0.1)


def make_state(step, width=4):
    """A state as of update `step`, every leaf told apart by it."""
    mesh = partition.make_mesh(devices=jax.devices()[:1])
    trainable = {"resampler": {"norm": {"scale": jnp.full(width, step + 0.1)}}}
    fresh = state.create(trainable, OPTIMIZER, 7, mesh)
    filled = jax.tree.map(lambda x: x + jnp.asarray(step, x.dtype), fresh)
    return filled._replace(step=jnp.asarray(step, jnp.int32), trainable=trainable, key=fresh.key)


def place(step):
    return {"pages": {"next_index": 8 * step, "skipped": {"truncated": 1}, "seed": 0}}


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 1 and 2."""
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    for step in (1, 2):
        checkpoints.save(make_state(step), place(step))
    checkpoints.close()
    return tmp_path / "checkpoints"


def damage(folder, step):
    """Cuts every file of arrays in two, as a full disk does."""
    files = [f for f in (folder / str(step) / "state").rglob("*") if f.is_file()]
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def test_round_trip(folder):
    checkpoints = Checkpoints(folder)
    assert checkpoints.latest_step == 2
    found, data = checkpoints.restore(make_state(0))
    want = make_state(2)
    assert jax.tree.structure(found) == jax.tree.structure(want)
    for a, b in zip(*map(jax.tree.leaves, (found, want)), strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(found.key, jax.random.key_data(jax.random.key(7)))
    assert data == place(2)


def test_a_checkpoint_is_not_visible_before_what_it_comes_after(tmp_path):
    copied, checkpoints = futures.Future(), Checkpoints(tmp_path)
    checkpoints.save(make_state(1), place(1), after=copied)
    time.sleep(0.5)
    assert not (tmp_path / "1").exists()
    copied.set_result(None)
    checkpoints.close()
    assert Checkpoints(tmp_path).restore(make_state(0))[1] == place(1)


def test_an_empty_folder_has_no_step(tmp_path):
    assert Checkpoints(tmp_path / "new").latest_step is None


def test_only_the_newest_are_kept(tmp_path):
    checkpoints = Checkpoints(tmp_path, max_to_keep=2)
    for step in (1, 2, 3):
        checkpoints.save(make_state(step), place(step))
    checkpoints.close()
    assert sorted(p.name for p in tmp_path.iterdir() if p.name.isdigit()) == ["2", "3"]


def test_milestones_are_kept_beside_the_newest_also_by_a_run_that_goes_on(tmp_path):
    for steps in ((1, 2, 3, 4, 5), (6, 7, 8, 9)):
        checkpoints = Checkpoints(tmp_path, max_to_keep=2, keep_every=3)
        for step in steps:
            checkpoints.save(make_state(step), place(step))
        checkpoints.close()
    assert {p.name for p in tmp_path.iterdir() if p.name.isdigit()} == {"3", "6", "8", "9"}
    found, data = Checkpoints(tmp_path).restore(make_state(0))
    assert int(found.step) == 9
    assert data == place(9)


def test_a_damaged_newest_checkpoint_falls_back_to_the_one_before_and_says_so(folder, caplog):
    damage(folder, 2)
    caplog.set_level("WARNING", logger="absl")  # commands run by other tests may have raised it
    found, data = Checkpoints(folder).restore(make_state(0))
    assert int(found.step) == 1
    assert data == place(1)
    (message,) = [r.getMessage() for r in caplog.records if r.levelname == "WARNING"]
    assert "checkpoint 2" in message
    assert "step 1" in message
    assert "\n" not in message


def test_after_falling_back_the_same_step_can_be_saved_again(folder):
    damage(folder, 2)
    checkpoints = Checkpoints(folder)
    checkpoints.restore(make_state(0))
    checkpoints.save(make_state(2), place(2))
    checkpoints.close()
    found, _ = Checkpoints(folder).restore(make_state(0))
    assert int(found.step) == 2
    assert (folder / "unreadable-2").is_dir()  # set aside, not deleted


def test_nothing_but_damage_is_one_clear_line(folder):
    damage(folder, 1)
    damage(folder, 2)
    with pytest.raises(CheckpointError) as error:
        Checkpoints(folder).restore(make_state(0))
    message = str(error.value)
    assert "\n" not in message
    assert str(folder) in message
    assert "delete the folder to train anew" in message
    assert "2:" in message
    assert "1:" in message


def test_another_config_is_told_and_deletes_nothing(folder):
    message = (
        r"no checkpoint fits this config \(2: resampler/norm/scale is \(4,\) there and \(5,\) here"
    )
    with pytest.raises(CheckpointError, match=message):
        Checkpoints(folder).restore(make_state(0, width=5))
    assert Checkpoints(folder).latest_step == 2


def test_a_disk_without_room_for_a_checkpoint_is_one_clear_line_and_costs_none(folder, monkeypatch):
    usage = collections.namedtuple("usage", "free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(free=3 << 20))
    checkpoints = Checkpoints(folder)
    checkpoints.save(make_state(3), place(3))
    large = make_state(4, width=1 << 19)
    with pytest.raises(CheckpointError, match=r"takes 6\.0 MiB, and 3\.0 are free") as error:
        checkpoints.save(large, place(4))
    assert "\n" not in str(error.value)
    assert str(folder) in str(error.value)
    checkpoints.close()
    assert Checkpoints(folder).latest_step == 3


def test_what_cannot_be_written_is_one_clear_line_too(folder):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    noise = jax.random.normal(jax.random.key(0), 1 << 19)  # which is not to be compressed
    state = make_state(3, width=1 << 19)
    state = state._replace(trainable=jax.tree.map(lambda x: x + noise, state.trainable))
    checkpoints = Checkpoints(folder)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, hard))  # as a quota
    try:
        checkpoints.save(state, place(3))
        with pytest.raises(CheckpointError, match=r"could not be written .*File too") as error:
            checkpoints.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "\n" not in str(error.value)
    checkpoints.close()
    assert Checkpoints(folder).latest_step == 2
