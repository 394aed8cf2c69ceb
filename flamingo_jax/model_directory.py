"""The folder a finished model lives in: `model.json`, the weights, the tokenizer.

`model.json` says what the model is (architecture, precision, prompt conventions) and names every
frozen part by source and SHA-256; `weights.safetensors` holds what was trained, with a frozen part
that was trained along (`config.trained`; its source says what it began as), and the map that aligns
features, `frozen.safetensors` the frozen parts where they are embedded. In the place of both
an exported model has all parameters, layers apart, in files of bounded size (`tensor_shards`). A
training workdir, which has such a folder as `model/`, is taken in its place.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Collection
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util
from jax.sharding import Mesh

from flamingo_jax import config as config_lib
from flamingo_jax.config import DTypePolicy, FlamingoConfig, FrozenPart
from flamingo_jax.core import hosts
from flamingo_jax.core import params as params_lib
from flamingo_jax.core.stack import Execution
from flamingo_jax.decode import serving
from flamingo_jax.model import Model
from flamingo_jax.models import insertion
from flamingo_jax.models.flamingo import Flamingo
from flamingo_jax.tokenizer import Tokenizer
from flamingo_jax.weights import finite, frozen_parts, part_folders
from flamingo_jax.weights.errors import BadWeightsFile
from flamingo_jax.weights.files import (
    checkpoint_files,
    folders,
    layer_stack,
    tensor_file,
    tensor_shards,
)
from flamingo_jax.weights.frozen_parts import Source

Tree = Any
Keep = Callable[[str], bool]
FORMAT = 2  # 1 had fewer keys, which have defaults
CARD, TOKENIZER = "model.json", "tokenizer"
_WEIGHTS, _FROZEN = "weights.safetensors", "frozen.safetensors"


class ModelDirectoryError(ValueError):
    """A folder that is no model directory, or a damaged one; the message says what to do."""


@dataclasses.dataclass(frozen=True)
class ModelCard:
    """What `model.json` says."""

    config: FlamingoConfig
    language_model: Source
    vision: Source
    dtypes: DTypePolicy = dataclasses.field(default_factory=DTypePolicy)
    caption_template: str = "Output: {}"


def save(
    directory: str | pathlib.Path,
    card: ModelCard,
    tokenizer: Tokenizer,
    params: Tree,
    *,
    embed_frozen: bool = False,
) -> None:
    """Writes a model directory whole or not at all; what was there before is replaced.

    Until the new one has its name, the old one is there, at the last as `NAME.replaced`.
    ModelDirectoryError for a folder of other files, which stays.
    """
    directory = pathlib.Path(directory)
    if directory.exists() and not (directory / CARD).is_file() and any(directory.iterdir()):
        raise ModelDirectoryError(
            f"{directory} holds other files than a model's: move them away, and give the same "
            "command again"
        )
    with folders.whole(directory) as folder:
        own = jax.device_get(own_params(params, card.config.trained))
        tensor_file.save(folder / _WEIGHTS, own)
        if embed_frozen:
            flat = traverse_util.flatten_dict(jax.device_get(params))
            frozen = flat.keys() - traverse_util.flatten_dict(own).keys()
            tree = traverse_util.unflatten_dict({path: flat[path] for path in frozen})
            tensor_file.save(folder / _FROZEN, tree)
        tokenizer.to_file(folder / TOKENIZER)
        text = json.dumps({"format": FORMAT} | config_lib.to_dict(card), indent=2)
        (folder / CARD).write_text(text + "\n")


def load(directory: str | pathlib.Path, *, mesh: Mesh | None = None) -> Model:
    """The model in a model directory or a training workdir, on one device or cut over a mesh.

    Its parameters are kept as it is asked with them (`serving.dtypes`), not all as they were saved:
    `read_params` gives those. On a mesh (`core.partition.make_mesh`) a process reads what its
    devices hold, a parameter at a time; all processes must call it.

    Raises:
      ModelDirectoryError: it holds no model, or one that is damaged or diverged.
      BadWeightsFile: a frozen part is missing or changed.
      ValueError: the mesh does not divide a width or a number of heads; what would do.
    """
    directory = find(directory)
    card = read_card(directory)
    tokenizer = read_tokenizer(directory)
    try:
        tokenizer.check_rows(card.config.language_model.vocab_size, card.config.num_new_tokens)
    except ValueError as error:
        raise ModelDirectoryError(f"{directory}: {error}") from error
    config, dtypes = card.config, serving.dtypes(card.config, card.dtypes)
    if mesh is None:
        params = jax.tree.map(jnp.asarray, read_params(directory), dtypes)
    else:
        _, frozen = params_lib.split(serving.shardings(config, mesh), config.trained)
        params = hosts.place(read_params(directory, frozen), serving.formats(config, mesh), dtypes)
    return Model(
        config,
        params,
        tokenizer,
        caption_template=card.caption_template,
        compute_dtype=card.dtypes.compute,
        mesh=mesh,
    )


def read_params(directory: str | pathlib.Path, where: Tree | None = None) -> Tree:
    """All parameters of a finished model, in the dtypes that they are kept in.

    Leaves are what numpy makes arrays of: views into files, read where they are looked at; `where`
    is as for `frozen_params`. Raises as `load` does.
    """
    directory = find(directory)
    card = read_card(directory)
    if tensor_shards.are_in(directory):
        params = _read_shards(directory)
    elif has_frozen(directory):
        tree = _read_tensors(directory / _WEIGHTS) | _read_tensors(directory / _FROZEN)
        params = traverse_util.unflatten_dict(tree, sep="/")
    else:
        own = _read_tensors(directory / _WEIGHTS)
        sources = frozen_params(card, where, held=card.config.trained)
        frozen = traverse_util.flatten_dict(sources, sep="/")
        params = traverse_util.unflatten_dict(frozen | own, sep="/")
    _check_shapes(directory, params, _shapes(card.config))
    _check_finite(directory, own_params(params, card.config.trained))
    return params


def find(directory: str | pathlib.Path) -> pathlib.Path:
    """The model directory itself, where a training workdir is given.

    ModelDirectoryError for the address of a bucket, which only commands copy from.
    """
    if "://" in str(directory):
        raise ModelDirectoryError(
            f"{directory} is an address: copy the folder to this machine (gcloud storage cp -r), "
            "or give the address to a command, which does so"
        )
    directory = pathlib.Path(directory)
    inner = directory / "model"
    return inner if not (directory / CARD).is_file() and (inner / CARD).is_file() else directory


def has_frozen(directory: str | pathlib.Path) -> bool:
    """Whether the frozen parts are embedded, so that their sources need not be there."""
    directory = find(directory)
    return (directory / _FROZEN).is_file() or tensor_shards.are_in(directory)


def read_card(directory: str | pathlib.Path) -> ModelCard:
    """`model.json`, checked."""
    directory = find(directory)
    path = directory / CARD
    folder = part_folders.find(directory)
    if not path.is_file() and (key := part_folders.key(folder)):
        raise ModelDirectoryError(
            f"{directory} holds one part of a Flamingo, not a whole one: train one around it, with "
            f"--config.{key}:{folder.absolute()}"
        )
    if not path.is_file() and (directory / "checkpoints").is_dir():
        raise ModelDirectoryError(
            f"{directory} holds checkpoints and no model yet, which a run writes at its end: give "
            f"its command again, or name a checkpoint, {directory}/checkpoints/STEP"
        )
    if not path.is_file() and directory.parent.name == "checkpoints":
        raise ModelDirectoryError(
            f"{directory} is a checkpoint, which commands open, and experiments.export makes a "
            "model directory of (--format=safetensors)"
        )
    if not path.is_file():
        raise ModelDirectoryError(
            f"{directory} holds no {CARD}: give the model/ folder of a finished training run, "
            "or its workdir"
        )
    try:
        values = json.loads(path.read_text())
        if not isinstance(values, dict):
            raise ValueError(f"it holds a {type(values).__name__}, want an object")
        if (found := values.pop("format", None)) not in range(1, FORMAT + 1):
            raise ValueError(f"format is {found}, this version reads 1 to {FORMAT}")
        return config_lib.from_dict(ModelCard, values)
    except ValueError as error:
        raise ModelDirectoryError(f"{path} cannot be read: {error}") from error


def frozen_params(
    card: ModelCard, where: Tree | None = None, held: Collection[FrozenPart] = ()
) -> Tree:
    """The frozen parts from their sources, but for those `held` by a model; no `vision.alignment`.

    Random ones are made on their devices where `where`, the shardings of their parameters in the
    scanned layout, is given.
    """
    config, where = card.config, where or {"vision": None, "language_model": None}
    segments = insertion.language_model_segments(config)
    found = {}
    if "vision" not in held:
        found["vision"] = frozen_parts.load_vision(card.vision, config, where["vision"])
    if "language_model" not in held:
        found["language_model"] = frozen_parts.load_language_model(
            card.language_model, config, segments, where["language_model"]
        )
    return found


def read_tokenizer(directory: str | pathlib.Path) -> Tokenizer:
    """Of a model directory or a training workdir; ValueError where it cannot be read."""
    return Tokenizer.from_file(find(directory) / TOKENIZER)


def trained_params(directory: str | pathlib.Path) -> Tree:
    """What a finished model was trained to: `own_params`, as numpy arrays.

    Raises:
      ModelDirectoryError: it holds no model, or one that is damaged or diverged.
    """
    directory = find(directory)
    if tensor_shards.are_in(directory):
        also = read_card(directory).config.trained
        own = _read_shards(directory, lambda name: _is_own(name, also))
        params = jax.tree.map(np.asarray, own)
    else:
        params = traverse_util.unflatten_dict(_read_tensors(directory / _WEIGHTS), sep="/")
    config = read_card(directory).config
    _check_shapes(directory, params, own_params(_shapes(config), config.trained))
    _check_finite(directory, params)
    return params


def own_params(params: Tree, also: Collection[FrozenPart] = ()) -> Tree:
    """Those that no frozen part's source has: all that `save` needs unless it embeds the frozen.

    `also` names the frozen parts that were trained (`config.trained`).
    """
    flat = traverse_util.flatten_dict(params, sep="/")
    own = {name: leaf for name, leaf in flat.items() if _is_own(name, also)}
    return traverse_util.unflatten_dict(own, sep="/")


def _is_own(name: str, also: Collection[FrozenPart]) -> bool:
    path = tuple(name.split("/"))
    return params_lib.is_trainable(path, also) or path[:2] == ("vision", "alignment")


def _read_tensors(path: pathlib.Path, keep: Keep = lambda name: True) -> dict[str, np.ndarray]:
    """Of a file, or of a folder's files."""
    if not path.exists():
        raise ModelDirectoryError(f"{path} is missing: the folder was copied in part; copy it anew")
    try:
        return checkpoint_files.tensors(path, keep)
    except BadWeightsFile as error:
        raise ModelDirectoryError(f"{error}, or copy it anew") from error


