"""What all recipes share: the paper's training settings, and its three kinds of dataset.

Paper: section 2.4 and appendix B.1. Batch sizes are those of its ablations; it does not give those
of the final models. Adam's betas and epsilon are ours.
"""

import dataclasses

import ml_collections

from data_pipelines.streams.stream_config import StreamConfig


def run(stage: str) -> ml_collections.ConfigDict:
    """Settings of any run, of one of `experiments.training.stages`."""
    c = ml_collections.ConfigDict()
    c.stage = stage
    c.variant = ""
    c.seed = 0
    c.steps = 0
    c.log_every = 50
    c.checkpoint_every = 1_000
    c.keep_checkpoints = 2  # the newest
    c.keep_every = 0  # steps whose checkpoints are kept for good too; 0: none
    c.validate_every = 1_000  # steps, and after the last one; 0: never
    c.validation_batches = 8  # of each dataset
    c.stall_minutes = 30  # without a step, the first with its compiling; 0: a run waits for ever
    c.accumulate = True  # False: round-robin, one dataset an update (the ablation)
    c.join_datasets = False  # True: one pass over the rows of all, see train/joined.py

    c.dtypes = {"compute": "bfloat16"}
    c.execution = {"scan": True, "remat": "full"}
    # Products and then whole collectives, which run beside other work, where the TPU compiler would
    # turn a product over `tensor` into a ring of small ones: see docs/scaling.md.
    c.compiler_options = {"tpu": {"xla_jf_spmd_threshold_for_windowed_einsum_mib": 1_000_000}}
    c.mesh = {"slice": 1, "data": -1, "fsdp": 1, "tensor": 1}
    c.profile = {"steps": ""}  # FIRST:LAST, such as "10:12": a profile of these steps
    c.data = ml_collections.ConfigDict()
    c.data.dir = ml_collections.config_dict.placeholder(str)  # None: the cache folder
    c.data.source = ""  # what is prepared there: "emoji", "synthetic", or "" for what is there
    c.data.max_skipped_share = 0.05
    c.data.train = ml_collections.ConfigDict()
    # Held-out loss while training; made with pairs() and pages() too, a weight means nothing here.
    c.data.validation = ml_collections.ConfigDict()
    return c


def base() -> ml_collections.ConfigDict:
    """What the paper says, and our choices where it is silent."""
    c = run("flamingo")
    c.steps = 500_000
    c.init_from = ""  # a model (folder, workdir, checkpoint, or gs://...) to train on from
    c.microbatches = 1  # parts of a step's batches, one after the other, for less memory

    c.dtypes.update({"frozen": "bfloat16", "trainable": "float32"})
    c.execution.images_at_once = 8
    c.execution.attention = "auto"
    c.optim = {
        "learning_rate": 1e-4,
        "warmup_steps": 5_000,
        "decay_steps": 0,  # the rate a tenth after every so many steps; 0: constant
        "b1": 0.9,
        "b2": 0.95,
        "eps": 1e-8,
        "weight_decay": 0.1,
        "clip_norm": 1.0,
        "gate_multiplier": 1.0,
        "language_model_multiplier": 1.0,  # where model.trained names it
    }
    c.alignment = {  # of model.vision.aligned_width, see experiments/frozen/alignment.py
        "steps": 300,
        "batch_size": 512,
        "learning_rate": 1e-3,
        "weight_decay": 0.1,
        "dropout": 0.5,
        "inverse_temperature": 10.0,
        "other_texts": 0.5,
    }
    c.data.cache_features = False  # encode every picture once, before training; no augmentation
    # Of pairs; needed where num_queries is not 0. Prompts show examples from the split `support`.
    c.data.heldout = {"path": "", "split": "heldout", "support": "train"}
    c.report = {
        "num_queries": 0,
        "num_candidates": 40,
        "num_captions": 64,  # queries that are captioned too, for each number of shots
        "num_support": 2048,  # examples to choose from, drawn once, as many as the paper; 0: all
        "shots": (0, 4, 8),
        "max_tokens": 16,
    }
    c.caption_template = "Output: {}"
    return c


def pairs(**changes) -> dict:
    """A dataset of image-text pairs; the paper's weight for ALIGN and LTIP is 0.2."""
    paper = {"weight": 0.2, "batch_size": 512, "num_tokens": 32}
    return _dataset("pair", paper | changes)


def videos(**changes) -> dict:
    """A dataset of video-text pairs; the paper's weight for VTP is 0.03. 8 frames, one a second."""
    return pairs(**{"weight": 0.03, "batch_size": 64, "num_frames": 8, "fps": 1.0} | changes)


def answers(**changes) -> dict:
    """A dataset of questions, captions to write too, that `data_pipelines.build` made of a
    benchmark to fine-tune on: the answer alone is learnt. 8 a step is one of the paper's two."""
    return _dataset("answer", {"weight": 1.0, "batch_size": 8, "num_tokens": 64} | changes)


def pages(**changes) -> dict:
    """A dataset of interleaved pages; the paper's weight for M3W is 1."""
    paper = {"weight": 1.0, "batch_size": 256, "num_tokens": 256, "max_media": 5, "p_next": 0.5}
    return _dataset("page", paper | changes)


def texts(**changes) -> dict:
    """A dataset of texts for a language model alone; several share a row with `pairs_per_row`."""
    return _dataset("text", {"weight": 1.0, "batch_size": 1_024, "num_tokens": 2_048} | changes)


def _dataset(kind: str, values: dict) -> dict:
    """Every field of a stream that means something for its kind, to be set by a recipe or a flag.

    What all datasets of a recipe share is not among them, nor that training repeats its data.
    """
    fields = {
        field.name: field.default
        for field in dataclasses.fields(StreamConfig)
        if field.default is not dataclasses.MISSING
    }
    other = {
        "page": ("pairs_per_row", "prepend_space", "template", "score_template"),
        "pair": ("max_media", "p_next"),
        "answer": (
            *("max_media", "p_next", "pairs_per_row"),
            *("prepend_space", "template", "score_template"),
        ),
        "text": (
            *("max_media", "p_next", "num_frames", "fps", "flip", "color"),
            *("prepend_space", "template", "score_template"),
        ),
    }
    for name in ("seed", "max_skipped_share", "repeat", *other[kind]):
        del fields[name]
    return {"path": "", "kind": kind, **fields} | values
