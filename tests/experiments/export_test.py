"""experiments.export to OpenFlamingo: a checkpoint comes back, and other models are refused."""

import dataclasses

import ml_dtypes
import numpy as np
import pytest

from experiments.published import conversion
from flamingo_jax import model_directory
from flamingo_jax.config import ImagePreprocessing
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights.files import torch_checkpoint_writer
from flamingo_jax.weights.files.torch_checkpoint import load_state_dict
from flamingo_jax.weights.flamingos import open_flamingo, open_flamingo_export, published
from tests.experiments import prompt_files
from tests.language_model_folder import NUM_IDS
from tests.weights import open_flamingo_files as files


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported")
    files.write(folder)
    found = published.from_open_flamingo(
        folder / "checkpoint.safetensors", folder / "lm", folder / "clip"
    )
    conversion.write(found, folder / "model", "bfloat16")
    return folder


def test_there_and_back_no_number_has_changed(folder, tmp_path):
    out = tmp_path / "out"
    done = prompt_files.run(
        "experiments.export",
        f"--model={folder / 'model'}",
        "--format=open_flamingo",
        f"--out={out}",
    )
    assert done.returncode == 0, done.stderr
    assert "92 tensors written" in done.stdout
    assert f"writing {out}: " in done.stderr
    assert "cross_attn_every_n_layers=2" in done.stdout
    want, found = files.checkpoint(), load_state_dict(out / "checkpoint.pt")
    assert {*found} == {*want}
    for name, tensor in want.items():
        np.testing.assert_array_equal(found[name], tensor, name)
        assert found[name].dtype == tensor.dtype
    again = published.from_open_flamingo(out / "checkpoint.pt", folder / "lm", folder / "clip")
    card = model_directory.read_card(folder / "model")
    assert again.conversion.config == card.config


@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_numbers_of_other_sizes_come_back_too(tmp_path, dtype):
    want = {name: tensor.astype(dtype) for name, tensor in files.checkpoint().items()}
    files.write(tmp_path, want)
    found = published.from_open_flamingo(
        tmp_path / "checkpoint.safetensors", tmp_path / "lm", tmp_path / "clip"
    )
    card = conversion.write(found, tmp_path / "model", "float32")
    params = model_directory.trained_params(tmp_path / "model")
    tensors = open_flamingo_export.tensors(
        card.config, params, found.tokenizer, tmp_path / "lm", "mpt"
    )
    torch_checkpoint_writer.save_state_dict(tmp_path / "back.pt", tensors)
    back = load_state_dict(tmp_path / "back.pt")
    for name, tensor in want.items():
        own = name.endswith("wte.weight") * NUM_IDS  # rows that are the language model's
        np.testing.assert_array_equal(back[name][own:], tensor[own:], name)
        np.testing.assert_allclose(back[name].astype(float), tensor.astype(float), rtol=1e-2)
        assert back[name].dtype == dtype


@pytest.mark.parametrize(
    ("part", "field", "value", "message"),
    [
        ("resampler", "activation", "squared_relu", "resampler.activation=squared_relu: Open"),
        ("cross_attention", "offset", 0, "cross_attention.offset=0: OpenFlamingo computes with 1"),
        ("cross_attention", "normalize_media", True, "normalize_media=True: .* with False"),
        ("resampler", "depth", 8, "resampler.depth=8: OpenFlamingo computes with 6"),
        ("cross_attention", "head_dim", 32, "cross_attention.head_dim=32: .* with 64"),
        (
            "vision",
            "preprocessing",
            ImagePreprocessing(32),
            "vision.preprocessing.fit=pad: OpenFlamingo computes with crop",
        ),
    ],
)
def test_a_model_that_open_flamingo_does_not_compute_is_refused(
    folder, part, field, value, message
):
    card = model_directory.read_card(folder / "model")
    tokenizer = model_directory.read_tokenizer(folder / "model")
    open_flamingo_export.check(card.config, tokenizer, "mpt", NUM_IDS)
    changed = dataclasses.replace(getattr(card.config, part), **{field: value})
    config = dataclasses.replace(card.config, **{part: changed})
    with pytest.raises(ValueError, match=message):
        open_flamingo_export.check(config, tokenizer, "mpt", NUM_IDS)
    with pytest.raises(ValueError, match="family gpt2: use one of"):
        open_flamingo_export.check(card.config, tokenizer, "gpt2", NUM_IDS)


def test_a_model_with_rows_between_the_ids_and_the_new_tokens_is_refused(folder, tmp_path):
    """Here new tokens may stand behind the language model's whole table, there only its ids."""
    card = model_directory.read_card(folder / "model")
    rows = dataclasses.replace(card.config.language_model, vocab_size=files.ROWS)
    card = dataclasses.replace(card, config=dataclasses.replace(card.config, language_model=rows))
    tokenizer = Tokenizer.from_huggingface(folder / "lm", files.ROWS)
    tokenizer = tokenizer.with_conventions(open_flamingo.NEW_TOKENS, starts_with_bos=False)
    params = model_directory.trained_params(folder / "model")
    model_directory.save(tmp_path / "model", card, tokenizer, params)
    done = prompt_files.run(
        "experiments.export",
        f"--model={tmp_path / 'model'}",
        "--format=open_flamingo",
        f"--out={tmp_path / 'out'}",
    )
    assert (done.returncode, (tmp_path / "out").exists()) == (2, False)
    assert "language_model.vocab_size=261: OpenFlamingo computes with 257" in done.stderr


def test_new_tokens_of_our_order_are_written_in_theirs(folder):
    card = model_directory.read_card(folder / "model")
    theirs = model_directory.read_tokenizer(folder / "model")
    ours = theirs.with_conventions(("<image>", "<EOC>", "<PAD>"), starts_with_bos=True)
    params = model_directory.trained_params(folder / "model")
    moved = params | {
        "new_tokens": {"embedding": params["new_tokens"]["embedding"][np.array([1, 0, 2])]}
    }
    want, found = (
        dict(open_flamingo_export.tensors(card.config, p, t, folder / "lm", "mpt"))
        for p, t in ((params, theirs), (moved, ours))
    )
    for name, tensor in want.items():
        np.testing.assert_array_equal(found[name], tensor, name)
    other = theirs.with_conventions(("<image>", "<EOC>", "<more>"), starts_with_bos=True)
    with pytest.raises(ValueError, match=r"new tokens .*<more>.*: OpenFlamingo has"):
        open_flamingo_export.check(card.config, other, "mpt", NUM_IDS)


def test_a_torch_checkpoint_of_every_dtype_and_rank(tmp_path):
    rng = np.random.default_rng(0)
    tensors = {
        "double": rng.normal(size=(2, 3)),
        "transposed": rng.normal(size=(3, 4)).astype(np.float32).T,
        "half": rng.normal(size=(2, 1, 5)).astype(np.float16),
        "bfloat": rng.normal(size=7).astype(ml_dtypes.bfloat16),
        "scalar": np.float32(3).reshape(()),
    }
    file = tmp_path / "a.pt"
    written = []
    assert torch_checkpoint_writer.save_state_dict(file, tensors.items(), written.append) == 5
    assert written == [tensor.nbytes for tensor in tensors.values()]
    found = load_state_dict(file)
    assert [*found] == [*tensors]
    for name, tensor in tensors.items():
        np.testing.assert_array_equal(found[name], tensor)
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape)
    with pytest.raises(TypeError, match="a tensor of int64: want one of"):
        torch_checkpoint_writer.save_state_dict(file, [("a", np.zeros(1, np.int64))])