def _read_shards(directory: pathlib.Path, keep: Keep = lambda name: True) -> Tree:
    """Parameters of an exported model, its layers stacked again."""
    stacked = layer_stack.restack(_read_tensors(directory, keep), str(directory))
    return traverse_util.unflatten_dict(stacked, sep="/")


def _shapes(config: FlamingoConfig) -> Tree:
    return params_lib.abstract(lambda rngs: Flamingo(config, Execution(), rngs=rngs))[1]


def _check_shapes(directory: pathlib.Path, params: Tree, shapes: Tree) -> None:
    want = {path: s.shape for path, s in traverse_util.flatten_dict(shapes, sep="/").items()}
    found = {path: x.shape for path, x in traverse_util.flatten_dict(params, sep="/").items()}
    if want != found:
        odd = sorted(path for path in want.keys() | found if want.get(path) != found.get(path))[0]
        raise ModelDirectoryError(
            f"{directory}: weight {odd} is {found.get(odd)}, {CARD} asks for {want.get(odd)}: "
            "the two files do not belong together"
        )


def _check_finite(directory: pathlib.Path, own: Tree) -> None:
    for name, leaf in traverse_util.flatten_dict(own, sep="/").items():
        if problem := finite.find_problem(np.asarray(leaf)):
            raise ModelDirectoryError(
                f"{directory}: weight {name} is a tensor {problem}: copy the folder anew, or train "
                "with a lower learning rate where the run diverged"
            )
