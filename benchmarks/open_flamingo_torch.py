"""The worker of `open_flamingo_step` that trains with OpenFlamingo's own code.

The model is `open_flamingo.src.flamingo.Flamingo` around transformers' MPT and open_clip's tower,
put together and frozen as in its `factory.py`. A step is one call of its `train_one_epoch` with one
batch of each dataset, and AdamW has the groups of its `train.py`. Nothing of it is changed; what it
wants around it is stood in for: wandb by an object that keeps the losses, the tokenizer by one that
knows the special tokens, DistributedDataParallel by a module that only calls the model, the
progress bar by none.
"""

import importlib.metadata
import itertools
import os
import pathlib
import sys
import types
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks import exchange
from benchmarks.open_flamingo_weights import copy_weights
from flamingo_jax.batch import Batch
from flamingo_jax.config import FlamingoConfig
from flamingo_jax.train import optim
from tests.torch_reference import import_torch

CLIP = "ViT-S-16"  # open_clip's name of `vit_s_16`
PAGES, PAIRS = "pages", "pairs"  # OpenFlamingo's MMC4 and LAION
NEVER = 1 << 30


def main(folder: pathlib.Path):
    """(facts, step); a step reads the next batches and waits for its losses."""
    import_torch()  # lets transformers load beside a torchvision of another build
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    setup, trainable, frozen, batches = exchange.read(folder)
    model, train_one_epoch = build(setup.config), import_train_one_epoch()
    copy_weights(model, setup.config, trainable, frozen)
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = make_optimizer(model, setup.optim)
    log, norms = Log(), keep_norms()
    data = itertools.cycle([_loaders(b, setup.config) for b in batches])
    arguments = types.SimpleNamespace(
        num_epochs=1,
        precision="fp32",
        fsdp=False,
        freeze_lm_embeddings=not setup.config.train_new_inputs,
        gradient_accumulation_steps=1,
        loss_multiplier_mmc4=setup.weights[PAGES],
        loss_multiplier_laion=setup.weights[PAIRS],
        batch_size_mmc4=len(batches[0][PAGES].tokens),
        batch_size_laion=len(batches[0][PAIRS].tokens),
        rank=0,
        world_size=1,
        report_to_wandb=True,
        logging_steps=NEVER,
    )
    rest = (Tokenizer(setup.config), optimizer, schedule, "cpu", log)

    def facts():
        names = ("torch", "transformers", "open-flamingo", "open-clip-torch")
        table = model.lang_encoder.get_input_embeddings().weight
        lm = model.lang_encoder.named_parameters()
        return {
            "versions": {n: importlib.metadata.version(n) for n in names},
            "threads": torch.get_num_threads(),
            "trained": sum(p.numel() for p in trained),
            # The table is longer than the frozen one by the new tokens' rows.
            "language_model": sum(p.numel() for n, p in lm if "gated_cross_attn" not in n)
            - setup.config.num_new_tokens * table.shape[1],
        }

    def step():
        pairs, pages = next(data)
        with exchange.timed() as times:
            train_one_epoch(arguments, DataParallel(model), 0, pairs, pages, *rest)
        loss = sum(
            setup.weights[name] * log.last[f"loss_{theirs}"]
            for name, theirs in ((PAGES, "mmc4"), (PAIRS, "laion"))
        )
        return {**times, "loss": loss, "grad_norm": norms.pop().item()}

    return facts, step


def build(config: FlamingoConfig) -> nn.Module:
    """Random weights; what OpenFlamingo trains requires a gradient."""
    import open_clip
    import transformers
    from open_flamingo.src.flamingo import Flamingo
    from open_flamingo.src.flamingo_lm import FlamingoLMMixin
    from open_flamingo.src.utils import extend_instance

    lm = config.language_model
    language_model = transformers.MptForCausalLM(
        transformers.MptConfig(
            vocab_size=config.vocab_size,
            d_model=lm.width,
            n_heads=lm.num_heads,
            n_layers=lm.num_layers,
            expansion_ratio=lm.ffw_width // lm.width,
            max_seq_len=lm.max_length,
        )
    )
    extend_instance(language_model, FlamingoLMMixin)
    language_model.set_decoder_layers_attr_name("transformer.blocks")
    clip = open_clip.create_model(CLIP)
    clip.visual.output_tokens = True
    tokens = Tokenizer(config)
    model = Flamingo(
        clip,
        language_model,
        tokens.ids["<|endofchunk|>"],
        tokens.ids["<image>"],
        vis_dim=config.vision.width,
        cross_attn_every_n_layers=config.cross_attention.every,
    )
    model.requires_grad_(False)
    model.perceiver.requires_grad_(True)
    model.lang_encoder.gated_cross_attn_layers.requires_grad_(True)
    model.lang_encoder.get_input_embeddings().requires_grad_(config.train_new_inputs)
    return model


