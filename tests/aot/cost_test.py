"""Costs read from compiled programs, against what the functions must do."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from flamingo_jax.aot import cost, hlo, loops
from flamingo_jax.core import op_count, partition

# A loop of five over a buffer in HBM: a product, a slice and an update in place, a permutation.
TEXT = """HloModule jit_f, is_scheduled=true

%fused_computation (param_0: f32[5,8,8], param_1: s32[]) -> f32[8,8] {
  %param_0 = f32[5,8,8]{2,1,0} parameter(0)
  %param_1 = s32[] parameter(1)
  %constant.1 = s32[] constant(0)
  ROOT %s = f32[1,8,8]{2,1,0} dynamic-slice(%param_0, %param_1, %constant.1), sizes={1,8,8}
}

%body (arg: (s32[], f32[8,8], f32[5,8,8])) -> (s32[], f32[8,8], f32[5,8,8]) {
  %arg = (s32[], f32[8,8]{1,0}, /*index=2*/f32[5,8,8]{2,1,0}) parameter(0)
  %i = s32[] get-tuple-element(%arg), index=0
  %x = f32[8,8]{1,0} get-tuple-element(%arg), index=1
  %w = f32[5,8,8]{2,1,0} get-tuple-element(%arg), index=2
  %one = s32[] constant(1)
  %fusion = f32[8,8]{1,0:T(8,128)S(1)} fusion(%w, %i), kind=kLoop, calls=%fused_computation
  %dot = f32[8,8]{1,0} dot(%x, %fusion), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  %sent = f32[8,8]{1,0} collective-permute(%dot), channel_id=1, source_target_pairs={{0,1},{1,0}}
  %next = s32[] add(%i, %one)
  ROOT %tuple = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}) tuple(%next, %sent, %w)
}

%condition (arg.1: (s32[], f32[8,8], f32[5,8,8])) -> pred[] {
  %arg.1 = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}) parameter(0)
  %j = s32[] get-tuple-element(%arg.1), index=0
  %limit = s32[] constant(6)
  ROOT %lt = pred[] compare(%j, %limit), direction=LT
}

ENTRY %main (p0: f32[8,8], p1: f32[5,8,8]) -> f32[8,8] {
  %p0 = f32[8,8]{1,0} parameter(0)
  %p1 = f32[5,8,8]{2,1,0} parameter(1)
  %start = s32[] constant(1)
  %init = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}) tuple(%start, %p0, %p1)
  %while = (s32[], f32[8,8]{1,0}, f32[5,8,8]{2,1,0}) while(%init), condition=%condition, body=%body
  ROOT %out = f32[8,8]{1,0} get-tuple-element(%while), index=1
}
"""


NESTED = """%outer (a: f32[5,8,8], b: s32[]) -> f32[8,8] {
  %a = f32[5,8,8]{2,1,0} parameter(0)
  %b = s32[] parameter(1)
  ROOT %inner = f32[8,8]{1,0} fusion(%a, %b), kind=kLoop, calls=%fused_computation
}

"""
FUSED_COUNTER = """%two = s32[] constant(2)
  %both = (f32[], s32[]) fusion(%i, %two), kind=kLoop, calls=%fused_next
  %next = s32[] get-tuple-element(%both), index=1"""
FUSED_COMPUTATION = """%fused_next (a: s32[], b: s32[]) -> (f32[], s32[]) {
  %a = s32[] parameter(0)
  %b = s32[] parameter(1)
  %f = f32[] convert(%a)
  %sum = s32[] add(%a, %b)
  ROOT %pair = (f32[], s32[]) tuple(%f, %sum)
}

