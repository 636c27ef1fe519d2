"""Plain JAX: ``vmap(grad)``, then a product. The script that a JAX user writes in five lines."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.problems import InJax, in_jax
from benchmarks.rivals.draws import ALONE, draw_facts
from benchmarks.worker import Limit, Subject

BLOCK_BYTES = 2**31  # per-sample gradients that fit at once


def _per_sample(given: InJax) -> Any:
    """Jitted: (params, examples) to gradients as rows."""

    def flat_gradient(coordinates: Any, params: Any, example: Any) -> jax.Array:
        gradient = jax.grad(lambda c: given.loss_fn({**params, "params": c}, example))(coordinates)
        return jnp.concatenate([leaf.ravel() for leaf in jax.tree.leaves(gradient)])

    return jax.jit(
        lambda params, examples: jax.vmap(flat_gradient, (None, None, 0))(params["params"], params, examples)
    )


def _slices(given: InJax, bytes_a_sample: int) -> list[Any]:
    num = len(given.batch["y"])
    size = max(1, min(num, BLOCK_BYTES // bytes_a_sample))
    size = math.ceil(num / math.ceil(num / size))
    return [jax.tree.map(lambda a, s=start: a[s : s + size], given.batch) for start in range(0, num, size)]


def _num_bytes(given: InJax) -> int:
    return 4 * sum(leaf.size for leaf in jax.tree.leaves(given.path[0]["params"]))


def gram(file: str) -> Subject:
    given = in_jax(file)
    gradients = _per_sample(given)
    product = jax.jit(lambda a, b: jnp.matmul(a, b.T, precision="highest"))
    params, slices = given.path[0], _slices(given, _num_bytes(given))

    def call() -> jax.Array:
        rows = []
        for i, examples in enumerate(slices):
            left = gradients(params, examples)
            lower = [product(left, gradients(params, others)) for others in slices[:i]]
            rows.append([*lower, product(left, left)])
        full = [[rows[i][j] if j <= i else rows[j][i].T for j in range(len(rows))] for i in range(len(rows))]
        return full[0][0] if len(full) == 1 else jnp.block(full)

    return Subject(call, check=lambda result: result)


def project(file: str, num_draws: int) -> Subject:
    given = in_jax(file)
    gradients, params = _per_sample(given), given.path[0]
    dim = _num_bytes(given) // 4

    @jax.jit
    def projected(key: jax.Array, rows: jax.Array) -> jax.Array:
        directions = jax.random.normal(key, (dim, num_draws))
        return jnp.matmul(rows, directions, precision="highest")

    def call(seed: int = 0) -> jax.Array:
        return projected(jax.random.key(seed), gradients(params, given.batch))

    def gram_of_rows() -> jax.Array:
        rows = gradients(params, given.batch)
        return jnp.matmul(rows, rows.T, precision="highest")

    return Subject(
        call,
        limits={ALONE: Limit(lambda: gradients(params, given.batch))},
        facts=lambda result: draw_facts(np.asarray(result), np.asarray(call(1))),
        check=lambda _: gram_of_rows(),
    )


def stacked(file: str, num_samples: int) -> Subject:
    """Gram matrix of the stacked gradient set, from ``num_samples`` of the samples: a part, to be scaled up."""
    given = in_jax(file)
    gradients = _per_sample(given)
    examples = jax.tree.map(lambda a: a[:num_samples], given.batch)
    chunk = max(1, min(num_samples, BLOCK_BYTES // (_num_bytes(given) * len(given.path))))

    @jax.jit
    def products(rows: list[jax.Array]) -> jax.Array:
        moved = jnp.stack([row - rows[0] for row in rows])
        return jnp.einsum("sip,tip->st", moved, moved, precision="highest")

    def call() -> jax.Array:
        total = jnp.zeros((len(given.path),) * 2)
        for start in range(0, num_samples, chunk):
            part = jax.tree.map(lambda a, s=start: a[s : s + chunk], examples)
            total = total + products([gradients(params, part) for params in given.path])
        return total / num_samples

    def diameter(gram: jax.Array) -> jax.Array:
        squares = jnp.diagonal(gram)
        return jnp.sqrt((squares[:, None] + squares - 2 * gram).max())[None]

    return Subject(call, check=diameter)
