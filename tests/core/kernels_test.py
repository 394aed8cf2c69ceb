"""Kernels against plain attention: values and gradients, padding, grouped heads, a mesh."""

import functools
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental import topologies

from flamingo_jax.core import partition
from flamingo_jax.core.kernels import _fits_cudnn, attend_causally, resolve

B, T, N, K, H = 2, 128, 4, 2, 128


@pytest.fixture(scope="module")
def inputs():
    rng = np.random.default_rng(0)
    q = rng.normal(size=(B, T, N, H)).astype(np.float32)
    k, v = rng.normal(size=(2, B, T, K, H)).astype(np.float32)
    segments = np.ones((B, T), np.int32)
    segments[0, 100:] = segments[1, :17] = 0  # padding behind, and before
    segments[1, 60:] = 2  # two texts in a row
    return q, k, v, segments


def mask_of(segments, window=None):
    same = segments[:, :, None] == segments[:, None]
    t = segments.shape[1]
    near = np.tri(t, dtype=bool) & ~np.tri(t, k=-(window or t), dtype=bool)
    return same & (segments > 0)[:, None] & near


def loss(q, k, v, segments, *, mask, **how):
    """Of real tokens only, each element weighted differently."""
    out = attend_causally(q, k, v, mask, segments, **how) * (segments > 0)[..., None, None]
    return jnp.sum(out * jnp.cos(jnp.arange(out.size).reshape(out.shape))), out


def values_and_gradients(inputs, **how):
    how["mask"] = mask_of(inputs[3], how.get("window") if how.get("has_window", True) else None)
    f = jax.value_and_grad(functools.partial(loss, **how), (0, 1, 2), has_aux=True)
    (_, out), grads = jax.jit(f)(*inputs)
    return out, *grads


@pytest.mark.parametrize("on_mesh", [False, True])
def test_splash_equals_plain_attention(inputs, on_mesh):
    want = values_and_gradients(inputs, kernel="xla")
    if on_mesh:
        with jax.set_mesh(partition.make_mesh(2, 1, 2, devices=jax.devices()[:4])):
            found = values_and_gradients(inputs, kernel="splash", interpret=True)
    else:
        found = values_and_gradients(inputs, kernel="splash", interpret=True)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("has_window", [None, False])
def test_splash_sees_as_far_as_the_window_and_bounds_logits(inputs, has_window):
    how = {"window": 9, "scale": 0.2, "softcap": 1.5}
    how |= {} if has_window is None else {"has_window": has_window}
    want = values_and_gradients(inputs, kernel="xla", **how)
    found = values_and_gradients(inputs, kernel="splash", interpret=True, **how)
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


@pytest.mark.parametrize("h", [64, 80, 256])
def test_splash_compiles_for_chips_that_are_not_here(h, monkeypatch):
    """With the TPU's own compiler; nothing may be computed on the way."""
    pytest.importorskip("libtpu")
    for name, value in (("TPU_SKIP_MDS_QUERY", "1"), ("TPU_WORKER_HOSTNAMES", "localhost")):
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")
    slice_ = topologies.get_topology_desc(platform="tpu", topology_name="v5e:2x2")
    mesh = partition.make_mesh(2, 1, 2, devices=slice_.devices)
    rows = partition.batch_sharding(mesh)

    def total(q, k, segments):
        has_window = (segments > 0).all()  # as of a scanned layer
        seen = attend_causally(q, k, k, None, segments, "splash", 48, has_window, softcap=50.0)
        return seen.astype("float32").sum()

    def struct(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype, sharding=rows)

    q, k, segments = (
        struct("bfloat16", B, T, N, h), struct("bfloat16", B, T, K, h), struct("int32", B, T),
    )  # fmt: skip
    with jax.set_mesh(mesh):
        traced = jax.jit(jax.grad(total, (0, 1))).trace(q, k, segments)
        assert "tpu_custom_call" in traced.lower(lowering_platforms=("tpu",)).compile().as_text()


