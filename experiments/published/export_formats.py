"""A finished model written as OpenFlamingo's checkpoint, IDEFICS's folder, or plain safetensors."""

import pathlib
import shutil

from experiments import cli
from experiments.asking import loading
from experiments.published import conversion
from flamingo_jax import exported_model, model_directory
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import frozen_parts
from flamingo_jax.weights.files import (
    checkpoint_files,
    folders,
    tensor_shards,
    torch_checkpoint_writer,
)
from flamingo_jax.weights.flamingos import idefics_export, open_flamingo_export
from flamingo_jax.weights.language_models import hf_lm_config

FILE = "checkpoint.pt"
_BESIDE = ("*.json", "*.model", "*.jinja")  # of config, tokenizer, preprocessor; not the weights


def to_open_flamingo(directory: pathlib.Path, card: ModelCard, out: pathlib.Path) -> str:
    """Writes OpenFlamingo's checkpoint, whole or not at all, and returns how it is loaded."""
    _check_frozen(directory, card)
    if card.language_model.format != "hf_lm":
        raise cli.UserError(
            f"{directory}: its language model is of the format {card.language_model.format}: only "
            "one from a folder of transformers (hf_lm) goes into OpenFlamingo"
        )
    with cli.user_input():
        tokenizer = model_directory.read_tokenizer(directory)
        path = frozen_parts.checked_file(card.language_model)
        family, _ = hf_lm_config.read_folder(path)
        num_ids = Tokenizer.from_huggingface(path).base_vocab_size
        open_flamingo_export.check(card.config, tokenizer, family, num_ids)
    params = model_directory.trained_params(directory)
    made_from = (card.config, params, tokenizer, path, family)
    size = sum(tensor.nbytes for _, tensor in open_flamingo_export.tensors(*made_from))
    with folders.whole(out) as partial, conversion.mebibytes(size, f"writing {out}") as tick:
        tensors = open_flamingo_export.tensors(*made_from)
        number = torch_checkpoint_writer.save_state_dict(partial / FILE, tensors, tick)
    every = card.config.cross_attention.every
    return (
        f"{number} tensors written to {out / FILE}\n"
        f"OpenFlamingo: create_model_and_transforms(..., lang_encoder_path={str(path)!r}, "
        f"cross_attn_every_n_layers={every}), then model.load_state_dict(torch.load("
        f"{str(out / FILE)!r}), strict=False)"
    )


def to_idefics(directory: pathlib.Path, card: ModelCard, out: pathlib.Path) -> str:
    """Writes a folder of transformers, whole or not at all, and returns how it is opened."""
    _check_frozen(directory, card)
    lm, vision = card.language_model, card.vision
    if (lm.format, vision.format, vision.path) != ("hf_lm", "hf_clip", lm.path):
        named = [f"{part.format}:{part.path}".removesuffix(":") for part in (lm, vision)]
        raise cli.UserError(
            f"{directory}: its frozen parts are {' and '.join(named)}: only a model whose frozen "
            "parts are both of one folder of IDEFICS goes back into it"
        )
    with cli.user_input():
        tokenizer = model_directory.read_tokenizer(directory)
        folder = frozen_parts.checked_file(lm)
        theirs = checkpoint_files.tensors(folder)
        idefics_export.check(card.config, tokenizer, folder, theirs)
    params = model_directory.trained_params(directory)
    group = tensor_shards.Group(idefics_export.tensors(card.config, params, theirs))
    with folders.whole(out) as partial:
        for pattern in _BESIDE:
            for file in sorted(folder.glob(pattern)):
                if not file.name.endswith(".index.json"):
                    shutil.copyfile(file, partial / file.name)
        with conversion.mebibytes(tensor_shards.num_bytes([group]), f"writing {out}") as tick:
            number = tensor_shards.save(partial, [group], metadata={"format": "pt"}, tick=tick)
    return (
        f"{number} tensors written to {out}\n"
        f"transformers: IdeficsForVisionText2Text.from_pretrained({str(out)!r}), and "
        f"AutoProcessor.from_pretrained({str(out)!r})"
    )


def to_safetensors(directory: pathlib.Path, card: ModelCard, out: pathlib.Path) -> str:
    """Writes the whole model with its parameters' names here, whole or not at all."""
    loading.bring(directory)
    with cli.user_input():
        model_directory.read_tokenizer(directory)
        groups = exported_model.groups(directory)
    size = tensor_shards.num_bytes(groups)
    with folders.whole(out) as partial, conversion.mebibytes(size, f"writing {out}") as tick:
        number = exported_model.write(directory, groups, partial, tick)
    trained = len(groups[0].tensors)
    return (
        f"{number} tensors written to {out}, {trained} of them trained\n"
        f"here: --model={out}; elsewhere: safetensors' safe_open, names in docs/weights.md"
    )


def _check_frozen(directory: pathlib.Path, card: ModelCard) -> None:
    """Fails for a frozen part that was trained along: both formats leave those where they are."""
    if card.config.trained:
        raise cli.UserError(
            f"{directory}: its {' and '.join(card.config.trained)} was trained along, which this "
            "format has no place for: export it as safetensors"
        )


FORMATS = {"open_flamingo": to_open_flamingo, "idefics": to_idefics, "safetensors": to_safetensors}
