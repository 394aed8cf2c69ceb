"""Causal self-attention by the name of its kernel: what a platform has that is faster than XLA.

`splash` is JAX's Pallas kernel for TPUs, `cudnn` NVIDIA's flash attention; neither ever holds the
logits. `xla` is `core.attention.attend`, which runs everywhere and is what the others are tested
against. `auto` is the platform's own.

Of a sliding window splash computes what lies inside it; cuDNN gets it as its mask, and computes all
as XLA does. Layers of one scan that differ in theirs are two programs for splash, and one is run.

A kernel takes what it was written for: no cache, no bias (so no ALiBi and no relative positions),
rows and key heads that the mesh divides, and for splash whole blocks of 128 tokens, for cuDNN
16-bit numbers, heads of up to 128 (a multiple of 8), an even number of tokens and logits without a
bound (so not Gemma 2's). Anything else
goes through XLA, whatever the name: at the 32 to 256 tokens of the paper's sequences logits are
small. So does everything on GPUs older than Ampere (a T4, say), which cuDNN's kernel is not for.
"""

import functools
import re
from typing import Literal

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_lib
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask as mask_lib

from flamingo_jax.core import partition
from flamingo_jax.core.attention import attend

Array = jax.Array
Kernel = Literal["auto", "xla", "splash", "cudnn"]

PLATFORMS = {"splash": ("tpu",), "cudnn": ("gpu", "cuda")}
_BLOCK = 128
_AXES = ("batch", None, "heads", None)
_KV_AXES = ("batch", None, "kv_heads", None)
_CUDNN_CAPABILITY = (8, 0)  # docs.nvidia.com/cudnn/operations/Attention, support matrix


def resolve(name: Kernel, platform: str) -> Kernel:
    """The kernel that `auto` stands for on a platform, or the named one if it runs there.

    Raises:
      ValueError: no such kernel, or not on this platform.
    """
    known = ["auto", "xla", *PLATFORMS]
    if name not in known:
        raise ValueError(f"execution.attention={name!r}: use one of {known}")
    runs = [k for k, found in PLATFORMS.items() if platform in found]
    unfit = _without_cudnn(platform)
    if unfit:
        runs.remove("cudnn")
    if name == "auto":
        return runs[0] if runs else "xla"
    if name != "xla" and name not in runs:
        raise ValueError(
            f"execution.attention={name!r} does not run on {unfit or platform}: use "
            f"{resolve('auto', platform)!r}, or 'auto'"
        )
    return name


def _without_cudnn(platform: str) -> str:
    """What the GPUs here are where cuDNN's kernel does not run on them; else nothing.

    Of GPUs that are not here, which a program is only compiled for, nothing is known.
    """
    if platform != "gpu" or jax.default_backend() != "gpu":
        return ""
    device = jax.local_devices()[0]
    capability = str(getattr(device, "compute_capability", ""))  # 7.5; gfx90a of AMD
    found = re.fullmatch(r"(\d+)\.(\d+)", capability)
    if found and tuple(map(int, found.groups())) >= _CUDNN_CAPABILITY:
        return ""
    return f"{device.device_kind} (compute capability {capability})"


def attend_causally(
    q: Array,  # [B, T, N, H]
    k: Array,  # [B, T, K, H], N a multiple of K
    v: Array,  # [B, T, K, H]
    mask: Array,  # bool[B, T, T], causal, inside segments
    segments: Array,  # i32[B, T], 0 on padding; what padding gets is finite and of no meaning
    kernel: Kernel,  # not `auto`
    window: int | None = None,  # of tokens that one sees, itself the last; None: all before
    has_window: Array | None = None,  # bool[], whether there is one; None: where one is given
    *,
    scale: float | None = None,  # of the logits; default H ** -0.5
    softcap: float | None = None,  # their bound
    interpret: bool = False,  # Pallas on any platform, slowly: for tests
) -> Array:  # [B, T, N, H]
    """Softmax attention of each token to itself and those before in its segment.

    `mask` says what `segments` and the window do; each kernel takes what it can read.
    """
    if kernel == "splash" and _fits_splash(q, k):
        how = {"scale": scale, "softcap": softcap, "interpret": interpret}
        near, far = (functools.partial(_splash, window=w, **how) for w in (window, None))
        if has_window is None:
            return near(q, k, v, segments)
        return jax.lax.cond(has_window, near, far, q, k, v, segments)
    if kernel == "cudnn" and _fits_cudnn(q, k) and softcap is None:
        return _cudnn(q, k, v, mask, scale)
    return attend(q, k, v, mask, scale=scale, softcap=softcap)


def _fits_mesh(q: Array, k: Array) -> bool:
    mesh = jax.sharding.get_abstract_mesh()
    tensor = 1 if mesh.empty else mesh.shape["tensor"]
    return k.shape[2] % tensor == 0 and q.shape[0] % partition.batch_shards() == 0


def _fits_splash(q: Array, k: Array) -> bool:
    return q.shape[1] % _BLOCK == 0 and _fits_mesh(q, k)


def _fits_cudnn(q: Array, k: Array) -> bool:
    """On every GPU that has it; some newer ones take heads of up to 256."""
    _, t, _, h = q.shape
    half = q.dtype in (jnp.bfloat16, jnp.float16)
    return half and t % 2 == 0 and h % 8 == 0 and h <= 128 and _fits_mesh(q, k)


def _cudnn(q: Array, k: Array, v: Array, mask: Array, scale: float | None) -> Array:
    """Cut by hand: left to the partitioner, queries and keys that lie otherwise are an error."""

    def on_one_device(q, k, v, mask):
        # A token sees itself, so that no row is empty.
        mask = (mask | jnp.eye(q.shape[1], dtype=bool))[:, None]
        how = {"mask": mask, "scale": scale, "implementation": "cudnn"}
        return jax.nn.dot_product_attention(q, k, v, **how)

    axes = (_AXES, _KV_AXES, _KV_AXES, ("batch", None, None))
    return partition.on_shards(on_one_device, axes, _AXES)(q, k, v, mask)


def _splash(
    q: Array,
    k: Array,
    v: Array,
    segments: Array,
    *,
    window: int | None,
    scale: float | None,
    softcap: float | None,
    interpret: bool,
) -> Array:
    """Padding is a segment of its own, behind or before the real ones."""

    def on_one_device(q, k, v, segments):
        t, n = q.shape[1:3]
        mask = mask_lib.CausalMask((t, t))
        if window is not None:
            mask = mask_lib.LocalMask((t, t), (window - 1, 0), offset=0)
        mask = mask_lib.MultiHeadMask([mask] * n)
        block = max(b for b in (_BLOCK, 2 * _BLOCK, 4 * _BLOCK) if t % b == 0)
        sizes = splash_lib.BlockSizes(*[block] * 8)
        kernel = splash_lib.make_splash_mha(
            mask,
            block_sizes=sizes,
            head_shards=1,
            q_seq_shards=1,
            attn_logits_soft_cap=softcap,
            interpret=interpret,
        )
        q = q * jnp.asarray(q.shape[-1] ** -0.5 if scale is None else scale, q.dtype)
        heads_first = [x.swapaxes(1, 2) for x in (q, k, v)]
        ids = splash_lib.SegmentIds(segments, segments)
        return jax.vmap(kernel)(*heads_first, ids).swapaxes(1, 2)

    axes = (_AXES, _KV_AXES, _KV_AXES, ("batch", None))
    return partition.on_shards(on_one_device, axes, _AXES)(q, k, v, segments)
