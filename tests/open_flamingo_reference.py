"""OpenFlamingo's own model at a small width, with the files that its converter is given."""

import pathlib
import sys
import types
from typing import NamedTuple

import numpy as np
import pytest

from flamingo_jax.batch import Batch
from flamingo_jax.weights.flamingos import open_flamingo
from tests.language_model_folder import NUM_IDS, write_tokenizer
from tests.torch_reference import import_torch

WIDTH, LAYERS, ROWS = 64, 5, NUM_IDS + 8  # rows behind the tokenizer's, as MPT's and RedPajama's
END_OF_CHUNK, IMAGE, NUM_NEW = NUM_IDS, NUM_IDS + 1, 3  # and <PAD>
BUFFERS = [  # of GPT-NeoX, which were saved then
    f"lang_encoder.gpt_neox.layers.0.decoder_layer.attention.{name}"
    for name in ("bias", "masked_bias", "rotary_emb.inv_freq")
]
SIZE_PX, VISION_WIDTH = 32, 32  # of `thin`


class Reference(NamedTuple):
    """A model and where its files lie."""

    model: object
    checkpoint: pathlib.Path
    lm: pathlib.Path
    vision: pathlib.Path

    def logits(self, pixels: np.ndarray, batch: Batch) -> np.ndarray:
        """f32[B, T, V + 3] of normalised pixels [B, M, H, W, 3]."""
        torch = import_torch()
        vision = torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3).copy())[:, :, None]
        tokens = (batch.tokens, batch.token_mask)
        ids, mask = (torch.from_numpy(x.astype(np.int64)) for x in tokens)
        with torch.no_grad():
            return self.model(vision, ids, mask).logits.numpy()


def mpt(hf):
    """MPT-7B's class; its blocks have neither biases nor positions."""
    config = hf.MptConfig(
        vocab_size=ROWS, d_model=WIDTH, n_layers=LAYERS, n_heads=4, max_seq_len=128
    )
    return hf.MptForCausalLM(config), "transformer.blocks"


def redpajama(hf):
    """GPT-NeoX's class as RedPajama-INCITE-3B sets it; input and output rows are two tables."""
    config = hf.GPTNeoXConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=4 * WIDTH,
        rotary_pct=1.0,
        use_parallel_residual=False,
        tie_word_embeddings=False,
    )
    return hf.GPTNeoXForCausalLM(config), "gpt_neox.layers"


def opt(hf):
    """Learned positions, and a head tied to the embedding that is saved beside it."""
    config = hf.OPTConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        word_embed_proj_dim=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        ffn_dim=4 * WIDTH,
        max_position_embeddings=128,
    )
    return hf.OPTForCausalLM(config), "model.decoder.layers"


def llama(hf):
    """Of the deprecated 9B; its head is a table of its own, whose new rows are in no file."""
    config = hf.LlamaConfig(
        vocab_size=ROWS,
        hidden_size=WIDTH,
        num_hidden_layers=LAYERS,
        num_attention_heads=4,
        intermediate_size=88,
    )
    return hf.LlamaForCausalLM(config), "model.layers"


