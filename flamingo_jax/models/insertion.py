"""Where text looks at media: before, inside or on top of the frozen language model's blocks.

Paper: section 2.2 and Table 3, rows iv and v. Blocks go upward; `*` is trained, `...` is frozen.

    gated                  vanilla                graft
                                                  * feed-forward      \\
                                                  * cross-attention    } `graft_depth` times
                                                  * self-attention    /
    ...block 1             ... feed-forward 1     ...block 1
    * feed-forward         * cross-attention
    * cross-attention      ... self-attention 1
    ...block 0             ... feed-forward 0     ...block 0
    * feed-forward         * cross-attention
    * cross-attention      ... self-attention 0

A single block in the middle of 24 is `every=12, offset=12`; every second one is `every=2`.
"""

from flamingo_jax.config import FlamingoConfig
from flamingo_jax.core.stack import Segment, plan

GRAFT = "graft"


def language_model_segments(config: FlamingoConfig) -> tuple[Segment, ...]:
    """The frozen depth, cut where cross-attention stands."""
    depth, xattn = config.language_model.num_layers, config.cross_attention
    if xattn.kind == "graft":
        return plan(depth, every=1, offset=depth)
    return plan(depth, xattn.every, xattn.offset)


def cross_attention_segments(config: FlamingoConfig) -> tuple[Segment, ...]:
    """Those with trained layers, one for each group of blocks."""
    if config.cross_attention.kind == "graft":
        return (graft_segment(config),)
    return tuple(s for s in language_model_segments(config) if s.gated)


def graft_segment(config: FlamingoConfig) -> Segment:
    """The layers on top, numbered on from the language model's."""
    start, depth = config.language_model.num_layers, config.cross_attention.graft_depth
    return Segment(GRAFT, start, depth, 1, gated=True)