def import_train_one_epoch() -> Callable[..., None]:
    """Without a progress bar, and without wandb, which the function gets as an argument anyway."""
    sys.modules["wandb"] = types.ModuleType("wandb")
    try:
        from open_flamingo.train import train_utils
    finally:
        del sys.modules["wandb"]  # others ask whether wandb is there
    train_utils.tqdm = lambda batches, **_: batches
    return train_utils.train_one_epoch


def make_optimizer(model: nn.Module, config: optim.OptimizerConfig):
    """AdamW and its schedule; all of the gated blocks decays, gates and norms too."""
    groups = {True: [], False: []}
    for name, p in model.named_parameters():
        if p.requires_grad:
            groups["gated_cross_attn" in name].append(p)
    optimizer = torch.optim.AdamW(
        [
            {"params": groups[True], "weight_decay": config.weight_decay},
            {"params": groups[False], "weight_decay": 0.0},
        ],
        lr=config.learning_rate,
    )
    warmup = max(config.warmup_steps, 1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(i / warmup, 1.0))


class Tokenizer:
    """As much of one as a training step asks for; the new tokens come last."""

    eos_token = "<|endoftext|>"

    def __init__(self, config: FlamingoConfig):
        size = config.language_model.vocab_size
        self.pad_token_id = size - 1
        self.ids = {"<|endofchunk|>": size, "<image>": size + 1}

    def __call__(self, text: str, add_special_tokens: bool):
        return {"input_ids": [self.ids[text]]}


class DataParallel(nn.Module):
    """Calls the model, and has it as `module`."""

    def __init__(self, module: nn.Module):
        super().__init__()
        self.module = module

    def forward(self, **inputs):
        return self.module(**inputs)


class Log:
    """Keeps what was logged last, by name."""

    def __init__(self):
        self.last = {}

    def log(self, values: dict[str, float], commit: bool) -> None:
        self.last.update(values)


def keep_norms() -> list[Tensor]:
    """Gradient norms before clipping, which OpenFlamingo does not keep; grows as it clips."""
    norms, clip = [], torch.nn.utils.clip_grad_norm_
    torch.nn.utils.clip_grad_norm_ = lambda *arguments: norms.append(clip(*arguments))
    return norms


class _Loader(list):
    num_batches = 1


def _loaders(batches: dict[str, Batch], config: FlamingoConfig) -> tuple[_Loader, _Loader]:
    """One batch of pairs and one of pages, as OpenFlamingo's data.py makes them."""
    pp = config.vision.preprocessing
    inputs = {}
    for name, batch in batches.items():
        pixels = (batch.media[:, :, 0] / np.float32(255) - np.float32(pp.mean)) / np.float32(pp.std)
        images = torch.from_numpy(pixels.transpose(0, 1, 4, 2, 3).copy())
        tokens, mask = (
            torch.from_numpy(x.astype(np.int64)) for x in (batch.tokens, batch.token_mask)
        )
        inputs[name] = images, tokens, mask
    images, tokens, mask = inputs[PAIRS]
    pairs = (images.flatten(0, 1), (tokens, mask))
    images, tokens, mask = inputs[PAGES]
    pages = (images, [(t[None], m[None]) for t, m in zip(tokens, mask, strict=True)])
    return _Loader([pairs]), _Loader([pages])


if __name__ == "__main__":
    exchange.serve(lambda: main(pathlib.Path(sys.argv[1])))
