r"""Published weights as folders of ours, which the other commands take.

    python -m experiments.convert --source=open_flamingo --checkpoint=checkpoint.pt \
        --lm=mpt-1b-redpajama-200b --vision=clip-vit-large-patch14 --out=models/open_flamingo_3b

A whole Flamingo becomes a model directory. --checkpoint is the file that OpenFlamingo released or
saved, --lm the folder of transformers with its language model and tokenizer, --vision its CLIP
tower. Of --source=idefics, --checkpoint is the folder of transformers, which holds all of that
itself. The model directory holds what was trained, and names the frozen parts by their path and
SHA-256: leave them where they are. They are not loaded here. Memory is what was trained, and the
file of OpenFlamingo: 9 GB for the 3B and the 4B, 11 GB for the 9B; of IDEFICS, in bfloat16, 7 GB
for the 9B and 57 GB for the 80B, half of it pages of its files.

    python -m experiments.convert --source=hf_lm --checkpoint=pythia-160m --out=parts/pythia_160m
    python -m experiments.convert --source=haiku_nfnet --checkpoint=F0_haiku.npz --out=parts/f0

A language model (hf_lm, a folder of transformers; gguf, a file) or a vision encoder (hf_clip,
open_clip, hf_siglip, timm_nfnet, haiku_nfnet, efficientnet_lite) by itself becomes a folder that
recipes name as a frozen part, --config.frozen.language_model=pretrained:FOLDER or
--config.frozen.vision=... It holds its config, its weights in --dtype, a language model's
tokenizer, and what it was made of.

docs/weights.md goes from download to few-shot prompts.
"""

import pathlib
import sys

from absl import flags

from experiments import cli
from experiments.published import conversion, part_conversion
from flamingo_jax.weights.flamingos import published

_SOURCES = ["open_flamingo", "idefics", *part_conversion.FORMATS]
_SOURCE = flags.DEFINE_enum("source", None, _SOURCES, "What --checkpoint is of.")
_CHECKPOINT = flags.DEFINE_string("checkpoint", None, "The published file or folder.")
_LM = flags.DEFINE_string("lm", "", "Of open_flamingo: folder of transformers with its LM.")
_VISION = flags.DEFINE_string("vision", "", "Its CLIP tower, of transformers or of open_clip.")
_OUT = flags.DEFINE_string("out", None, "Folder to write; it must not be there yet.")
_DTYPE = flags.DEFINE_enum(
    "dtype",
    "bfloat16",
    ["bfloat16", "float32"],
    "Of a Flamingo's frozen parameters and of computing; of a part's saved weights.",
)
flags.mark_flags_as_required(["source", "checkpoint", "out"])


def main() -> None:
    """Converts, writes and reports."""
    checkpoint = cli.local_path("--checkpoint", _CHECKPOINT.value)
    out = conversion.new_folder(cli.local_path("--out", _OUT.value))
    given = {"--lm": _LM.value, "--vision": _VISION.value}
    lm, vision = (cli.local_path(n, value) if value else None for n, value in given.items())
    if _SOURCE.value != "open_flamingo" and (lm or vision):
        odd = next(name for name, value in given.items() if value)
        raise cli.UserError(
            f"{odd}: --checkpoint of {_SOURCE.value} is all that is read: leave {odd} out"
        )
    print(f"reading {checkpoint}", file=sys.stderr, flush=True)
    if _SOURCE.value in part_conversion.FORMATS:
        _part(checkpoint, out)
        return
    with cli.user_input():
        if _SOURCE.value == "idefics":
            found = published.from_idefics(checkpoint)
        else:
            found = published.from_open_flamingo(checkpoint, lm, vision)
        card = conversion.write(found, out, _DTYPE.value)
    print("\n".join(conversion.lines(found, card)))
    print(f"written to {out}")


def _part(checkpoint: pathlib.Path, out: pathlib.Path) -> None:
    with cli.user_input():
        done = part_conversion.convert(_SOURCE.value, checkpoint, out, _DTYPE.value)
    print("\n".join(part_conversion.lines(done)))
    print(f"written to {out}, for --config.frozen.{done.field}=pretrained:{out.absolute()}")


if __name__ == "__main__":
    cli.run(main)
