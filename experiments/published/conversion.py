"""A published Flamingo written as a model directory, and what was done as lines of a table."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator

from data_pipelines import progress_bar
from experiments import cli
from flamingo_jax import model_directory
from flamingo_jax.config import DTypePolicy, Precision
from flamingo_jax.model_directory import ModelCard
from flamingo_jax.weights.files import checkpoint_files
from flamingo_jax.weights.flamingos.published import Published
from flamingo_jax.weights.frozen_parts import Source


def new_folder(out: pathlib.Path) -> pathlib.Path:
    """The same; UserError where something is there already."""
    if out.exists():
        raise cli.UserError(f"--out={out} is there already: name another folder, or move it away")
    return out


def write(found: Published, out: pathlib.Path, dtype: Precision) -> ModelCard:
    """Writes the model directory, and returns what its `model.json` says.

    `dtype` is that of frozen parameters and of computing; trained ones are float32.
    """
    conversion = found.conversion
    card = ModelCard(
        conversion.config,
        language_model=named(*found.language_model),
        vision=named(*found.vision),
        dtypes=DTypePolicy(frozen=dtype, compute=dtype),
        caption_template=conversion.caption_template,
    )
    model_directory.save(out, card, found.tokenizer, conversion.params)
    return card


def named(kind: str, path: pathlib.Path) -> Source:
    """Published weights by format, absolute path and hash."""
    sizes = [file.stat().st_size for file in checkpoint_files.hashed_files(path)]
    with mebibytes(sum(sizes), f"hashing {path}") as tick:
        digest = checkpoint_files.sha256(path, tick)
    return Source(kind, str(path.absolute()), digest)


@contextlib.contextmanager
def mebibytes(total: int, doing: str) -> Iterator[Callable[[int], None]]:
    """A bar over `total` bytes; what it gives is called with how many more are done.

    None is shown for less than one MiB, which nobody waits for.
    """
    if total >> 20 == 0:
        yield lambda num_bytes: None
        return
    with progress_bar.bar(total >> 20, doing, "MiB") as bar:
        done = 0

        def tick(num_bytes: int) -> None:
            nonlocal done
            done += num_bytes
            bar.update((done >> 20) - bar.n)

        yield tick


def lines(found: Published, card: ModelCard) -> Iterator[str]:
    """Tensors mapped, unexpected, absent as expected; rows of new tokens; rows held together."""
    conversion, first = found.conversion, found.tokenizer.base_vocab_size
    yield f"{'tensors':>10}  of the checkpoint"
    for part, number in conversion.mapped.items():
        yield f"{number:>10}  {part}"
    if conversion.unneeded:
        yield f"{conversion.unneeded:>10}  not needed: buffers, and second copies"
    if conversion.repeated:
        yield f"{conversion.repeated:>10}  frozen ones of the language model, as its own are"
    yield f"{0:>10}  unexpected"
    where = "frozen" if found.whole else "absent"  # in the same folder, or as expected not there
    vision = card.config.vision
    tower = f"image tower {vision.variant}, {vision.preprocessing.size_px} px"
    for part, source in (("language model", card.language_model), (tower, card.vision)):
        yield f"{where:>10}  {part}, read from {source.format}:{source.path}"
        yield f"{'':>10}  SHA-256 {source.sha256}"
    names = ", ".join(f"{first + i} {name}" for i, name in enumerate(conversion.new_tokens))
    yield f"{len(conversion.new_tokens):>10}  rows of new tokens: {names}"
    if conversion.drawn:
        yield (
            f"{conversion.drawn:>10}  rows of the head are not in the file, so they were drawn at "
            "random, as OpenFlamingo does"
        )
    if conversion.rows_compared:
        yield (
            f"{conversion.rows_compared:>10}  rows compared with the language model's own, "
            f"largest difference {conversion.max_difference:.3g}"
        )
