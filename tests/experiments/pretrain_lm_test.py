"""A language model's own training: what it leaves, and that a Flamingo reads the same model."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, traverse_util

from experiments.configs import contrastive, flamingo, language_model
from experiments.frozen import parts
from experiments.planning import summary
from experiments.pretraining import language_model_stage
from experiments.training import run_setup
from flamingo_jax.config import LanguageModelConfig, from_dict
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.rngs import Rngs
from flamingo_jax.core.stack import Execution, plan
from flamingo_jax.models.lm import LanguageModel
from flamingo_jax.weights import frozen_parts
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.language_models import pretrained_lm
from tests import tiny_flamingo as tiny
from tests.experiments.training_bench import Bench

MICRO = from_dict(LanguageModelConfig, language_model.micro().model.to_dict())


@pytest.fixture(scope="module")
def bench(tmp_path_factory):
    recipes = "experiments/configs/language_model.py"
    return Bench(tmp_path_factory.mktemp("lm"), "experiments.pretrain_lm", recipes)


@pytest.fixture(scope="module")
def finished(bench):
    """The workdir of a run of four steps."""
    options = "--config.steps=4", "--config.validate_every=2", "--config.checkpoint_every=2"
    status, errors = bench.finish(bench.start("run", *options))
    assert status == 0, errors
    return bench.folder / "run"


def test_a_run_leaves_rows_and_a_report(bench, finished):
    rows = bench.rows("run")
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert rows[0]["loss"] == pytest.approx(np.log(259), abs=0.4)  # as good as no knowledge
    assert rows[-1]["validation/pages"] < rows[1]["validation/pages"]
    report = json.loads((finished / "report.json").read_text())
    assert report["heldout"] == {"pages": rows[-1]["validation/pages"]}
    assert report["data"]["pages"]["examples"] == 32
    assert "| pages | 32 | 0 |" in (finished / "report.md").read_text()
    assert (finished / "report.png").is_file()


def test_a_flamingo_reads_the_same_model_in_its_own_segments(finished):
    source = parts.source("language_model", f"pretrained:{finished / 'model'}", 0)
    config = tiny.changed(lm=vars(MICRO))
    own, cut = plan(2, 2, 0), plan(2, 1, 1)
    tokens = jnp.array([[256, 97, 32, 98, 257]])
    found = []
    for segments in (own, cut):
        tree = frozen_parts.load_language_model(source, config, segments)
        make = lambda rngs, s=segments: LanguageModel(MICRO, Execution(), s, rngs=rngs)  # noqa: E731
        tree = traverse_util.path_aware_map(lambda _, leaf: jnp.asarray(np.asarray(leaf)), tree)
        model = nnx.merge(params_lib.abstract(make)[0], tree)
        found.append(model(tokens))
    np.testing.assert_allclose(*found, atol=1e-6)
    assert parts.tokenizer_of(source, 259).encode("ab") == [97, 98]


def test_another_model_than_the_configs_is_refused(finished):
    source = parts.source("language_model", f"pretrained:{finished / 'model'}", 0)
    changed = tiny.changed(lm=vars(MICRO) | {"ffw_width": 32})
    with pytest.raises(BadWeightsFile, match="ffw_width=64"):
        frozen_parts.load_language_model(source, changed, plan(2, 2, 0))
    with pytest.raises(BadWeightsFile, match="name the model/ folder of a finished"):
        pretrained_lm.read_config(finished)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data.train.pages.kind": "page"}, "kind='page': a language model reads kind='text'"),
        ({"model.vocab_size": 100}, "bos_id=256 is not in the vocabulary of 100"),
        ({"optim.last_share": 2.0}, r"optim.last_share=2.0: use 0 to 1"),
        ({"optim.warmup_steps": 10}, r"optim.warmup_steps=10: use less than steps=10"),
        ({"tokenizer": "sentencepiece:/none.model"}, "not a sentencepiece model"),
        ({"data.train.pages.batch_size": 9}, "batch_size=9 does not divide among 8 devices"),
    ],
)
def test_a_recipe_that_does_not_hold_together_is_one_line(bench, finished, changes, message):
    config = language_model.micro()
    config.data.dir = str(bench.folder / "cache" / "datasets")
    config.update_from_flattened_dict(changes)
    with pytest.raises(ValueError, match=message):
        check(config)


def check(config):
    """As the command does, in this order."""
    language_model_stage.design(config)
    language_model_stage.data(config)


def test_a_recipe_of_another_stage_names_its_command():
    for other in (contrastive.micro(), flamingo.get_config("micro")):
        with pytest.raises(ValueError, match=r"give it to experiments\.(pretrain_contras|train)"):
            language_model_stage.design(other)
    with pytest.raises(ValueError, match=r"give it to experiments\.pretrain_lm"):
        run_setup.check(language_model.micro())
    with pytest.raises(ValueError, match=r"on a TPU slice, experiments\.aot_compile says"):
        summary.summarize(language_model.micro())


def test_a_shape_by_name_is_a_recipe():
    config = language_model.get_config("chinchilla_70b")
    assert language_model_stage.design(config).flops == pytest.approx(6 * 70e9 * 2**21, rel=0.15)
    with pytest.raises(ValueError, match=r"unknown variant .*: use one of \['chinchilla_117m'"):
        language_model.get_config("chinchila_1b")


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("dtypes.compute", "bf16", r"dtypes.compute='bf16': use one of"),
        ("execution.attention", "flash", r"execution.attention='flash': use one of"),
        ("execution.attention", "splash", r"'splash' does not run on cpu"),
        ("execution.remat", "some", r"execution.remat='some': use one of"),
    ],
)
def test_how_it_is_computed_is_checked_too(key, value, message):
    config = language_model.micro()
    config.update_from_flattened_dict({key: value})
    with pytest.raises(ValueError, match=message):
        language_model_stage.design(config)


def test_the_kernel_is_that_of_the_platform_it_is_compiled_for():
    config = language_model.get_config("smollm2_135m")
    model = nnx.eval_shape(lambda: language_model_stage.design(config, "tpu").make(Rngs(0)))
    assert model.blocks.groups.layers.layers.attention.kernel == "splash"
