"""Published tensor names to ours by a plain table, with every difference in one message."""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import numpy as np
from flax import traverse_util

from flamingo_jax.weights import finite
from flamingo_jax.weights.errors import BadWeightsFile

Path = tuple[str, ...]
Tree = dict[str, Any]

_SHOWN = 5  # names of each kind in a message


class Source(NamedTuple):
    """Where a parameter comes from, and how the tensor there becomes it."""

    name: str
    convert: Callable[[np.ndarray], np.ndarray]


def take(
    tensors: Mapping[str, np.ndarray],
    table: Mapping[Path, Source | list[Source]],  # a list: one a layer, stacked
    want: Tree,  # leaves with the `shape` each parameter has in the module
    *,
    ignore: Collection[str] = (),
    what: str,
    mend: str = "give the variant the file is of, or fetch it again",
) -> Tree:
    """The tree of `want` with arrays as its leaves, in the dtype of the tensors.

    Raises BadWeightsFile, naming what is missing, left over, of another shape or no real numbers,
    all at once.
    """
    sources = {path: s if isinstance(s, list) else [s] for path, s in table.items()}
    names = {source.name for row in sources.values() for source in row}
    missing = sorted(names - tensors.keys())
    unexpected = sorted(tensors.keys() - names - set(ignore))
    found = {name: finite.find_problem(tensors[name]) for name in sorted(names & tensors.keys())}
    flat, misfits = {}, []
    for path, leaf in traverse_util.flatten_dict(want).items():
        if any(source.name in missing for source in sources[path]):
            continue
        stacked = isinstance(table[path], list)
        layers, shape = [], leaf.shape[1:] if stacked else leaf.shape
        for source in sources[path]:
            try:
                value = source.convert(tensors[source.name])
                if value.shape != shape:
                    raise ValueError(f"{list(value.shape)}, want {list(shape)}")
            except (ValueError, IndexError) as error:  # transpose or reshape: a wrong shape too
                misfits.append(f"{source.name} for {'/'.join(path)} ({error})")
                break
            layers.append(value)
        else:
            flat[path] = _stack(layers) if stacked else layers[0]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misfits}
    for problem in sorted({*found.values()} - {""}):
        kinds[problem] = [name for name in found if found[name] == problem]
    if problems := [_listed(kind, names) for kind, names in kinds.items() if names]:
        raise BadWeightsFile(f"{what}: {'; '.join(problems)}: {mend}")
    return traverse_util.unflatten_dict(flat)


def _stack(layers: list[np.ndarray]) -> np.ndarray:
    """One array in C's order, which files are written in, whatever order the layers lie in."""
    out = np.empty((len(layers), *layers[0].shape), np.result_type(*layers))
    return np.stack(layers, out=out)


def _listed(kind: str, names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return f"{kind} {', '.join(names[:_SHOWN])}{more}"