def build(folder: pathlib.Path, make, every: int, tower: str) -> Reference:
    """The model around `make`'s language model, and its files; skips where a library is absent."""
    torch = import_torch()
    hf, open_clip = (pytest.importorskip(n) for n in ("transformers", "open_clip"))
    pytest.importorskip("open_flamingo", reason="open_flamingo is not installed")
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    torch.manual_seed(0)
    lm, layers = make(hf)
    randomise(torch, lm.parameters())
    lm.save_pretrained(folder / "lm")
    write_tokenizer(folder / "lm")
    visual = _TOWERS[tower](torch, hf, open_clip, folder / "vision")
    extend_instance(lm, FlamingoLMMixin)
    lm.set_decoder_layers_attr_name(layers)
    lm.resize_token_embeddings(NUM_IDS + NUM_NEW)
    model = Flamingo(
        types.SimpleNamespace(visual=visual),
        lm,
        END_OF_CHUNK,
        IMAGE,
        vis_dim=VISION_WIDTH,
        cross_attn_every_n_layers=every,
    )
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    lm.gated_cross_attn_layers.requires_grad_(True)
    lm.get_input_embeddings().requires_grad_(True)
    trained = [p for p in model.perceiver.parameters()]
    randomise(torch, [*trained, *lm.gated_cross_attn_layers.parameters()])
    with torch.no_grad():
        for table in {lm.get_input_embeddings().weight, lm.get_output_embeddings().weight}:
            table[NUM_IDS:] = 0.3 * torch.randn(NUM_NEW, WIDTH)
        if make is llama:
            rows = open_flamingo.drawn_head("llama", folder, NUM_NEW, WIDTH)
            lm.get_output_embeddings().weight[NUM_IDS:] = torch.from_numpy(rows)
    torch.save(_state_dict(model), folder / "checkpoint.pt")
    return Reference(model.eval(), folder / "checkpoint.pt", folder / "lm", folder / "vision")


def _state_dict(model) -> dict:
    """As its `save_checkpoint` filters it, under the names that heads had then."""
    family, head = model.lang_encoder.config.model_type, "lang_encoder.lm_head.weight"
    if family == "gpt_neox":  # the filter keeps embed_out for its name, which is lm_head now
        model.lang_encoder.get_output_embeddings().requires_grad_(True)
    state = _filter()(model, model.state_dict())
    if family == "mpt":  # had no head
        del state[head]
    if family == "gpt_neox":
        state["lang_encoder.embed_out.weight"] = state.pop(head)
        state |= dict.fromkeys(BUFFERS, import_torch().zeros(1))
    return state


def _filter():
    sys.modules["wandb"] = types.ModuleType("wandb")  # which it imports and does not need here
    try:
        from open_flamingo.train.train_utils import filter_state_dict_to_trainable
    finally:
        del sys.modules["wandb"]
    return filter_state_dict_to_trainable


def randomise(torch, parameters) -> None:
    """Moves them off the initial values, norms, biases and gates too."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in parameters:
            p.add_(0.2 * torch.randn(p.shape, generator=generator))
            if p.shape == (1,):
                p.fill_(0.7)


def _open_clip(torch, hf, open_clip, folder: pathlib.Path):
    """open_clip's tower, with patch tokens before the last norm as in its release of that time."""
    visual = open_clip.transformer.VisionTransformer(
        SIZE_PX,
        8,
        VISION_WIDTH,
        3,
        4,
        4.0,
        output_dim=16,
        act_layer=open_clip.transformer.QuickGELU,
        final_ln_after_pool=True,
        output_tokens=True,
    )
    randomise(torch, visual.parameters())
    folder.mkdir()
    state = {f"visual.{name}": tensor for name, tensor in visual.state_dict().items()}
    torch.save(state | {"logit_scale": torch.ones(())}, folder / "open_clip_pytorch_model.bin")
    return visual


def _hf_clip(torch, hf, open_clip, folder: pathlib.Path):
    """transformers' tower, behind open_clip's interface."""
    config = hf.CLIPVisionConfig(
        hidden_size=VISION_WIDTH,
        intermediate_size=4 * VISION_WIDTH,
        num_hidden_layers=3,
        num_attention_heads=4,
        image_size=SIZE_PX,
        patch_size=8,
        hidden_act="quick_gelu",
    )
    tower = hf.CLIPVisionModel(config)
    randomise(torch, tower.parameters())
    tower.save_pretrained(folder)

    class Visual(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.tower = tower

        def forward(self, pixels):
            return None, self.tower(pixel_values=pixels).last_hidden_state[:, 1:]

    return Visual()


_TOWERS = {"open_clip": _open_clip, "hf_clip": _hf_clip}