"""


def of(f, *args):
    return cost.of(hlo.parse(jax.jit(f).lower(*args).compile().as_text()))


def test_a_program_by_hand():
    program = hlo.parse(TEXT)
    assert loops.run_counts(program) == {"main": 1, "body": 5, "fused_computation": 5}
    found = cost.of(program)
    assert found.flops == 5 * 2 * 8**3
    (permute,) = found.collectives
    assert (permute.kind, permute.times, permute.group) == ("collective-permute", 5, (0, 1))
    assert permute.sent == 4 * 64
    # The slice is read and stays on the chip; the product reads one array and writes one, as does
    # the permutation; the counter's addition moves three numbers.
    assert found.hbm_bytes == 5 * (256 + 4 + 2 * 256 + 2 * 256 + 3 * 4)


def test_a_counter_that_is_not_the_first_and_counts_in_twos():
    text = TEXT.replace("%one = s32[] constant(1)", "%one = u32[] constant(2)")
    text = text.replace("index=0", "index=3").replace("index=2", "index=0").replace("=3", "=2")
    text = text.replace("tuple(%next, %sent, %w)", "tuple(%w, %sent, %next)")
    text = text.replace("tuple(%start, %p0, %p1)", "tuple(%p1, %p0, %start)")
    assert loops.run_counts(hlo.parse(text))["body"] == 3  # 1, 3, 5


def test_a_counter_whose_addition_is_fused_with_another_number():
    text = TEXT.replace("%next = s32[] add(%i, %one)", FUSED_COUNTER)
    text = text.replace("%body (", FUSED_COMPUTATION + "%body (")
    assert loops.run_counts(hlo.parse(text))["body"] == 3


def test_a_scan_counts_as_often_as_it_runs():
    def f(x, w):
        return jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x, w)[0].sum()

    x, w = jnp.ones((8, 64)), jnp.ones((7, 64, 64))
    assert of(f, x, w).flops == 7 * 2 * 8 * 64**2
    assert of(jax.grad(f, 1), x, w).flops == pytest.approx(3 * 7 * 2 * 8 * 64**2, rel=0.15)


def test_a_scan_in_a_loop_counts_as_often_as_both_run():
    def f(x, w):
        def part(i, total):
            return total + jax.lax.scan(lambda x, w: (jnp.tanh(x @ w), None), x[i], w)[0]

        return jax.lax.fori_loop(0, 3, part, jnp.zeros(x.shape[1:]))

    assert of(f, jnp.ones((3, 8, 64)), jnp.ones((7, 64, 64))).flops == 3 * 7 * 2 * 8 * 64**2


@pytest.mark.parametrize(("stride", "groups"), [(1, 1), (2, 1), (1, 4)])
def test_convolutions_count_taps_on_the_picture(stride, groups):
    def f(x, w):
        return jax.lax.conv_general_dilated(
            x,
            w,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=groups,
        )

    args = jnp.ones((2, 9, 9, 8)), jnp.ones((3, 3, 8 // groups, 16))
    assert of(f, *args).flops == op_count.flops(f, *args)


def test_collectives_by_group_and_bytes():
    mesh = partition.make_mesh(2, 1, 4)
    place = lambda *axes: NamedSharding(mesh, PartitionSpec(*axes))  # noqa: E731
    x = jax.device_put(jnp.ones((8, 64)), place("data", "tensor"))
    w = jax.device_put(jnp.ones((64, 32)), place("tensor", None))
    f = jax.jit(lambda x, w: x @ w, out_shardings=place("data", None))
    (found,) = cost.of(hlo.parse(f.lower(x, w).compile().as_text())).collectives
    assert found.kind == "all-reduce"
    assert len(found.group) == 4
    assert found.payload == 4 * 32 * 4  # this chip's rows
    assert found.sent == 2 * 3 / 4 * found.payload


# As the TPU compiler writes them: a reduce-scatter of two arrays in one fusion, and beside it an
# all-reduce that is sliced only after it has arrived whole.
SCATTER = """HloModule jit_f, is_scheduled=true

%all-reduce-scatter.1 (a: f32[64,8], b: f32[32,8]) -> (f32[16,8], f32[8,8]) {
  %a = f32[64,8]{1,0} parameter(0)
  %b = f32[32,8]{1,0} parameter(1)
  %all-reduce.1 = (f32[64,8]{1,0}, f32[32,8]{1,0}) all-reduce(%a, %b), replica_groups={{0,1,2,3}}
  %one = f32[64,8]{1,0} get-tuple-element(%all-reduce.1), index=0
  %two = f32[32,8]{1,0} get-tuple-element(%all-reduce.1), index=1
  %zero = s32[] constant(0)
  %slice.1 = f32[16,8]{1,0} dynamic-slice(%one, %zero, %zero), sizes={16,8}
  %slice.2 = f32[8,8]{1,0} dynamic-slice(%two, %zero, %zero), sizes={8,8}
  ROOT %both = (f32[16,8]{1,0}, f32[8,8]{1,0}) tuple(%slice.1, %slice.2)
}