@pytest.mark.parametrize(
    ("t", "h", "dtype"),
    [(8, 64, "float32"), (7, 64, "bfloat16"), (8, 12, "bfloat16"), (8, 256, "bfloat16")],
)
def test_what_cudnn_does_not_take_goes_through_xla(t, h, dtype):
    """On a CPU cuDNN would fail."""
    q = jnp.ones((1, t, 2, h), dtype)
    mask, segments = np.tril(np.ones((1, t, t), bool)), np.ones((1, t), np.int32)
    assert attend_causally(q, q, q, mask, segments, "cudnn").shape == q.shape
    fits = jnp.ones((1, 8, 2, 64), "bfloat16")
    assert _fits_cudnn(fits, fits)


@pytest.mark.parametrize(("kv_heads", "fits"), [(4, True), (2, False)])
def test_cudnn_gets_each_devices_part(kv_heads, fits, monkeypatch):
    """Left to the partitioner, queries cut over `tensor` beside whole keys do not compile."""
    version = types.SimpleNamespace(cudnn_get_version=lambda: 91_000)
    monkeypatch.setattr("jax._src.cudnn.fused_attention_stablehlo.cuda_versions", version)
    q, k = jnp.ones((4, 16, 8, 64), "bfloat16"), jnp.ones((4, 16, kv_heads, 64), "bfloat16")
    mask, segments = np.ones((4, 16, 16), bool), np.ones((4, 16), np.int32)

    def total(q, k):
        return attend_causally(q, k, k, mask, segments, "cudnn").astype("float32").sum()

    with jax.set_mesh(partition.make_mesh(2, 1, 4)):
        traced = jax.jit(jax.value_and_grad(total, (0, 1))).trace(q, k)
        program = traced.lower(lowering_platforms=("cuda",)).as_text()
    calls = [line for line in program.splitlines() if "custom_call @__cudnn$fmha" in line]
    assert bool(calls) == fits
    assert all("tensor<2x16x2x64xbf16>" in line for line in calls)  # rows and heads, cut
    assert "CustomSPMDPartitioning" not in program


def test_rows_that_no_block_fits_go_through_xla(inputs):
    q, k, v, segments = (x[:, :100] for x in inputs)
    args = q, k, v, mask_of(segments), segments
    found = attend_causally(*args, kernel="splash")
    np.testing.assert_array_equal(found, attend_causally(*args, kernel="xla"))


def test_auto_is_the_platforms_own():
    assert [resolve("auto", p) for p in ("cpu", "tpu", "gpu")] == ["xla", "splash", "cudnn"]
    assert resolve("xla", "tpu") == "xla"


@pytest.mark.parametrize(
    ("kind", "capability", "kernel"),
    [
        ("Tesla T4", "7.5", "xla"),
        ("NVIDIA L4", "8.9", "cudnn"),
        ("NVIDIA GeForce RTX 5090", "12.0", "cudnn"),
        ("AMD Instinct MI300X", "gfx942", "xla"),
    ],
)
def test_gpus_without_cudnns_kernel_go_through_xla(kind, capability, kernel, monkeypatch):
    device = types.SimpleNamespace(device_kind=kind, compute_capability=capability)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(jax, "local_devices", lambda: [device])
    assert resolve("auto", "gpu") == kernel
    assert resolve("auto", "tpu") == "splash"  # compiled here for there
    if kernel == "xla":
        why = rf"'cudnn' does not run on {kind} \(compute capability {capability}\): use 'xla'"
        with pytest.raises(ValueError, match=why):
            resolve("cudnn", "gpu")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cudnn", r"attention='cudnn' does not run on cpu: use 'xla'"),
        ("flesh", r"attention='flesh': use one of \['auto', 'xla', 'splash', 'cudnn'\]"),
    ],
)
def test_a_kernel_that_cannot_run_says_which_can(name, message):
    with pytest.raises(ValueError, match=message):
        resolve(name, "cpu")


@pytest.mark.skipif(jax.default_backend() != "gpu", reason="set FLAMINGO_TEST_PLATFORM=cuda")
def test_cudnn_equals_plain_attention(inputs):
    half = [jnp.asarray(x, jnp.bfloat16) for x in inputs[:3]]
    want = values_and_gradients((*half, inputs[3]), kernel="xla")
    found = values_and_gradients((*half, inputs[3]), kernel="cudnn")
    for a, b in zip(found, want, strict=True):
        np.testing.assert_allclose(a, b, atol=0.05)
