"""Flamingo in PyTorch from the parts its users have: transformers and flamingo-pytorch.

The language model is transformers' `LlamaForCausalLM`; the resampler and the gated blocks are
flamingo-pytorch's modules. Where those do not follow the recipe they are brought to it, so that
both sides compute one function: keys from media of another width than the text's, a norm on the
media, squared ReLU, a media's frame embedding in place of one for its number in the sequence.
"""

from typing import Any

import flamingo_pytorch
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import torch_weights
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

    def copy_weights(self, trainable: Tree, frozen: Tree) -> None:
        """Takes the weights of `flamingo_jax`, as trees of unrolled stacks."""
        lm, llama = frozen["language_model"], self.language_model.model
        torch_weights.copy(llama.embed_tokens.weight[: -len(self.new_rows)], lm["embedding"])
        torch_weights.copy(self.new_rows, trainable["new_tokens"]["embedding"])
        self.copy_new_rows()
        torch_weights.copy_norm(llama.norm, lm["final_norm"])
        gated = iter(self.gated)
        for segment in self.segments:
            for i in range(segment.repeats):
                group = lm["blocks"][segment.name][f"layer_{i:03d}"]
                first = segment.start + i * segment.depth
                for j in range(segment.depth):
                    _copy_llama_layer(llama.layers[first + j], group[f"layer_{j:03d}"])
                if segment.gated:
                    tree = trainable["gated_xattn"][segment.name][f"layer_{i:03d}"]
                    block = next(gated)
                    torch_weights.copy_gated_block(block.block, tree)
                    torch_weights.copy_norm(block.media_norm, tree["media_norm"])
        torch_weights.copy_linear(self.align, frozen["vision"]["alignment"])
        torch_weights.copy_resampler(self.resampler, trainable["resampler"])
        frames = trainable["resampler"]["frame_embeddings"]
        torch_weights.copy(self.resampler.media_pos_emb, frames[:, None])


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


def _copy_llama_layer(layer: nn.Module, tree: Tree) -> None:
    attention, to = tree["attention"], layer.self_attn
    torch_weights.copy_norm(layer.input_layernorm, tree["attention_norm"])
    torch_weights.copy_norm(layer.post_attention_layernorm, tree["ffw_norm"])
    torch_weights.copy_linear(to.q_proj, attention["query"])
    torch_weights.copy_linear(to.k_proj, attention["key"])
    torch_weights.copy_linear(to.v_proj, attention["value"])
    torch_weights.copy_linear(to.o_proj, attention["out"], 2)
    for name in ("gate", "up", "down"):
        torch_weights.copy_linear(getattr(layer.mlp, f"{name}_proj"), tree["ffw"][name])
