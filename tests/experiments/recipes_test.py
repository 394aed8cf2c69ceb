"""The recipes of full size: parameter counts against the paper's tables, allocating nothing."""

import dataclasses
import json

import jax
import pytest

from data_pipelines.streams.stream_config import StreamConfig
from experiments.configs import finetune, finetune_task, flamingo, paper, public
from experiments.frozen import parts
from experiments.planning import summary
from flamingo_jax import model_directory, same_model
from flamingo_jax.batch import Batch
from flamingo_jax.config import DTypePolicy, FlamingoConfig, from_dict, to_dict
from flamingo_jax.core import params, partition
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models import vision
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.train.optim import OptimizerConfig, make_optimizer
from flamingo_jax.train.state import TrainState
from flamingo_jax.train.step import make_train_step
from flamingo_jax.weights.frozen_parts import Source

FULL_SIZE = ("3b", "9b", "9b_table4", "80b", "3b_public", "9b_public", "80b_public")


def architecture(variant: str, **changes) -> FlamingoConfig:
    """A recipe's model as the training command reads it, some keys changed: `resampler.head_dim`"""
    recipe = flamingo.get_config(variant)
    recipe.model.update_from_flattened_dict(changes)
    return from_dict(FlamingoConfig, recipe.model.to_dict(), "model.")


def counts(config: FlamingoConfig) -> dict[str, int]:
    """Parameters by component."""
    _, shapes, _ = params.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))
    return {name: params.count(tree) for name, tree in shapes.items()}


def gated_before(config: FlamingoConfig) -> list[int]:
    """Language-model blocks that a gated block stands before."""
    xattn = config.cross_attention
    segments = plan(config.language_model.num_layers, xattn.every, xattn.offset)
    starts = [(s.start + i * s.depth) for s in segments if s.gated for i in range(s.repeats)]
    return starts


def printed(count: int) -> str:
    """As Table 5 prints it: millions whole, billions to two digits."""
    if count < 1e9:
        return f"{count / 1e6:.0f}M"
    return f"{count / 1e9:.1f}B" if count < 9.5e9 else f"{count / 1e9:.0f}B"


# Table 5 as printed, and what its reading counts: 13 D^2 a block and 32,000 D of the language
# model, 12 D^2 a gated block. Norms and the projection to D are within the 1%.
TABLE_5 = {
    "3b": ("1.4B", "1.2B", 24 * 13 * 2048**2 + 32_000 * 2048, 24 * 12 * 2048**2),
    "9b": ("7.1B", "1.6B", 32 * 13 * 4096**2 + 32_000 * 4096, 8 * 12 * 4096**2),
    "80b": ("70B", "10B", 80 * 13 * 8192**2 + 32_000 * 8192, 12 * 12 * 8192**2),
}


@pytest.mark.parametrize("variant", TABLE_5)
def test_every_component_counts_what_table_5_prints(variant):
    lm, gated, lm_count, gated_count = TABLE_5[variant]
    found = counts(architecture(variant))
    assert printed(found["language_model"]) == lm
    assert printed(found["gated_xattn"]) == gated
    assert found["language_model"] == pytest.approx(lm_count, rel=0.01)
    assert found["gated_xattn"] == pytest.approx(gated_count, rel=0.01)
    assert found["resampler"] == pytest.approx(194e6, rel=0.01)
    assert printed(found["resampler"]) == "194M"
    assert found["vision"] == pytest.approx(435e6, rel=0.01)
    assert printed(found["vision"]) == "435M"


def test_the_other_readings_count_what_the_sheet_derives():
    """Table 4's depth of 9B; v2's key size; keys and values from the resampler's own width."""
    table4 = counts(architecture("9b_table4"))
    assert printed(table4["language_model"]) == "8.9B"
    assert printed(table4["gated_xattn"]) == "2.0B"
    narrow = architecture("3b", **{"resampler.head_dim": 96})
    assert printed(counts(narrow)["resampler"]) == "175M"
    unprojected = architecture("9b", **{"cross_attention.media_width": 1536})
    assert counts(unprojected)["gated_xattn"] == pytest.approx(1.4428e9, rel=0.01)


