"""What all recipes share: the paper's training settings, and its three kinds of dataset.

Paper: section 2.4 and appendix B.1. Batch sizes are those of its ablations; it does not give those
of the final models. Adam's betas and epsilon are ours.
"""

import ml_collections


def base() -> ml_collections.ConfigDict:
    """What the paper says, and our choices where it is silent."""
    c = ml_collections.ConfigDict()
    c.variant = ""
    c.seed = 0
    c.steps = 500_000
    c.log_every = 50
    c.checkpoint_every = 1_000
    c.keep_checkpoints = 2
    c.accumulate = True  # False: round-robin, one dataset an update (the ablation)

    c.dtypes = {"frozen": "bfloat16", "trainable": "float32", "compute": "bfloat16"}
    c.execution = {"scan": True, "remat": "full", "images_at_once": 8, "attention": "auto"}
    # Products and then whole collectives, which run beside other work, where the TPU compiler would
    # turn a product over `tensor` into a ring of small ones: see docs/scaling.md.
    c.compiler_options = {"tpu": {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}}
    c.mesh = {"slice": 1, "data": -1, "fsdp": 1, "tensor": 1}

    c.optim = {
        "learning_rate": 1e-4,
        "warmup_steps": 5_000,
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "gate_multiplier": 1.0,
    }
    c.alignment = {  # of model.vision.aligned_width, see experiments/alignment.py
        "steps": 300,
        "batch_size": 512,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "dropout": 0.5,
        "inverse_temperature": 10.0,
        "other_texts": 0.5,
    }
    c.profile = {"steps": ""}  # FIRST:LAST, such as "10:12": a profile of these steps
    c.data = ml_collections.ConfigDict()
    c.data.dir = ml_collections.config_dict.placeholder(str)  # None: the cache folder
    c.data.source = ""  # what is prepared there: "emoji", "synthetic", or "" for what is there
    c.data.cache_features = False  # encode every picture once, before training; no augmentation
    c.data.max_skipped_share = 0.05
    c.data.train = ml_collections.ConfigDict()
    c.data.heldout = ml_collections.ConfigDict()
    c.report = {
        "num_queries": 0,
        "num_candidates": 40,
        "num_captions": 64,  # queries that are captioned too, for each number of shots
        "shots": (0, 4, 8),
        "max_tokens": 16,
    }
    c.caption_template = "Output: {}"
    return c


def pairs(**changes) -> dict:
    """A dataset of image-text pairs; the paper's weight for ALIGN and LTIP is 0.2."""
    return {
        "path": "",
        "kind": "pair",
        "split": "train",
        "weight": 0.2,
        "batch_size": 512,
        "num_tokens": 32,
        "max_media": 1,
        "pairs_per_row": 1,
        "prepend_space": 0.5,
        "template": "{}",
    } | changes


def videos(**changes) -> dict:
    """A dataset of video-text pairs; the paper's weight for VTP is 0.03. 8 frames, one a second."""
    return pairs(**{"weight": 0.03, "batch_size": 64, "num_frames": 8, "fps": 1.0} | changes)


def pages(**changes) -> dict:
    """A dataset of interleaved pages; the paper's weight for M3W is 1."""
    return {
        "path": "",
        "kind": "page",
        "split": "train",
        "weight": 1.0,
        "batch_size": 256,
        "num_tokens": 256,
        "max_media": 5,
        "p_next": 0.5,
    } | changes
