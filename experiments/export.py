r"""A finished model in a format that other people's code reads.

    python -m experiments.export --model=runs/mine --format=open_flamingo --out=export

writes `checkpoint.pt`, which OpenFlamingo's code loads as its own: resampler, gated blocks, and the
embedding with its new rows. The model must be one that OpenFlamingo computes, as those are that
experiments.convert made and experiments.train trained further; the language model is read from
where the model directory names it.

    python -m experiments.export --model=runs/mine --format=idefics --out=export

writes a folder that transformers opens, IdeficsForVisionText2Text.from_pretrained("export"), of a
model that came from IDEFICS: all its tensors, with what was trained in the place of what was, and
the files beside them as they are in the folder that the model directory names.

    python -m experiments.export --model=runs/mine --format=safetensors --out=export

writes any model whole, frozen parts too, as plain safetensors under the names that parameters have
here, beside model.json and the tokenizer. It needs no other file, and is a model directory as well.

The last two write files of 4 GiB at most with an index. Only tensors are in any file, one of them
in memory at a time beside what was trained. docs/weights.md names them all.
"""

import sys

from absl import flags

from experiments import cli
from experiments.published import conversion, export_formats
from experiments.storage import given_model
from flamingo_jax import model_directory

_MODEL = flags.DEFINE_string(
    "model", None, "Model directory, workdir or checkpoint; may be gs://..."
)
_FORMAT = flags.DEFINE_enum("format", None, [*export_formats.FORMATS], "Whose code is to read it.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; it must not be there yet.")
flags.mark_flags_as_required(["model", "format", "out"])


def main() -> None:
    """Writes the folder and says how it is opened."""
    directory = given_model.folder("--model", _MODEL.value)
    out = conversion.new_folder(cli.local_path("--out", _OUT.value))
    card = model_directory.read_card(directory)
    print(f"reading {directory}", file=sys.stderr, flush=True)
    print(export_formats.FORMATS[_FORMAT.value](directory, card, out))


if __name__ == "__main__":
    cli.run(main)
