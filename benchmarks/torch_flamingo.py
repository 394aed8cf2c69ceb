"""Flamingo in PyTorch from the parts its users have: transformers and flamingo-pytorch.

The language model is transformers' `LlamaForCausalLM`; the resampler and the gated blocks are
flamingo-pytorch's modules. Where those do not follow the recipe they are brought to it, so that
both sides compute one function: keys from media of another width than the text's, a norm on the
media, squared ReLU, a media's frame embedding in place of one for its number in the sequence.
"""

from typing import Any

import flamingo_pytorch
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flamingo_jax.config import CrossAttentionConfig, FlamingoConfig, LanguageModelConfig
from flamingo_jax.core.stack import plan

Tree = dict[str, Any]


class TorchFlamingo(nn.Module):
    """The model of a recipe; only the resampler, the gated blocks and the new rows are trained."""

    def __init__(self, config: FlamingoConfig):
        super().__init__()
        _check(config)
        lm, r, xattn = config.language_model, config.resampler, config.cross_attention
        self.segments = plan(lm.num_layers, xattn.every, xattn.offset)
        self.gated_layers = tuple(range(xattn.offset, lm.num_layers, xattn.every))
        self.language_model = _llama(lm, config.num_new_tokens).requires_grad_(False)
        self.new_rows = nn.Parameter(torch.zeros(config.num_new_tokens, lm.width))
        vision = config.vision
        self.align = nn.Linear(vision.width, vision.output_width).requires_grad_(False)
        self.resampler = flamingo_pytorch.PerceiverResampler(
            dim=r.width,
            depth=r.depth,
            dim_head=r.head_dim,
            heads=r.num_heads,
            num_latents=r.num_latents,
            num_media_embeds=r.num_frames,
            ff_mult=r.ffw_multiplier,
        )
        for attention, feed_forward in self.resampler.layers:
            feed_forward[2] = SquaredRelu()
            if not r.normalize_media:
                attention.norm_media = nn.Identity()
        self.gated = nn.ModuleList(
            [GatedBlock(xattn, lm.width, r.width) for _ in self.gated_layers]
        )

    def hidden(
        self,
        tokens: Tensor,  # i64[B, T]
        media: Tensor,  # f32[B, M, 1, P, E]
        locations: Tensor,  # bool[B, T], True at each <image>
    ) -> Tensor:  # f32[B, T, D]
        """After the final norm. Rows are padded on the right, where causality hides the padding."""
        llama = self.language_model.model
        b, m = media.shape[:2]
        visual = self.resampler(self.align(media).flatten(0, 1))
        visual = visual.view(b, m, *visual.shape[2:])
        x = llama.embed_tokens(tokens)
        positions = torch.arange(tokens.shape[1], device=tokens.device)[None]
        rotary = llama.rotary_emb(x, position_ids=positions)
        gated = iter(self.gated)
        for i, layer in enumerate(llama.layers):
            if i in self.gated_layers:
                x = next(gated)(x, visual, locations)
            x = layer(x, position_embeddings=rotary)
        return llama.norm(x)

    def logits(self, hidden: Tensor) -> Tensor:
        """f32[..., V + new] of hidden states f32[..., D]."""
        table = self.language_model.model.embed_tokens.weight
        return _Head.apply(hidden, table, self.new_rows)

    @torch.no_grad()
    def copy_new_rows(self) -> None:
        """Puts the trained rows into the frozen table, which reads and scores tokens."""
        self.language_model.model.embed_tokens.weight[-len(self.new_rows) :] = self.new_rows

    @torch.no_grad()
    def copy_weights(self, trainable: Tree, frozen: Tree) -> None:
        """Takes the weights of `flamingo_jax`, as trees of unrolled stacks."""
        lm, llama = frozen["language_model"], self.language_model.model
        llama.embed_tokens.weight[: -len(self.new_rows)] = torch.from_numpy(lm["embedding"])
        _copy(self.new_rows, trainable["new_tokens"]["embedding"])
        self.copy_new_rows()
        _copy(llama.norm.weight, lm["final_norm"]["scale"])
        gated = iter(self.gated)
        for segment in self.segments:
            for i in range(segment.repeats):
                group = lm["blocks"][segment.name][f"layer_{i:03d}"]
                first = segment.start + i * segment.depth
                for j in range(segment.depth):
                    _copy_llama_layer(llama.layers[first + j], group[f"layer_{j:03d}"])
                if segment.gated:
                    block = trainable["gated_xattn"][segment.name][f"layer_{i:03d}"]
                    _copy_gated(next(gated), block)
        _copy(self.align.weight, _matrix(frozen["vision"]["alignment"], 1))
        _copy(self.align.bias, frozen["vision"]["alignment"]["bias"])
        self._copy_resampler(trainable["resampler"])

    def _copy_resampler(self, tree: Tree) -> None:
        _copy(self.resampler.latents, tree["latents"])
        _copy(self.resampler.media_pos_emb, tree["frame_embeddings"][:, None])
        _copy_norm(self.resampler.norm, tree["norm"])
        for i, (attention, feed_forward) in enumerate(self.resampler.layers):
            layer = tree["blocks"][f"layer_{i:03d}"]
            if "media_norm" in layer:
                _copy_norm(attention.norm_media, layer["media_norm"])
            _copy_norm(attention.norm_latents, layer["latents_norm"])
            _copy_attention(attention, layer)
            _copy_feed_forward(feed_forward, layer)