ENTRY %main (p0: f32[64,8], p1: f32[32,8]) -> (f32[16,8], f32[8,8], f32[8,8]) {
  %p0 = f32[64,8]{1,0} parameter(0)
  %p1 = f32[32,8]{1,0} parameter(1)
  %fusion = (f32[16,8], f32[8,8]) fusion(%p0, %p1), kind=kCustom, calls=%all-reduce-scatter.1
  %x = f32[16,8]{1,0} get-tuple-element(%fusion), index=0
  %y = f32[8,8]{1,0} get-tuple-element(%fusion), index=1
  %all-reduce.2 = f32[32,8]{1,0} all-reduce(%p1), replica_groups={{0,1,2,3}}
  %nought = s32[] constant(0)
  %z = f32[8,8]{1,0} dynamic-slice(%all-reduce.2, %nought, %nought), sizes={8,8}
  ROOT %out = (f32[16,8]{1,0}, f32[8,8]{1,0}, f32[8,8]{1,0}) tuple(%x, %y, %z)
}
"""


def test_a_sum_that_is_sliced_in_its_fusion_is_never_sent_whole():
    found = {one.kind: one for one in cost.of(hlo.parse(SCATTER)).collectives}
    assert set(found) == {"reduce-scatter", "all-reduce"}
    assert found["reduce-scatter"].sent == 3 / 4 * (64 + 32) * 8 * 4
    assert found["all-reduce"].sent == 2 * 3 / 4 * 32 * 8 * 4


@pytest.mark.parametrize(
    ("text", "group"),
    [
        ("{{0,3},{1,2}}", (0, 3)),
        ("[2,4]<=[8]", (0, 1, 2, 3)),
        ("[4,2]<=[2,4]T(1,0)", (0, 4)),
        ("mesh['x'=2,'y'=4] {'y'}", (0, 1, 2, 3)),
        ("mesh['x'=2,'y'=1,'z'=4] {'x','y'}", (0, 4)),
        ("mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'x'}", (0, 1, 2, 3)),
        ("mesh['x'=4,'y'=2], device_ids=([2,4]T(1,0)) {'y'}", (0, 4)),
        ("", ()),
    ],
)
def test_groups_in_both_notations(text, group):
    assert cost._first_group(text) == group


def test_groups_in_a_notation_to_come_are_not_taken_for_none():
    with pytest.raises(ValueError, match="replica_groups=everyone: this notation"):
        cost._first_group("everyone")


def test_a_slice_of_stacked_weights_is_read_inside_a_fusion_inside_a_fusion():
    text = TEXT.replace("calls=%fused_computation", "calls=%outer")
    text = text.replace("%fused_computation (param_0", NESTED + "%fused_computation (param_0")
    assert cost.of(hlo.parse(text)).hbm_bytes == cost.of(hlo.parse(TEXT)).hbm_bytes


def test_a_loop_of_unknown_length_is_named():
    program = hlo.parse(TEXT.replace("direction=LT", "direction=NE"))
    with pytest.raises(ValueError, match="loop while of main: its trip count is not known"):
        cost.of(program)


def test_one_round_of_a_loop_that_looks_for_something():
    program = hlo.parse(TEXT.replace("direction=LT", "direction=NE"))
    body = loops.open_loop(program)
    assert body == "body"
    assert loops.run_counts(program, body) == {"body": 1, "fused_computation": 1}
    assert 5 * cost.of(program, body).flops == cost.of(hlo.parse(TEXT)).flops
    with pytest.raises(ValueError, match="loops without a known trip count: none, want one"):
        loops.open_loop(hlo.parse(TEXT))
