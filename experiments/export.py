r"""A finished model as a checkpoint that another project's code reads.

    python -m experiments.export --model=runs/mine --format=open_flamingo --out=export

writes `checkpoint.pt`, which OpenFlamingo's code loads as its own: resampler, gated blocks, and the
embedding with its new rows. The model must be one that OpenFlamingo computes, as those are that
experiments.convert made and experiments.train trained further; the language model is read from
where the model directory names it. Only tensors are in the file, one of them in memory at a time
beside what was trained.
"""

from absl import flags

from experiments import cli, conversion
from flamingo_jax import model_directory
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import (
    folders,
    frozen_parts,
    hf_lm_config,
    open_flamingo_export,
    torch_checkpoint_writer,
)

_MODEL = flags.DEFINE_string("model", None, "Model directory, or the workdir of a training run.")
_FORMAT = flags.DEFINE_enum("format", None, ["open_flamingo"], "Whose code is to read it.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; it must not be there yet.")
flags.mark_flags_as_required(["model", "format", "out"])
FILE = "checkpoint.pt"


def main() -> None:
    """Writes the checkpoint, whole or not at all, and says how it is loaded."""
    directory = cli.local_path("--model", _MODEL.value)
    out = conversion.new_folder(cli.local_path("--out", _OUT.value))
    card = model_directory.read_card(directory)
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
    tensors = open_flamingo_export.tensors(card.config, params, tokenizer, path, family)
    with folders.whole(out) as partial:
        number = torch_checkpoint_writer.save_state_dict(partial / FILE, tensors)
    every = card.config.cross_attention.every
    print(
        f"{number} tensors written to {out / FILE}\n"
        f"OpenFlamingo: create_model_and_transforms(..., lang_encoder_path={str(path)!r}, "
        f"cross_attn_every_n_layers={every}), then model.load_state_dict(torch.load("
        f"{str(out / FILE)!r}), strict=False)"
    )


if __name__ == "__main__":
    cli.run(main)