# OpenFlamingo's trained parameters (its two models' 881M and 1,116M, and 63.0M of the resampler);
# IDEFICS has 126M and 13.9B, of which SwiGLU is 0.5% more than the paper's feed-forward.
@pytest.mark.parametrize(
    ("variant", "resampler", "gated"),
    [
        ("3b_public", 63.0e6, 881e6),
        ("9b_public", 63.0e6, 1116e6),
        ("80b_public", 126e6, 13.9e9),
    ],
)
def test_public_recipes_train_as_much_as_the_public_models(variant, resampler, gated):
    found = counts(architecture(variant))
    assert found["resampler"] == pytest.approx(resampler, rel=0.001)
    assert found["gated_xattn"] == pytest.approx(gated, rel=0.006)


@pytest.mark.parametrize(
    ("variant", "want"),
    [
        ("3b", list(range(24))),
        ("9b", list(range(0, 32, 4))),
        ("9b_table4", list(range(0, 40, 4))),
        ("80b", list(range(0, 78, 7))),  # 0 to 77: twelve
        ("80b_public", list(range(0, 80, 4))),
    ],
)
def test_gated_blocks_stand_before_every_nth_block_from_the_first(variant, want):
    assert gated_before(architecture(variant)) == want


@pytest.mark.parametrize("variant", FULL_SIZE)
def test_recipes_fit_encoder_heads_and_streams(variant):
    config = architecture(variant)
    assert vision.check(config.vision)
    recipe = flamingo.get_config(variant)
    assert recipe.variant == variant
    assert set(summary.streams(recipe)) == set(recipe.data.train)


@pytest.mark.parametrize("variant", ["micro", "demo", *FULL_SIZE])
def test_every_axis_and_every_field_of_a_stream_can_be_set(variant):
    """A recipe takes from a flag only the keys that it has."""
    recipe = flamingo.get_config(variant)
    assert set(recipe.mesh) == set(partition.MESH_AXES)
    shared = {"seed", "max_skipped_share", "repeat", "name", "data_dir"}
    of_other_kind = {
        "page": {"pairs_per_row", "prepend_space", "template", "score_template"},
        "pair": {"max_media", "p_next"},
    }
    fields = {f.name for f in dataclasses.fields(StreamConfig)} - shared
    for dataset in (*recipe.data.train.values(), *recipe.data.validation.values()):
        assert set(dataset) == {"path", "weight"} | fields - of_other_kind[dataset.kind]


@pytest.mark.parametrize("variant", paper.SIZES)
def test_the_papers_training_settings(variant):
    recipe, config = flamingo.get_config(variant), architecture(variant)
    lm, xattn, resampler = config.language_model, config.cross_attention, config.resampler
    table_4 = {"3": (2048, 16), "9": (4096, 32), "8": (8192, 64)}
    assert (lm.width, lm.num_heads) == table_4[variant[0]]
    assert (lm.activation, lm.ffw_width) == ("gelu", 4 * lm.width)
    assert (xattn.num_heads, xattn.head_dim) == (lm.num_heads, 128)
    assert xattn.activation == resampler.activation == "squared_relu"
    assert xattn.ffw_multiplier == resampler.ffw_multiplier == 4
    assert (resampler.depth, resampler.width, resampler.num_heads) == (6, 1536, 16)
    assert (resampler.num_latents, resampler.num_frames) == (64, 8)
    assert config.vision.preprocessing.size_px == 320
    train = recipe.data.train
    times = 2 if variant == "80b" else 1
    assert {name: (d.weight, d.batch_size) for name, d in train.items()} == {
        "m3w": (1.0, times * 256),
        "align": (0.2, times * 512),
        "ltip": (0.2, times * 512),
        "vtp": (0.03, times * 64),
    }
    assert (train.m3w.num_tokens, train.m3w.max_media, train.m3w.p_next) == (256, 5, 0.5)
    assert {train[name].num_tokens for name in ("align", "ltip", "vtp")} == {32, 64}
    assert (train.vtp.num_frames, train.vtp.fps) == (8, 1.0)
    assert (recipe.steps, recipe.accumulate) == (500_000, True)
    assert recipe.dtypes.to_dict() == {
        "frozen": "bfloat16",
        "trainable": "float32",
        "compute": "bfloat16",
    }
    optim = from_dict(OptimizerConfig, recipe.optim.to_dict(), "optim.")
    rates = [float(optim.schedule()(step)) for step in (0, 2_500, 5_000, 400_000)]
    assert rates == pytest.approx([0, 5e-5, 1e-4, 1e-4])
    assert (optim.weight_decay, optim.clip_norm) == (0.1, 1.0)


def test_a_variant_that_does_not_exist_is_named_with_those_that_do():
    with pytest.raises(ValueError, match=r"unknown variant '7b': use one of \['3b', '3b_public'"):
        flamingo.get_config("7b")
    with pytest.raises(ValueError, match=r"no model to train on from: write finetune\.py:MODEL_"):
        finetune.get_config()


