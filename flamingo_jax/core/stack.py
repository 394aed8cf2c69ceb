"""Identical layers as one stack: built together, folded over by scan, rematerialised by name.

A scanned stack keeps every leaf as one array with a leading layer axis: few leaves, a compile time
that does not grow with depth. An unrolled stack keeps its layers apart under names `layer_000`,
`layer_001`: easy to debug, and on CPU it spares the copy that a scan makes of each layer's weights.
Both compute the same; `unroll` and `reroll` turn one tree of parameters into the other.
"""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from flamingo_jax.core.rngs import Rngs

Tree = Any

REMAT: dict[str, Callable | None] = {
    "none": None,
    "full": jax.checkpoint_policies.nothing_saveable,
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


@dataclasses.dataclass(frozen=True)
class Execution:
    """How the layers run; no choice here changes a result by more than rounding."""

    scan: bool = True
    remat: str = "none"
    images_at_once: int = 32  # pictures a device encodes at a time, which bounds its memory
    attention: str = "auto"  # kernel of causal self-attention, see `core.kernels`

    def __post_init__(self):
        if self.images_at_once < 1:
            raise ValueError(f"execution.images_at_once={self.images_at_once}: use 1 or more")
        if self.remat not in REMAT:
            raise ValueError(f"execution.remat={self.remat!r}: use one of {list(REMAT)}")

    def rematerialise(self, f: Callable) -> Callable:
        """`f` under the named policy."""
        policy = REMAT[self.remat]
        if policy is None:
            return f
        return jax.checkpoint(f, policy=policy, prevent_cse=not self.scan)

    def without_remat(self) -> "Execution":
        """For stacks of stacks, where the inner ones rematerialise."""
        return dataclasses.replace(self, remat="none")


@dataclasses.dataclass(frozen=True)
class Segment:
    """`repeats` groups of `depth` language-model blocks, a gated block before each or none."""

    name: str
    start: int  # index of the first language-model block
    repeats: int
    depth: int
    gated: bool


def plan(num_layers: int, every: int, offset: int) -> tuple[Segment, ...]:
    """Cuts a depth into segments of equal groups: before the first gated block, full groups, rest.

    >>> plan(30, every=5, offset=8)  # 8 plain blocks, 4 groups of 5, 1 group of 2
    """
    full, rest = divmod(num_layers - offset, every)
    segments = []
    if offset:
        segments.append(Segment("before", 0, 1, offset, gated=False))
    if full:
        segments.append(Segment("groups", offset, full, every, gated=True))
    if rest:
        segments.append(Segment("rest", offset + full * every, 1, rest, gated=True))
    return tuple(segments)


class Stack(nnx.Module):
    """`length` modules made by `make`, to be folded over one after the other.

    `in_place` is for a stack of frozen stacks. A scan over it would copy each inner stack out and
    then scan that; in place, every layer is read from where it lies. Not for trained layers: each
    read would add to a gradient of the whole.
    """

    def __init__(
        self,
        make: Callable[[Rngs], nnx.Module],
        length: int,
        execution: Execution,
        rngs: Rngs,
        *,
        in_place: bool = False,
    ):
        self.length, self.execution, self.in_place = length, execution, in_place
        if not execution.scan:
            for i in range(length):
                setattr(self, _layer_name(i), make(Rngs(rngs.params())))
            return
        graphs = []

        def draw(key: jax.Array) -> nnx.State:
            graph, params = nnx.split(make(Rngs(key)))
            graphs.append(graph)
            return params

        params = jax.vmap(draw)(jax.random.split(rngs.params(), length))
        self.layers = nnx.merge(*graphs, params)

    def layer(self, i: int) -> nnx.Module:
        """Layer `i` on its own."""
        if not self.execution.scan:
            return getattr(self, _layer_name(i))
        graph, params = nnx.split(self.layers)
        return nnx.merge(graph, jax.tree.map(lambda leaf: leaf[i], params))

    def scanned(self) -> tuple[Tree, Callable]:
        """What a scan slices, and the layer that it makes of a slice."""
        if self.in_place:
            return jnp.arange(self.length), functools.partial(InnerStack, self.layers)
        graph, params = nnx.split(self.layers)
        return params, functools.partial(nnx.merge, graph)


class InnerStack:
    """Stack number `index` of a stack of stacks, whose layers stay where they are until read."""

    def __init__(self, stacks: Stack, index: jax.Array):
        self.length, self.execution = stacks.length, stacks.execution
        self.graph, self.params = nnx.split(stacks.layers)  # leaves [stacks, layers, ...]
        self.index = index

    def scanned(self) -> tuple[Tree, Callable]:
        """As a stack's."""

        def layer(i: jax.Array) -> nnx.Module:
            def read(leaf: jax.Array) -> jax.Array:
                shape = leaf.shape[2:]
                place = (self.index, i, *[0] * len(shape))
                return jax.lax.dynamic_slice(leaf, place, (1, 1, *shape)).reshape(shape)

            return nnx.merge(self.graph, jax.tree.map(read, self.params))

        return jnp.arange(self.length), layer


def fold(
    body: Callable, carry: Tree, stacks: Sequence[Stack | InnerStack], xs: Tree = None
) -> tuple[Tree, Tree]:
    """`carry, y = body(carry, layers, x)` over the layers of stacks of one length, side by side.

    `layers` holds one module of each stack; leaves of `xs` and of the returned ys have a leading
    layer axis. Rematerialised as the first stack's execution says.
    """
    first = stacks[0]
    remat = first.execution.rematerialise
    if not first.execution.scan:
        ys = []
        for i in range(first.length):
            graphs, params = zip(*(nnx.split(stack.layer(i)) for stack in stacks), strict=True)
            step = remat(lambda p, c, x, g=graphs: body(c, [*map(nnx.merge, g, p)], x))
            carry, y = step(params, carry, jax.tree.map(lambda leaf, i=i: leaf[i], xs))
            ys.append(y)
        return carry, jax.tree.map(lambda *leaves: jnp.stack(leaves), *ys)
    scanned, make = zip(*(stack.scanned() for stack in stacks), strict=True)

    def step(carry, slices):
        parts, x = slices
        return body(carry, [m(part) for m, part in zip(make, parts, strict=True)], x)

    return jax.lax.scan(remat(step), carry, (scanned, xs), length=first.length)


def _layer_name(i: int) -> str:
    return f"layer_{i:03d}"


def unroll(params: Tree) -> Tree:
    """Pure-dict parameters of scanned stacks (`layers`) as those of unrolled ones (`layer_000`)."""
    if not isinstance(params, dict):
        return params
    if "layers" in params:
        length = len(jax.tree.leaves(params["layers"])[0])
        return {
            _layer_name(i): unroll(jax.tree.map(lambda leaf, i=i: leaf[i], params["layers"]))
            for i in range(length)
        }
    return {name: unroll(child) for name, child in params.items()}


def reroll(params: Tree) -> Tree:
    """The inverse of `unroll`."""
    if not isinstance(params, dict):
        return params
    params = {name: reroll(child) for name, child in params.items()}
    names = sorted(name for name in params if name.startswith("layer_"))
    if not names:
        return params
    return {"layers": jax.tree.map(lambda *leaves: jnp.stack(leaves), *(params[n] for n in names))}
