"""The two trained parts against flamingo-pytorch 0.1.2 with the same random weights.

Its conventions, by config: exact GELU, no norm on the media of a gated block, 8 heads of 64. Its
resampler has an embedding for each media of a sequence where ours (and the paper's) has one for
each frame of a media, so each media is compared alone, with its embedding as our first frame's.
Text before any media, under the ablation that sees all previous media, averages every media there
and gets zero here; those positions are left out.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from flamingo_jax.config import CrossAttentionConfig, ResamplerConfig
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.models import media_mask
from flamingo_jax.models.gated_xattn import GatedCrossAttention
from flamingo_jax.models.resampler import PerceiverResampler
from tests.torch_reference import import_torch

pytestmark = pytest.mark.reference

WIDTH, HEADS, HEAD_DIM, DEPTH, LATENTS, MEDIA, PLACES = 48, 8, 64, 2, 5, 3, 7
TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def torch():
    module = import_torch()
    pytest.importorskip("flamingo_pytorch", reason="flamingo-pytorch is not installed")
    return module


def randomise(torch, module):
    """Every parameter drawn, gates and norms too; returns them as numpy."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, p in module.named_parameters():
            fan_in = p.shape[1] if name.endswith("weight") and p.ndim == 2 else 4
            p.copy_(torch.randn(p.shape, generator=generator) * fan_in**-0.5)
    return {name: p.detach().numpy() for name, p in module.named_parameters()}


def attention(theirs, norms):
    """Our attention subtree from `to_q`, `to_kv`, `to_out` and the norms of that name."""
    key, value = np.split(theirs["to_kv.weight"], 2)
    heads = {"query": theirs["to_q.weight"], "key": key, "value": value}
    flat = {(n, "kernel"): w.T.reshape(WIDTH, HEADS, HEAD_DIM) for n, w in heads.items()}
    flat["out", "kernel"] = theirs["to_out.weight"].T.reshape(HEADS, HEAD_DIM, WIDTH)
    for ours, name in norms.items():
        flat[ours, "scale"], flat[ours, "bias"] = theirs[f"{name}.weight"], theirs[f"{name}.bias"]
    return traverse_util.unflatten_dict(flat)


def feed_forward(theirs):
    return {
        "ffw_norm": {"scale": theirs["0.weight"], "bias": theirs["0.bias"]},
        "ffw": {"up": {"kernel": theirs["1.weight"].T}, "down": {"kernel": theirs["3.weight"].T}},
    }


def under(theirs, prefix):
    return {k.removeprefix(prefix): v for k, v in theirs.items() if k.startswith(prefix)}


def test_resampler(torch):
    import flamingo_pytorch

    reference = flamingo_pytorch.PerceiverResampler(
        dim=WIDTH, depth=DEPTH, num_latents=LATENTS, num_media_embeds=MEDIA
    )
    theirs = randomise(torch, reference)
    x = np.random.default_rng(0).normal(size=(2, MEDIA, PLACES, WIDTH)).astype(np.float32)
    want = reference(torch.from_numpy(x)).detach().numpy()

    norms = {"media_norm": "norm_media", "latents_norm": "norm_latents"}
    params = {
        "latents": theirs["latents"],
        "norm": {"scale": theirs["norm.weight"], "bias": theirs["norm.bias"]},
        "blocks": {
            f"layer_{i:03d}": attention(under(theirs, f"layers.{i}.0."), norms)
            | feed_forward(under(theirs, f"layers.{i}.1."))
            for i in range(DEPTH)
        },
    }
    config = ResamplerConfig(
        num_latents=LATENTS,
        depth=DEPTH,
        width=WIDTH,
        num_heads=HEADS,
        head_dim=HEAD_DIM,
        activation="gelu",
        num_frames=1,
    )
    graph, _, _ = params_lib.abstract(
        lambda rngs: PerceiverResampler(config, WIDTH, Execution(scan=False), rngs=rngs)
    )
    for i in range(MEDIA):
        mine = params | {"frame_embeddings": theirs["media_pos_emb"][i]}
        found = nnx.merge(graph, _arrays(mine))(x[:, i, None, None])[:, 0]
        np.testing.assert_allclose(found, want[:, i], rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("attend", ["last", "all_previous"])
def test_gated_block(torch, attend):
    import flamingo_pytorch

    reference = flamingo_pytorch.GatedCrossAttentionBlock(
        dim=WIDTH, only_attend_immediate_media=attend == "last"
    )
    theirs = randomise(torch, reference)
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 9, WIDTH)).astype(np.float32)
    visual = rng.normal(size=(2, MEDIA, LATENTS, WIDTH)).astype(np.float32)
    tags = np.zeros((2, 9), bool)
    tags[0, [2, 4, 7]] = tags[1, [0, 1, 5]] = True
    want = reference(*map(torch.from_numpy, (x, visual, tags))).detach().numpy()

    params = attention(under(theirs, "attn."), {"norm": "norm"}) | feed_forward(
        under(theirs, "ff.")
    )
    params["attention_gate"], params["ffw_gate"] = theirs["attn_gate"][0], theirs["ff_gate"][0]
    config = CrossAttentionConfig(
        num_heads=HEADS, head_dim=HEAD_DIM, activation="gelu", normalize_media=False, attend=attend
    )
    graph, _, _ = params_lib.abstract(
        lambda rngs: GatedCrossAttention(config, WIDTH, WIDTH, rngs=rngs)
    )
    block = nnx.merge(graph, _arrays(params))
    phi = media_mask.media_index(tags, True)
    mask = media_mask.text_media_mask(phi, np.ones((2, MEDIA), bool), attend)
    keys = block.media_keys(visual.reshape(2, MEDIA * LATENTS, WIDTH))
    found = block(x, keys, mask)
    compared = np.asarray(phi > 0) if attend == "all_previous" else np.ones_like(tags)
    np.testing.assert_allclose(found[compared], want[compared], rtol=0, atol=TOLERANCE)


def _arrays(tree):
    flat = traverse_util.flatten_dict(tree)
    return traverse_util.unflatten_dict({k: jnp.asarray(v) for k, v in flat.items()})
