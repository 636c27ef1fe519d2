"""Operations and collectives are read off compiled programs as they are."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from lggwjax.programs import costs_of, read_program
from lggwjax.scaling import plan_devices

MODULE = """HloModule jit_f, entry_computation_layout={()->f32[]}

%body.1 (p: (s32[], f32[4,8])) -> (s32[], f32[4,8]) {
  %p = (s32[], f32[4,8]{1,0}) parameter(0)
  %x = f32[4,8]{1,0} get-tuple-element(%p), index=1
  %w = f32[8,8]{1,0} constant({...})
  %all = f32[8,8]{1,0} all-gather(%w), channel_id=1, dimensions={0}
  %y = f32[4,8]{1,0} dot(%x, %all), lhs_contracting_dims={1}, rhs_contracting_dims={0}
  ROOT %t = (s32[], f32[4,8]{1,0}) tuple(%x, %y)
}

%cond.1 (p: (s32[], f32[4,8])) -> pred[] {
  ROOT %c = pred[] constant(false)
}

ENTRY %main.1 (a: f32[4,8]) -> f32[4,8] {
  %a = f32[4,8]{1,0} parameter(0)
  %started = (f32[4,8]{1,0}, bf16[16,8]{1,0}) all-gather-start(%a), channel_id=2, dimensions={0}
  %k = f32[3,3,2,5]{3,2,1,0} constant({...})
  %i = f32[1,6,6,2]{3,2,1,0} constant({...})
  %conv = f32[1,4,4,5]{3,2,1,0} convolution(%i, %k), window={size=3x3}, dim_labels=b01f_01io->b01f
  %w.2 = (s32[], f32[4,8]{1,0}) while(%t0), body=%body.1, backend_config={"known_trip_count":{"n":"7"}}
  ROOT %r = f32[4,8]{1,0} get-tuple-element(%w.2), index=1
}
"""


def test_a_loop_counts_as_often_as_it_turns():
    flops, collectives = read_program(MODULE)
    assert flops == 7 * 2 * 4 * 8 * 8 + 2 * (4 * 4 * 5) * (3 * 3 * 2)
    # A collective that is begun also returns its operand, which has not travelled.
    assert collectives == {"all-gather": 7 * 4 * 8 * 8 + 2 * 16 * 8}


def test_work_in_a_compiled_program_is_found():
    def twice(x):
        return jax.lax.scan(lambda carry, _: (jnp.tanh(carry @ x), None), x, None, length=5)[0]

    found = costs_of(jax.jit(twice).lower(jnp.ones((16, 16))).compile())
    assert found.flops == 5 * 2 * 16**3
    assert found.sent == 0
    assert found.memory >= 2 * 4 * 16**2


def test_one_device_sends_nothing():
    def loss(w, x):
        return jnp.sum(jnp.tanh(w @ x))

    plan = plan_devices(loss, jnp.zeros((6, 5)), jnp.ones((4, 5)), 1)
    assert (plan.num_devices, plan.samples_per_device, plan.gram.sent, plan.products.sent) == (1, 4, 0, 0)
    assert plan.gram.flops > 0


@pytest.mark.skipif(jax.device_count() < 8, reason="set JAX_NUM_CPU_DEVICES=8")
@pytest.mark.parametrize("shards", [1, 8])
def test_eight_devices_share_the_work_and_products_along_the_path_need_no_message(shards, monkeypatch):
    from lggwjax import sharding

    monkeypatch.setattr(sharding, "SMALL_LEAF", 1)

    def loss(params, x):
        return jnp.sum(params["b"] @ jnp.tanh(params["a"] @ x))

    params = {"a": jnp.zeros((64, 32)), "b": jnp.zeros((16, 64))}
    alone = plan_devices(loss, params, jnp.ones((64, 32)), 1)
    eight = plan_devices(loss, params, jnp.ones((64, 32)), 8, parameter_shards=shards)
    assert eight.samples_per_device == 8
    assert eight.gram.flops == pytest.approx(alone.gram.flops / 8, rel=0.05)
    assert eight.gram.sent > 0
    assert eight.products.sent == 0