def test_a_model_around_random_parts_is_trained_on_around_the_same_ones(tmp_path):
    recipe = flamingo.get_config("micro")
    recipe.seed = 7
    card = parts.model_card(recipe)
    (tmp_path / model_directory.CARD).write_text(json.dumps({"format": 2} | to_dict(card)))
    same_model.check(tmp_path, parts.model_card(finetune.get_config(str(tmp_path))))


def test_a_model_may_be_trained_on_at_another_picture_size_where_its_encoder_takes_any(tmp_path):
    def card(config, **changes) -> model_directory.ModelCard:
        config = dataclasses.replace(config, **changes)
        random = Source("random")
        return model_directory.ModelCard(config, random, random)

    def check(config, size_px):
        path = tmp_path / model_directory.CARD
        path.write_text(json.dumps({"format": 2} | to_dict(card(config))))
        preprocessing = dataclasses.replace(config.vision.preprocessing, size_px=size_px)
        other = dataclasses.replace(config.vision, preprocessing=preprocessing)
        features = vision.output_shape(other)[0]
        other = dataclasses.replace(other, num_features=features)
        same_model.check(tmp_path, card(config, vision=other, trained=("vision",)))

    check(architecture("3b"), 480)
    with pytest.raises(model_directory.ModelDirectoryError, match=r"size_px=224, .* asks for 448"):
        check(architecture("3b_public"), 448)


def test_the_papers_fine_tuning_sees_larger_pictures_with_an_encoder_that_learns():
    recipe = finetune_task.get_config("80b")
    config = from_dict(FlamingoConfig, recipe.model.to_dict(), "model.")
    assert vision.check(config.vision).num_features == 15 * 15
    assert config.trained == ("vision",)
    of_clip = finetune_task.get_config("9b_public").model
    assert of_clip.vision.preprocessing.size_px == 224
    with pytest.raises(ValueError, match=r"size_px=480: vit vit_l_14 has positions for 224 px"):
        vision.at_size(public.CLIP_L, 480)


def test_the_train_step_of_80b_traces_on_videos_and_changes_no_dtype():
    """Shapes and dtypes of one update on 8 frames of 320 px, nothing allocated."""
    recipe, config = flamingo.get_config("80b"), architecture("80b")
    execution = from_dict(Execution, recipe.execution.to_dict(), "execution.")
    policy = from_dict(DTypePolicy, recipe.dtypes.to_dict(), "dtypes.")
    graph, shapes, _ = params.abstract(
        lambda rngs: Flamingo(config, execution, dtype=policy.compute, rngs=rngs)
    )
    trainable, frozen = params.split(shapes)
    frozen = jax.tree.map(lambda s: jax.ShapeDtypeStruct(s.shape, policy.frozen), frozen)
    optimizer = make_optimizer(OptimizerConfig())
    int32, key = jax.ShapeDtypeStruct((), "int32"), jax.ShapeDtypeStruct((2,), "uint32")
    now = TrainState(int32, trainable, jax.eval_shape(optimizer.init, trainable), key)
    text, frames = (2, recipe.data.train.vtp.num_tokens), (2, 1, recipe.data.train.vtp.num_frames)
    batch = Batch(
        tokens=jax.ShapeDtypeStruct(text, "int32"),
        token_mask=jax.ShapeDtypeStruct(text, "bool"),
        loss_mask=jax.ShapeDtypeStruct(text, "bool"),
        media_index=jax.ShapeDtypeStruct(text, "int32"),
        media=jax.ShapeDtypeStruct((*frames, 320, 320, 3), "uint8"),
        media_mask=jax.ShapeDtypeStruct(frames, "bool"),
    )
    step = make_train_step(graph, config, optimizer, {"vtp": recipe.data.train.vtp.weight})
    after, row = jax.eval_shape(step, now, frozen, {"vtp": batch})
    assert jax.tree.map(lambda s: (s.shape, str(s.dtype)), after) == jax.tree.map(
        lambda s: (s.shape, str(s.dtype)), now
    )
    assert {str(leaf.dtype) for leaf in row.values()} == {"float32"}
    assert sum(name.startswith("gate/") for name in row) == 2 * 12


def test_the_public_towers_make_what_they_say():
    for config in (public.CLIP_L, public.CLIP_H, public.SIGLIP_SO400M):
        vision.check(config)
