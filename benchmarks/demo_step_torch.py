"""The worker of `demo_step` that trains the same model in PyTorch, the way its user writes it.

Forward and backward a dataset, gradients accumulated, clipped, and one AdamW step. Nothing frozen
gets a gradient, and autograd by itself goes no deeper than the lowest gated block.
"""

import argparse
import importlib.metadata
import itertools
import os
import pathlib

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks import exchange
from benchmarks.torch_flamingo import TorchFlamingo
from flamingo_jax.train import optim
from tests.torch_reference import import_torch

IGNORED = -100


def main(folder: pathlib.Path, *, logits: str, compile: bool):
    """(facts, step); a step reads the next batches and waits for its loss."""
    import_torch()  # lets transformers load beside a torchvision of another build
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    setup, trainable, frozen, batches = exchange.read(folder)
    model = TorchFlamingo(setup.config)
    model.copy_weights(trainable, frozen)
    data = itertools.cycle([{n: _inputs(b) for n, b in batches.items()} for batches in batches])
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer, schedule = _optimizer(model, setup.optim)
    hidden_states = torch.compile(model.hidden, dynamic=False) if compile else model.hidden

    def loss_of(inputs, targets):
        hidden = hidden_states(*inputs).flatten(0, 1)
        if logits == "targets":
            hidden, targets = hidden[targets != IGNORED], targets[targets != IGNORED]
        return F.cross_entropy(model.logits(hidden), targets, ignore_index=IGNORED)

    def facts():
        names = ("torch", "transformers", "flamingo-pytorch")
        return {
            "versions": {n: importlib.metadata.version(n) for n in names},
            "threads": torch.get_num_threads(),
            "trained": sum(p.numel() for p in trained),
            # The table is longer than the frozen one by the new tokens' rows.
            "language_model": sum(p.numel() for p in model.language_model.parameters())
            - model.new_rows.numel(),
        }

    def step():
        batches = next(data)
        total = 0.0
        with exchange.timed() as times:
            for name, (inputs, targets) in batches.items():
                loss = setup.weights[name] * loss_of(inputs, targets)
                loss.backward()
                total += loss.detach()
            norm = torch.nn.utils.clip_grad_norm_(trained, setup.optim.clip_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad(set_to_none=True)
            model.copy_new_rows()
        return {**times, "loss": total.item(), "grad_norm": norm.item()}

    return facts, step


def _inputs(batch):
    """((tokens, media, locations), targets) of a batch."""
    media = batch.media.astype(np.float32)
    locations = np.diff(batch.media_index, axis=1, prepend=0) > 0
    if not (locations.cumsum(1) == batch.media_index)[batch.token_mask].all():
        raise ValueError("flamingo-pytorch knows only text that sees its last image: set p_next=0")
    targets = np.where(batch.loss_mask, batch.tokens, IGNORED)
    targets = np.concatenate([targets[:, 1:], np.full_like(targets[:, :1], IGNORED)], axis=1)
    arrays = (batch.tokens.astype(np.int64), media, locations)
    return tuple(map(torch.from_numpy, arrays)), torch.from_numpy(targets.astype(np.int64).ravel())


def _optimizer(model: TorchFlamingo, config: optim.OptimizerConfig):
    """AdamW in the recipe's three groups: gates, decaying kernels of the gated blocks, the rest."""
    groups = {"gates": [], "decayed": [], "rest": []}
    for name, p in model.named_parameters():
        if not p.requires_grad:
            continue
        if name.endswith("_gate"):
            groups["gates"].append(p)
        elif name.startswith("gated.") and p.ndim == 2:
            groups["decayed"].append(p)
        else:
            groups["rest"].append(p)
    rate = config.learning_rate
    optimizer = torch.optim.AdamW(
        [
            {"params": groups["gates"], "lr": config.gate_multiplier * rate},
            {"params": groups["decayed"], "weight_decay": config.weight_decay},
            {"params": groups["rest"]},
        ],
        lr=rate,
        betas=(config.b1, config.b2),
        eps=config.eps,
        weight_decay=0.0,
        fused=True,
    )
    warmup = max(config.warmup_steps, 1)
    return optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: min(i / warmup, 1.0))


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--logits", choices=["all", "targets"], default="all")
    parser.add_argument("--compile", action="store_true")
    args = vars(parser.parse_args())
    exchange.serve(lambda: main(**args))