class GatedBlock(nn.Module):
    """flamingo-pytorch's gated block, its two modules called with our norm and scale."""

    def __init__(self, config: CrossAttentionConfig, width: int, media_width: int):
        super().__init__()
        self.block = flamingo_pytorch.GatedCrossAttentionBlock(
            dim=width,
            dim_head=config.head_dim,
            heads=config.num_heads,
            ff_mult=config.ffw_multiplier,
        )
        inner = config.num_heads * config.head_dim
        self.block.attn.to_kv = nn.Linear(media_width, 2 * inner, bias=False)
        self.block.ff[2] = SquaredRelu()
        self.media_norm = nn.LayerNorm(media_width)
        self.branch_scale = config.branch_scale

    def forward(self, x: Tensor, media: Tensor, locations: Tensor) -> Tensor:
        block, scale = self.block, self.branch_scale
        seen = block.attn(x, self.media_norm(media), media_locations=locations)
        x = x + seen * (scale * block.attn_gate.tanh())
        return x + block.ff(x) * (scale * block.ff_gate.tanh())


class SquaredRelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x).square()


class _Head(torch.autograd.Function):
    """hidden times the rows of `table`; its last ones are `new_rows`, which alone get a gradient.

    One product each way; a plain `linear` would compute the gradient of the whole table.
    """

    @staticmethod
    def forward(ctx, hidden, table, new_rows):
        ctx.save_for_backward(hidden, table)
        ctx.num_new = len(new_rows)
        return F.linear(hidden, table)

    @staticmethod
    def backward(ctx, grad):
        hidden, table = ctx.saved_tensors
        return grad @ table, None, grad[:, -ctx.num_new :].T @ hidden


def _check(config: FlamingoConfig) -> None:
    """ValueError for a recipe that this peer does not follow."""
    lm, xattn = config.language_model, config.cross_attention
    llama = (lm.norm, lm.activation, lm.positions, lm.tied_head) == (
        "rmsnorm",
        "silu",
        "rope",
        True,
    )
    if not llama or lm.parallel_residual or lm.qk_norm or lm.use_bias or not lm.gated_ffw:
        raise ValueError("the PyTorch side knows only Llama with a tied head")
    if config.train_new_inputs:
        raise ValueError("the PyTorch side needs --config.model.train_new_inputs=False")
    if not xattn.normalize_media or xattn.attend != "last":
        raise ValueError("the PyTorch side needs normalize_media=True and attend='last'")
    if config.vision.aligned_width != config.resampler.width:
        raise ValueError("the PyTorch side needs features aligned to the resampler's width")
    if {xattn.activation, config.resampler.activation} != {"squared_relu"}:
        raise ValueError("the PyTorch side knows only squared_relu in the trained parts")


def _llama(config: LanguageModelConfig, num_new_tokens: int) -> nn.Module:
    import transformers

    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            vocab_size=config.vocab_size + num_new_tokens,
            hidden_size=config.width,
            intermediate_size=config.ffw_width,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.kv_heads,
            head_dim=config.head_dim,
            rms_norm_eps=config.norm_eps,
            rope_parameters={"rope_type": "default", "rope_theta": config.rope_base},
            max_position_embeddings=config.max_length,
            tie_word_embeddings=True,
            attn_implementation="sdpa",
        )
    )


def _copy(parameter: Tensor, value: np.ndarray) -> None:
    if tuple(parameter.shape) != value.shape:
        raise ValueError(f"a weight of {list(value.shape)} for a place of {list(parameter.shape)}")
    parameter.copy_(torch.from_numpy(np.array(value)))


def _matrix(projection: Tree, num_inputs: int) -> np.ndarray:
    """[out, in], as torch stores it, of a projection with `num_inputs` input dims."""
    kernel = projection["kernel"]
    rows = int(np.prod(kernel.shape[:num_inputs]))
    return kernel.reshape(rows, kernel.size // rows).T


def _copy_norm(norm: nn.LayerNorm, tree: Tree) -> None:
    _copy(norm.weight, tree["scale"])
    _copy(norm.bias, tree["bias"])


def _copy_attention(attention: nn.Module, tree: Tree) -> None:
    _copy(attention.to_q.weight, _matrix(tree["query"], 1))
    keys_and_values = [_matrix(tree["key"], 1), _matrix(tree["value"], 1)]
    _copy(attention.to_kv.weight, np.concatenate(keys_and_values))
    _copy(attention.to_out.weight, _matrix(tree["out"], 2))


def _copy_feed_forward(feed_forward: nn.Sequential, tree: Tree) -> None:
    _copy_norm(feed_forward[0], tree["ffw_norm"])
    _copy(feed_forward[1].weight, _matrix(tree["ffw"]["up"], 1))
    _copy(feed_forward[3].weight, _matrix(tree["ffw"]["down"], 1))


def _copy_gated(gated: GatedBlock, tree: Tree) -> None:
    block = gated.block
    _copy_norm(gated.media_norm, tree["media_norm"])
    _copy_norm(block.attn.norm, tree["norm"])
    _copy_attention(block.attn, tree)
    _copy_feed_forward(block.ff, tree)
    _copy(block.attn_gate, tree["attention_gate"][None])
    _copy(block.ff_gate, tree["ffw_gate"][None])


def _copy_llama_layer(layer: nn.Module, tree: Tree) -> None:
    attention = tree["attention"]
    _copy(layer.input_layernorm.weight, tree["attention_norm"]["scale"])
    _copy(layer.post_attention_layernorm.weight, tree["ffw_norm"]["scale"])
    _copy(layer.self_attn.q_proj.weight, _matrix(attention["query"], 1))
    _copy(layer.self_attn.k_proj.weight, _matrix(attention["key"], 1))
    _copy(layer.self_attn.v_proj.weight, _matrix(attention["value"], 1))
    _copy(layer.self_attn.o_proj.weight, _matrix(attention["out"], 2))
    for name in ("gate", "up", "down"):
        _copy(getattr(layer.mlp, f"{name}_proj").weight, _matrix(tree["ffw"][name], 1))
