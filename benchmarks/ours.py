"""The library's own calls as subjects, with the limits that they are held to."""

from __future__ import annotations

from typing import Any

import jax

import lggwjax
from benchmarks.machine import GRADIENTS, rates
from benchmarks.problems import InJax, in_jax
from benchmarks.worker import Limit, Subject


def gram(file: str) -> Subject:
    """``gradient_gram`` at the first checkpoint; limit: one batched gradient."""
    given = in_jax(file)
    params = given.path[0]

    def call() -> jax.Array:
        return lggwjax.gradient_gram(given.loss_fn, params, given.batch, wrt=given.wrt)

    limits = {GRADIENTS: Limit(lambda: given.batch_gradient(params)), **rates()}
    return Subject(call, limits, facts=lambda _: plan_facts(given, "gram"), check=lambda result: result)


def width(
    file: str,
    kind: str,
    tolerance: float | None = None,
    num_draws: int | None = None,
    check_samples: int | None = None,
    beside_rates: bool = True,
) -> Subject:
    """``lggw`` along the path, all included; limit: one batched gradient for each checkpoint.

    Args:
        file: The problem's.
        kind: ``union`` or ``stacked``.
        tolerance: Relative standard error asked for.
        num_draws: Directions; by default, and without a tolerance, as many as the library chooses.
        check_samples: On how many samples the rivals must agree on what is behind the width: the Gram matrix of a
            union, the diameter of a stacked set.
        beside_rates: Whether the machine's rates are measured beside it.
    """
    given = in_jax(file)
    key = jax.random.key(0)

    def call() -> Any:
        path, batch = given.path, given.batch
        options = {"num_draws": num_draws, "tolerance": tolerance, "wrt": given.wrt}
        return lggwjax.lggw(key, given.loss_fn, path, batch, kind, **options)

    def facts(found: Any) -> dict[str, Any]:
        numbers = {"value": float(found.value), "stderr": float(found.stderr), "num_draws": int(found.num_draws)}
        return numbers | plan_facts(given, kind, num_draws=int(found.num_draws))

    def behind(_: Any) -> jax.Array:
        some = jax.tree.map(lambda a: a[:check_samples], given.batch)
        if kind == "union":
            return lggwjax.gradient_gram(given.loss_fn, given.path[0], some, wrt=given.wrt)
        return lggwjax.lggw(key, given.loss_fn, given.path, some, kind, wrt=given.wrt).diameter[None]

    limits = {GRADIENTS: Limit(lambda: [given.batch_gradient(params) for params in given.path])}
    limits |= rates() if beside_rates else {}
    return Subject(call, limits, facts, behind if check_samples else None)


def plan_facts(given: InJax, kind: str, **options: Any) -> dict[str, Any]:
    """What the library predicts: peak bytes, seconds, and the flops of its matrix products."""
    plan = lggwjax.plan(given.loss_fn, given.path, given.batch, kind, wrt=given.wrt, **options)
    flops = float(sum(leaf.flops for leaf in plan.leaves))
    return {"plan_bytes": int(plan.memory), "plan_seconds": float(plan.seconds), "plan_flops": flops}
