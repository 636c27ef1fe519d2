"""A battery of losses, as unlike each other as models are: what every route to a gradient must get right.

``CASES`` maps a name to a builder of a :class:`Problem`. Everything is as small as it goes: compiling is all the time
there is.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, nnx
from jax import lax
from jax.ad_checkpoint import checkpoint_name

from lggwjax.models import ModelSpec, adapt
from lggwjax.models import build as build_model

NUM = 5
"""Examples in every batch."""

FAST = "fast"
"""Factors are found: the route is "activations" or "contracted", or the leaf's gradient for no reason but its cost."""

UNUSED = "unused"

ANY = "any"
"""Exact, by whatever route."""

EPS32, EPS16 = 2.0**-23, 2.0**-7


def gradient(word: str) -> str:
    """Expected: the leaf's own gradient, with a reason that says ``word``."""
    return f"gradient:{word}"


class Problem(NamedTuple):
    """A loss, where to measure it, and what to expect.

    Attributes:
        loss_fn: ``loss_fn(params, example) -> scalar``.
        params: Parameters at which the loss depends on every example.
        batch: NUM examples.
        expected: From a regular expression, searched in the leaf's key path, to the route expected.
        wrt: Which leaves are gradient coordinates.
        eps: Unit of rounding of the coarsest arithmetic in the loss.
        step: Size of the steps of a path, relative to the root mean square of the leaf.
        silent: Regular expression of the leaves whose gradients vanish, or are lost in the rounding of others.
    """

    loss_fn: Callable[[Any, Any], jax.Array]
    params: Any
    batch: Any
    expected: dict[str, str]
    wrt: Any = None
    eps: float = EPS32
    step: float = 1e-2
    silent: str = "(?!)"


CASES: dict[str, Callable[[], Problem]] = {}
"""How to make the problem of each name."""

CORE = frozenset(
    {
        "dense",
        "dense-tokens",
        "dense-low-rank-with-frozen-base",
        "dense-input-is-a-parameter",
        "siamese",
        "regulariser-inside",
        "view-transpose-then-reshape",
        "view-normalised",
        "einsum-experts-wide",
        "vmap-experts",
        "jit-nested",
        "remat-block",
        "straight-through-custom-vjp",
        "custom-vjp-with-while",
        "reused-by-one-token",
        "reused-with-unlike-scales",
        "rnn-scanned",
        "cond",
        "data-dependent-whole-number",
        "scale-only",
        "conv-few-positions-layout",
        "conv-grouped-strided-dilated",
        "conv-all-at-once",
        "conv-batch-groups",
        "conv-bias-channels-first",
        "layer-norm",
        "embedding-index-outside",
        "embedding-take-clip",
        "embedding-two-lookups-of-unlike-length",
        "embedding-vmap-ids",
        "embedding-row-chosen-by-parameters",
        "attention",
        "bfloat16-compute",
        "params-with-integers-and-keys",
        "params-partly-unused",
        "params-of-size-zero-and-one",
        "loss-is-a-module",
        "nnx-mlp",
        "equinox-embedding",
    }
)
"""One case of every kind: what is tested each time. The others are for the slow tests."""


def case(build: Callable[[], Problem]) -> Callable[[], Problem]:
    """Add a builder to the battery under its own name."""
    return add(build.__name__, build)


def add(name: str, build: Callable[[], Problem]) -> Callable[[], Problem]:
    name = name.replace("_", "-")
    if name in CASES:
        raise ValueError(f"Expected a new name, got {name!r} again.")
    CASES[name] = build
    return build


def normal(seed: int, *shape: int, scale: float = 1.0) -> jax.Array:
    return jnp.asarray(scale * np.random.default_rng((seed, *shape)).normal(size=shape), jnp.float32)


def normals(**shapes: Sequence[int]) -> dict[str, jax.Array]:
    """Parameters by name, each of its own seed, small enough that no activation saturates."""
    return {name: normal(seed, *shape, scale=0.5) for seed, (name, shape) in enumerate(shapes.items())}


def examples(*shape: int, seed: int = 100) -> jax.Array:
    return normal(seed, NUM, *shape)


def labels(num_classes: int, *shape: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(7).integers(0, num_classes, (NUM, *shape)), jnp.int32)


def score(out: jax.Array) -> jax.Array:
    """A loss whose cotangents differ from output to output and from sample to sample."""
    return 0.5 * jnp.sum(jnp.square(out - 0.3))


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    return jnp.mean(optax.losses.softmax_cross_entropy_with_integer_labels(logits, label))


def add_layer(
    name: str,
    layer: Callable[[jax.Array, Any], jax.Array],
    weight: Sequence[int],
    example: Sequence[int] = (3, 6),
    family: str = FAST,
    **kwargs: Any,
) -> None:
    """Add a loss of one weight: ``score(layer(w, x))``."""

    def build() -> Problem:
        params = normals(w=weight)
        return Problem(lambda p, x: score(layer(p["w"], x)), params, examples(*example), {"w": family}, **kwargs)

    add(name, build)


# Dense layers.


@case
def dense() -> Problem:
    def loss(params, example):
        return score(jnp.tanh(params["w"] @ example["x"] + params["b"]) * example["y"])

    batch = {"x": examples(6), "y": jnp.linspace(0.5, 2, NUM)}
    return Problem(loss, normals(w=(4, 6), b=(4,)), batch, {"w": FAST})


@case
def dense_bare_array_params() -> Problem:
    return Problem(lambda w, x: score(jnp.tanh(w @ x)), normal(0, 4, 6), examples(6), {"": FAST})


@case
def dense_tokens() -> Problem:
    def loss(params, x):
        hidden = jax.nn.relu(x @ params["w"] + params["b"])
        return score(hidden @ params["v"] + params["c"])

    params = normals(w=(6, 4), b=(4,), v=(4, 2), c=(2,))
    return Problem(loss, params, examples(3, 6), {"w": FAST, "v": FAST, "b": FAST, "c": FAST})


@case
def dense_low_rank_with_frozen_base() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(x @ params["base"] + (x @ params["down"]) @ params["up"]))

    params = normals(base=(6, 4), down=(6, 2), up=(2, 4))
    wrt = {"base": False, "down": True, "up": True}
    return Problem(loss, params, examples(3, 6), {"down": FAST, "up": FAST}, wrt=wrt)


@case
def dense_sum_of_leaves() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(x @ (params["w"] + params["v"] @ params["u"])))

    return Problem(loss, normals(w=(6, 4), v=(6, 2), u=(2, 4)), examples(3, 6), {"w": FAST, "[vu]": ANY})


@case
def dense_alike_leaves_with_one_bias() -> Problem:
    """Two leaves with the same factors: the bias goes along with one of them, and only once."""

    def loss(params, x):
        return score(jnp.tanh(x @ (params["w"] + params["v"]) + params["b"]))

    return Problem(loss, normals(w=(6, 4), v=(6, 4), b=(4,)), examples(6), {"[wvb]": FAST})


@case
def dense_mixer() -> Problem:
    """One weight from the left, over tokens, one from the right, over channels."""

    def loss(params, x):
        x = x + params["left"] @ jnp.tanh(x)
        return score(x + jnp.tanh(x) @ params["right"])

    return Problem(loss, normals(left=(3, 3), right=(4, 4)), examples(3, 4), {"left": FAST, "right": FAST})


@case
def dense_input_is_a_constant() -> Problem:
    basis = normal(50, 3, 6)

    def loss(params, x):
        return score(jnp.tanh(basis @ params["w"]) * x)

    return Problem(loss, normals(w=(6, 4)), examples(3, 4), {"w": FAST})


@case
def dense_input_is_a_parameter() -> Problem:
    """A learned prompt before the tokens: a layer's input that is partly the same for every example."""

    def loss(params, x):
        tokens = jnp.concatenate([params["prompt"], x])
        return score(jnp.tanh(tokens @ params["w"]).mean(0))

    return Problem(loss, normals(prompt=(2, 6), w=(6, 4)), examples(3, 6), {"w": FAST, "prompt": ANY})


@case
def bilinear() -> Problem:
    def loss(params, example):
        pair = jnp.einsum("i,ijk,j->k", example["x"], params["w"], example["y"])
        return score(pair + jnp.einsum("i,ij,j->", example["x"], params["m"], example["y"]))

    batch = {"x": examples(3), "y": examples(4, seed=101)}
    return Problem(loss, normals(w=(3, 4, 2), m=(3, 4)), batch, {"w": FAST, "m": FAST})


@case
def siamese() -> Problem:
    def loss(params, example):
        left, right = (jnp.tanh(params["w"] @ x) for x in (example["x"], example["y"]))
        return score(left - right)

    return Problem(loss, normals(w=(4, 6)), {"x": examples(6), "y": examples(6, seed=101)}, {"w": FAST})


@case
def siamese_with_minus() -> Problem:
    def loss(params, example):
        return score(params["w"] @ example["x"] - params["w"] @ example["y"])

    return Problem(loss, normals(w=(4, 6)), {"x": examples(6), "y": examples(6, seed=101)}, {"w": ANY})


@case
def regulariser_inside() -> Problem:
    def loss(params, x):
        return score(x @ params["w"]) + 0.3 * jnp.sum(params["w"] ** 2)

    return Problem(loss, normals(w=(6, 4)), examples(3, 6), {"w": ANY})


@case
def top_k_and_sort() -> Problem:
    def loss(params, x):
        values, kept = lax.top_k(params["w"] @ x, 3)
        return score(jnp.sort(values * params["v"][kept]))

    return Problem(loss, normals(w=(7, 6), v=(7,)), examples(6), {"w": FAST, "v": ANY})


@case
def graph_convolution() -> Problem:
    """Messages along edges, summed at their ends, twice."""

    def loss(params, example):
        nodes = example["nodes"]
        for w in (params["w"], params["v"]):
            messages = (nodes @ w)[example["source"]]
            nodes = jnp.tanh(jax.ops.segment_sum(messages, example["target"], num_segments=4))
        return score(nodes)

    rng = np.random.default_rng(3)
    edges = {name: jnp.asarray(rng.integers(0, 4, (NUM, 7))) for name in ("source", "target")}
    return Problem(loss, normals(w=(3, 5), v=(5, 2)), {"nodes": examples(4, 3), **edges}, {"w": FAST, "v": FAST})


@case
def dropout_with_keys_in_the_batch() -> Problem:
    def loss(params, example):
        hidden = jnp.tanh(example["x"] @ params["w"])
        hidden = hidden * jax.random.bernoulli(example["key"], 0.5, hidden.shape)
        return score(hidden @ params["v"])

    batch = {"x": examples(3, 6), "key": jax.random.split(jax.random.key(0), NUM)}
    return Problem(loss, normals(w=(6, 4), v=(4, 2)), batch, {"w": FAST, "v": FAST})


@case
def large_logits_small_gradients() -> Problem:
    """Softmax far out: examples whose gradients vanish beside examples whose gradients are of size 1e3."""

    def loss(params, example):
        logits = 1e3 * (params["v"] @ jnp.tanh(params["w"] @ example["x"]))
        return 1e-15 * cross_entropy(logits, example["y"])

    params, batch = normals(w=(4, 6), v=(3, 4)), {"x": examples(6), "y": labels(3)}
    return Problem(loss, params, batch, {"w": FAST, "v": FAST})


@case
def factors_of_unlike_size() -> Problem:
    """Inputs of 1e20 and cotangents of 1e-20: gradients of size 1, though neither factor can be squared."""

    def loss(params, x):
        return 1e-20 * score(jnp.tanh(x @ params["w"]))

    return Problem(loss, {"w": normal(0, 6, 4, scale=3e-21)}, 1e20 * examples(3, 6), {"w": ANY})


# A weight seen through a view, or bent before it is used; x @ view(w) with x of shape (3, 6).

_MASK = np.random.default_rng(5).random((6, 4)) < 0.6
_WITHIN = np.array([0, 2, 2, 5, 1, 0])

VIEWS: dict[str, tuple[Callable[[jax.Array], jax.Array], tuple[int, ...], str]] = {
    "transpose": (lambda w: w.T, (4, 6), FAST),
    "reshape": (lambda w: w.reshape(6, 4), (2, 3, 4), FAST),
    "transpose_then_reshape": (lambda w: w.transpose(2, 0, 1).reshape(6, 4), (2, 4, 3), FAST),
    "squeeze": (lambda w: w[0, :, :, 0], (1, 6, 4, 1), FAST),
    "cast_up": (lambda w: w.astype(jnp.float32), (6, 4), FAST),
    "slice": (lambda w: w[1:7, :4], (9, 5), ANY),
    "strided_slice": (lambda w: w[::2, 1::2], (12, 8), ANY),
    "flip": (lambda w: w[::-1, ::-1], (6, 4), ANY),
    "roll": (lambda w: jnp.roll(w, 2, 0), (6, 4), ANY),
    "pad": (lambda w: jnp.pad(w, ((1, 1), (0, 2))), (4, 2), ANY),
    "concatenate_itself": (lambda w: jnp.concatenate([w, w]), (3, 4), ANY),
    "stack_itself": (lambda w: jnp.stack([w, 2 * w]).reshape(6, 4), (3, 4), ANY),
    "tile": (lambda w: jnp.tile(w, (2, 2)), (3, 2), ANY),
    "repeat": (lambda w: jnp.repeat(w, 2, 0), (3, 4), ANY),
    "broadcast": (lambda w: jnp.broadcast_to(w, (6, 4)), (4,), ANY),
    "broadcast_column": (lambda w: jnp.broadcast_to(w, (6, 4)), (6, 1), ANY),
    "rows_by_constant_index": (lambda w: w[_WITHIN], (6, 4), ANY),
    "overwritten_row": (lambda w: w.at[2].set(1.0), (6, 4), ANY),
    "overwritten_block": (lambda w: jnp.ones((6, 4)).at[1:3, :2].set(w), (2, 2), ANY),
    "diagonal": (lambda w: jnp.diag(w), (6,), ANY),
    "masked": (lambda w: jnp.where(_MASK, w, 0.0), (6, 4), ANY),
    "multiplied_by_a_mask": (lambda w: w * _MASK, (6, 4), ANY),
    "lower_triangle": (lambda w: jnp.tril(w), (6, 4), ANY),
    "minus": (lambda w: -w, (6, 4), ANY),
    "constant_scale": (lambda w: w * np.sqrt(2 / 6), (6, 4), ANY),
    "constant_quotient": (lambda w: w / 3.0, (6, 4), ANY),
    "constant_shift": (lambda w: w - 0.5, (6, 4), FAST),
    "centred": (lambda w: w - w.mean(0), (6, 4), ANY),
    "normalised": (lambda w: w / jnp.linalg.norm(w), (6, 4), ANY),
    "normalised_columns": (lambda w: w / jnp.linalg.norm(w, axis=0), (6, 4), ANY),
    "standardised": (lambda w: (w - w.mean(0)) / jnp.sqrt(w.var(0) + 1e-5), (6, 4), ANY),
    "softplus": (jax.nn.softplus, (6, 4), ANY),
    "exponential": (jnp.exp, (6, 4), ANY),
    "softmax": (lambda w: jax.nn.softmax(w, 0), (6, 4), ANY),
    "cumulative_sum": (lambda w: jnp.cumsum(w, 0), (6, 4), ANY),
    "sorted": (lambda w: jnp.sort(w, 0), (6, 4), ANY),
    "square": (lambda w: w * w, (6, 4), ANY),
    "symmetric": (lambda w: w + w.T, (6, 6), ANY),
    "antisymmetric": (lambda w: w - w.T, (6, 6), ANY),
    "gram_of_itself": (lambda w: w @ w.T, (6, 2), ANY),
    "kronecker_with_itself": (lambda w: jnp.kron(w, w.T), (3, 2), ANY),
    "half_of_gradient_stopped": (lambda w: 0.5 * w + 0.5 * lax.stop_gradient(w), (6, 4), ANY),
    "barrier": (lambda w: lax.optimization_barrier(w), (6, 4), ANY),
}
for _name, (_view, _shape, _family) in VIEWS.items():
    add_layer(f"view_{_name}", lambda w, x, view=_view: jnp.tanh(x @ view(w)), _shape, family=_family)

# How a weight may be multiplied, called or used more than once; x of shape (3, 6) where nothing else is said.


@jax.custom_jvp
def _dense_jvp(w, x):
    return x @ w


@_dense_jvp.defjvp
def _(primals, tangents):
    (w, x), (dw, dx) = primals, tangents
    return x @ w, 2 * (x @ dw) + jnp.tanh(dx @ w)[0] * 0 + dx @ w


@jax.custom_vjp
def _dense_vjp(w, x):
    return x @ w


def _dense_vjp_forward(w, x):
    return x @ w, (w, x)


def _dense_vjp_backward(kept, cotangent):
    w, x = kept
    return x.T @ cotangent, cotangent @ w.T


_dense_vjp.defvjp(_dense_vjp_forward, _dense_vjp_backward)


@jax.custom_vjp
def _binary_dense(w, x):
    return x @ jnp.sign(w)


def _binary_forward(w, x):
    return x @ jnp.sign(w), (w, x)


def _binary_backward(kept, cotangent):
    # Not the derivative of anything: identity through the sign, cut off where the weight is large.
    w, x = kept
    return jnp.where(jnp.abs(w) < 0.5, x.T @ cotangent, 0), cotangent @ jnp.sign(w).T


_binary_dense.defvjp(_binary_forward, _binary_backward)


@jax.custom_vjp
def _reversed(x):
    return x


_reversed.defvjp(lambda x: (x, None), lambda _, cotangent: (-0.5 * jnp.clip(cotangent, -0.2, 0.2),))


@jax.custom_vjp
def _dense_with_loop_behind(w, x):
    return x @ w


def _loop_backward(kept, cotangent):
    w, x = kept

    def body(carry):
        row, total = carry
        return row + 1, total + jnp.outer(x[row], cotangent[row])

    _, total = lax.while_loop(lambda carry: carry[0] < x.shape[0], body, (0, jnp.zeros_like(w)))
    return total, cotangent @ w.T


_dense_with_loop_behind.defvjp(_dense_vjp_forward, _loop_backward)


def _nested(w, x):
    inner = jax.jit(lambda w, x: x @ w)
    return jax.jit(lambda w, x: jnp.tanh(inner(w, x)))(w, x)


def _remat_block(w, x):
    @jax.checkpoint
    def block(w, x):
        return x + jnp.tanh(jax.nn.silu(x @ w) @ w.T)

    return block(w, x)


def _remat_named(w, x):
    @functools.partial(jax.checkpoint, policy=jax.checkpoint_policies.save_only_these_names("kept"))
    def block(w, x):
        return jnp.tanh(checkpoint_name(jnp.tanh(x @ w), "kept") * 2)

    return block(w, x)


def _unrolled(w, x):
    state = jnp.zeros(4)
    for token in x:
        state = jnp.tanh(w[:, :4] @ state + w[:, 4:] @ token)
    return state


def _scanned(w, x):
    return lax.scan(lambda state, token: (jnp.tanh(w[:, :4] @ state + w[:, 4:] @ token), None), jnp.zeros(4), x)[0]


def _fixed_point(w, x):
    """A deep equilibrium z = tanh(w z + x): a loop forward, implicit differentiation backward."""

    @jax.custom_vjp
    def solve(w, x):
        return lax.while_loop(
            lambda s: (s[0] < 30) & (jnp.abs(s[1] - s[2]).max() > 1e-7),
            lambda s: (s[0] + 1, jnp.tanh(0.3 * w @ s[1] + x), s[1]),
            (0, jnp.zeros_like(x), jnp.ones_like(x)),
        )[1]

    def forward(w, x):
        z = solve(w, x)
        return z, (w, x, z)

    def backward(kept, cotangent):
        w, x, z = kept
        _, pull = jax.vjp(lambda w, x, z: jnp.tanh(0.3 * w @ z + x), w, x, z)
        u = lax.fori_loop(0, 30, lambda _, u: cotangent + pull(u)[2], cotangent)
        return pull(u)[:2]

    solve.defvjp(forward, backward)
    return solve(w, x)


def _orthogonal(w, x):
    skew = w - w.T
    return x @ jnp.linalg.solve(jnp.eye(6) + skew, jnp.eye(6) - skew)


def _cholesky_likelihood(w, x):
    factor = jnp.tril(w, -1) + jnp.diag(jnp.exp(jnp.diag(w)))
    return jax.scipy.linalg.solve_triangular(factor, x, lower=True)


def _inner_step(w, x):
    """One step of gradient descent inside the loss, as in meta-learning."""
    inner = jax.grad(lambda w: score(jnp.tanh(x[:2] @ w)))(w)
    return jnp.tanh(x[2:] @ (w - 0.1 * inner))


def _gradient_penalty(w, x):
    return jax.vmap(jax.grad(lambda token: jnp.sum(jnp.tanh(token @ w) ** 2)))(x)


def _callback(w, x):
    hidden = x @ w
    jax.debug.callback(lambda _: None, hidden)
    return jnp.tanh(hidden)


LAYERS: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], tuple[int, ...], tuple[int, ...], str]] = {
    "einsum_two_token_axes": (lambda w, x: jnp.einsum("abd,df->fab", x, w), (4, 3), (2, 3, 4), FAST),
    "einsum_two_contracted_axes": (lambda w, x: jnp.einsum("thk,hkd->td", x, w), (2, 3, 4), (3, 2, 3), FAST),
    "einsum_two_made_axes": (lambda w, x: jnp.einsum("td,dhk->htk", x, w), (6, 2, 3), (3, 6), FAST),
    "einsum_experts": (lambda w, x: jnp.einsum("ecd,edf->ecf", x, w), (2, 4, 3), (2, 3, 4), FAST),
    "einsum_experts_one_token": (lambda w, x: jnp.einsum("ed,edf->ef", x, w), (3, 4, 2), (3, 4), FAST),
    "einsum_experts_wide": (lambda w, x: jnp.einsum("ecd,edf->ecf", x, w), (2, 7, 8), (2, 2, 7), FAST),
    "einsum_expert_last": (lambda w, x: jnp.einsum("dec,dfe->cef", x, w), (4, 3, 2), (4, 2, 3), FAST),
    "einsum_block_diagonal": (lambda w, x: jnp.einsum("tbi,bij->tbj", x.reshape(3, 2, 3), w), (2, 3, 2), (3, 6), FAST),
    "einsum_trace": (lambda w, x: jnp.einsum("ij,ij->", x, w), (3, 6), (3, 6), ANY),
    "vector_weight": (lambda w, x: x @ w, (6,), (3, 6), FAST),
    "vector_weight_one_token": (lambda w, x: x @ w, (6,), (6,), ANY),
    "outer_product": (lambda w, x: jnp.outer(w, x), (4,), (6,), ANY),
    "one_output": (lambda w, x: w @ x, (1, 6), (6,), FAST),
    "one_input": (lambda w, x: w @ x, (6, 1), (1,), FAST),
    "more_tokens_than_weights": (lambda w, x: jnp.tanh(x @ w), (2, 3), (20, 2), FAST),
    "vmap_tokens": (lambda w, x: jax.vmap(lambda token: jnp.tanh(w @ token))(x), (4, 6), (3, 6), FAST),
    "vmap_experts": (lambda w, x: jax.vmap(lambda v: jnp.tanh(x @ v))(w), (2, 6, 3), (3, 6), FAST),
    "vmap_both": (lambda w, x: jax.vmap(lambda v, token: jnp.tanh(v @ token))(w, x), (3, 4, 6), (3, 6), FAST),
    "vmap_of_vmap": (
        lambda w, x: jax.vmap(lambda v: jax.vmap(lambda token: jnp.tanh(v @ token))(x))(w),
        (2, 4, 6),
        (3, 6),
        FAST,
    ),
    "jit": (lambda w, x: jax.jit(lambda w, x: jnp.tanh(x @ w))(w, x), (6, 4), (3, 6), FAST),
    "jit_nested": (_nested, (6, 4), (3, 6), FAST),
    "jit_twice": (lambda w, x: _nested(w, _nested(w, x)), (6, 6), (3, 6), FAST),
    "remat": (jax.checkpoint(lambda w, x: jnp.tanh(x @ w)), (6, 4), (3, 6), FAST),
    "remat_block": (_remat_block, (6, 4), (3, 6), ANY),
    "remat_with_policy": (_remat_named, (6, 4), (3, 6), FAST),
    "remat_under_jit": (jax.jit(jax.checkpoint(lambda w, x: jnp.tanh(x @ w))), (6, 4), (3, 6), FAST),
    "custom_jvp_of_another_function": (_dense_jvp, (6, 4), (3, 6), ANY),
    "custom_jvp_activation": (lambda w, x: jax.nn.relu(jax.nn.silu(x @ w)), (6, 4), (3, 6), FAST),
    "custom_vjp": (_dense_vjp, (6, 4), (3, 6), FAST),
    "custom_vjp_under_jit": (jax.jit(_dense_vjp), (6, 4), (3, 6), FAST),
    "custom_vjp_under_vmap": (
        lambda w, x: jax.vmap(lambda row: _dense_vjp(w, row[None]))(x),
        (6, 4),
        (3, 6),
        ANY,
    ),
    "custom_vjp_reversal": (lambda w, x: jnp.tanh(_reversed(x @ w)), (6, 4), (3, 6), FAST),
    "custom_vjp_on_the_weight": (lambda w, x: jnp.tanh(x @ _reversed(w)), (6, 4), (3, 6), ANY),
    "custom_vjp_with_while": (_dense_with_loop_behind, (6, 4), (3, 6), gradient("while")),
    "named_scope": (lambda w, x: jax.named_call(lambda w: jnp.tanh(x @ w), name="layer")(w), (6, 4), (3, 6), FAST),
    "debug_callback": (_callback, (6, 4), (3, 6), FAST),
    "reused_product": (lambda w, x: x @ w @ w, (6, 6), (3, 6), FAST),
    "reused_deep": (lambda w, x: jnp.tanh(jnp.tanh(jnp.tanh(x @ w) @ w) @ w), (6, 6), (3, 6), FAST),
    "reused_transposed": (lambda w, x: jnp.tanh(x @ w) @ w.T, (6, 4), (3, 6), ANY),
    "reused_by_one_token": (lambda w, x: jnp.tanh(jnp.tanh(x @ w) @ w), (9, 9), (9,), FAST),
    "reused_with_unlike_scales": (lambda w, x: 0.5 * jnp.tanh(3 * (x @ w)) @ w - x @ (w / 7), (9, 9), (9,), ANY),
    "reused_quadratic_form": (lambda w, x: jnp.einsum("ti,ij,tj->t", x, w, x), (6, 6), (3, 6), FAST),
    "reused_with_scale": (lambda w, x: jnp.tanh(x @ w) + 0.1 * (x**2) @ w, (6, 4), (3, 6), FAST),
    "reused_for_other_tokens": (lambda w, x: jnp.tanh(x[0] @ w) * (x[1:] @ w), (6, 4), (3, 6), FAST),
    "rnn_unrolled": (_unrolled, (4, 10), (3, 6), ANY),
    "rnn_scanned": (_scanned, (4, 10), (3, 6), gradient("scan")),
    "rnn_rematted_scan": (jax.checkpoint(_scanned), (4, 10), (3, 6), gradient("scan")),
    "scan_over_layers": (
        lambda w, x: lax.scan(lambda h, layer: (jnp.tanh(h @ layer), None), x, w)[0],
        (2, 6, 6),
        (3, 6),
        gradient("scan"),
    ),
    "scan_and_outside": (lambda w, x: _scanned(w, x) + jnp.tanh(w @ x.reshape(-1)[:10]), (4, 10), (3, 6), ANY),
    "fori_loop": (
        lambda w, x: lax.fori_loop(0, 3, lambda _, h: jnp.tanh(h @ w), x),
        (6, 6),
        (3, 6),
        gradient("scan"),
    ),
    "lax_map": (lambda w, x: lax.map(lambda token: jnp.tanh(token @ w), x), (6, 4), (3, 6), gradient("scan")),
    "cond": (
        lambda w, x: lax.cond(x[0, 0] > 0, lambda w: jnp.tanh(x @ w), lambda w: jnp.sin(x) @ w, w),
        (6, 4),
        (3, 6),
        gradient("cond"),
    ),
    "switch": (
        lambda w, x: lax.switch(
            jnp.argmax(x[:, 0]), [lambda w: x @ w, lambda w: jnp.tanh(x @ w), lambda w: jnp.zeros((3, 4))], w
        ),
        (6, 4),
        (3, 6),
        gradient("cond"),
    ),
    "select_between_uses": (
        lambda w, x: jnp.where(x[0, 0] > 0, jnp.tanh(x @ w), jnp.sin(x) @ w),
        (6, 4),
        (3, 6),
        FAST,
    ),
    "fixed_point": (_fixed_point, (6, 6), (6,), FAST),
    "associative_scan": (lambda w, x: lax.associative_scan(jnp.multiply, 1 + jnp.tanh(x * w)), (6,), (4, 6), ANY),
    "orthogonal_by_solve": (_orthogonal, (6, 6), (3, 6), ANY),
    "triangular_solve": (_cholesky_likelihood, (4, 4), (4,), ANY),
    "inner_gradient_step": (_inner_step, (6, 4), (3, 6), ANY),
    "gradient_penalty": (_gradient_penalty, (6, 4), (3, 6), ANY),
    "data_dependent_scale": (lambda w, x: jnp.tanh(x @ (w * x.mean())), (6, 4), (3, 6), ANY),
    "data_dependent_quotient": (lambda w, x: jnp.tanh(x @ (-w / (2 + x.mean()))), (6, 4), (3, 6), ANY),
    "data_dependent_whole_number": (
        # The scale is cut down to 0, 1 or 2 only after it has been spread over the weight.
        lambda w, x: x @ (w * jnp.broadcast_to(1 + jnp.abs(x).mean(), w.shape).astype(jnp.int32)),
        (6, 4),
        (6,),
        ANY,
    ),
    "data_dependent_gate": (lambda w, x: jnp.tanh(x @ (w * jax.nn.sigmoid(x[0])[:, None])), (6, 4), (3, 6), ANY),
    "data_dependent_mask": (lambda w, x: x @ jnp.where(x[0, :4] > 0, w, 0), (6, 4), (3, 6), ANY),
    "data_dependent_slice": (
        lambda w, x: jnp.tanh(x @ lax.dynamic_slice(w, (jnp.argmax(x[:, 0]), 0), (6, 4))),
        (8, 4),
        (3, 6),
        ANY,
    ),
    "data_dependent_expert": (lambda w, x: jnp.tanh(x @ w[jnp.argmax(x[:, 0])]), (3, 6, 2), (3, 6), ANY),
    "data_dependent_experts": (
        lambda w, x: jnp.einsum("td,tdf->tf", x, w[jnp.argmax(x[:, :2], axis=1)]),
        (2, 6, 3),
        (3, 6),
        ANY,
    ),
    "sometimes_used": (lambda w, x: jnp.where(x[0, 0] > 0, x @ w, x @ jnp.ones((6, 4))), (6, 4), (3, 6), ANY),
    "scale_only": (lambda w, x: jnp.tanh(x * w), (6,), (3, 6), FAST),
    "shift_only": (lambda w, x: jnp.tanh(x + w), (6,), (3, 6), FAST),
    "scale_every_entry": (lambda w, x: jnp.tanh(x * w), (3, 6), (3, 6), ANY),
    "shift_middle_axis": (lambda w, x: jnp.tanh(x + w[:, None]), (3,), (2, 3, 4), FAST),
    "shift_with_keepdims": (lambda w, x: jnp.tanh(x + w), (1, 3, 1), (2, 3, 4), FAST),
    "scalar_scale": (lambda w, x: jnp.tanh(w * x), (), (3, 6), ANY),
    "softmax_mixture": (lambda w, x: jnp.tanh(jax.nn.softmax(w) @ x), (3,), (3, 6), ANY),
    "pooled_then_dense": (lambda w, x: jnp.tanh(jnp.max(x, 0) @ w), (6, 4), (3, 6), FAST),
    "reduced_over_outputs": (lambda w, x: jnp.max(x @ w, axis=0), (6, 4), (3, 6), FAST),
    "rounded_weight": (lambda w, x: x @ lax.reduce_precision(w, 8, 7), (6, 4), (3, 6), ANY),
}
_KEYWORDS: dict[str, dict[str, Any]] = {
    # The gradient is rounded as the weight is; differences along a path are of rounded gradients.
    "rounded_weight": {"eps": EPS16, "step": 0.5},
}
for _name, (_layer, _weight, _example, _family) in LAYERS.items():
    add_layer(_name, _layer, _weight, _example, _family, **_KEYWORDS.get(_name, {}))


@case
def multiplied_by_zero() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(x @ params["w"]) + 0.0 * (x @ params["nothing"]))

    return Problem(loss, normals(w=(6, 4), nothing=(6, 4)), examples(3, 6), {"w": FAST}, silent="nothing")


def _straight_through_problem(layer: Callable[[jax.Array, jax.Array], jax.Array], family: str) -> Problem:
    def loss(params, x):
        return score(jnp.tanh(layer(params["w"], x)) @ params["v"])

    return Problem(loss, normals(w=(6, 4), v=(4, 2)), examples(3, 6), {"w": family, "v": FAST}, step=0.5)


for _name, _layer, _family in (
    ("sign", lambda w, x: x @ (w + lax.stop_gradient(jnp.sign(w) - w)), FAST),
    ("round", lambda w, x: x @ (w + lax.stop_gradient(jnp.round(4 * w) / 4 - w)), FAST),
    ("custom_vjp", _binary_dense, ANY),
):
    add(f"straight_through_{_name}", functools.partial(_straight_through_problem, _layer, _family))


# Convolutions: ``lax.conv_general_dilated`` of one image, in every variant that JAX has.

CONVOLUTIONS: dict[str, tuple[tuple[int, ...], tuple[int, ...], dict[str, Any]]] = {
    "same": ((5, 5, 2), (3, 3, 2, 3), {}),
    "valid": ((5, 4, 2), (3, 2, 2, 3), {"padding": "VALID"}),
    "pointwise": ((4, 4, 3), (1, 1, 3, 2), {}),
    "pointwise_strided": ((5, 5, 3), (1, 1, 3, 2), {"window_strides": (2, 2)}),
    "kernel_as_large_as_image": ((3, 4, 2), (3, 4, 2, 3), {"padding": "VALID"}),
    "kernel_larger_than_image": ((2, 2, 2), (3, 3, 2, 3), {}),
    "even_kernel": ((5, 5, 2), (2, 4, 2, 3), {}),
    "strided": ((6, 6, 2), (3, 3, 2, 3), {"window_strides": (2, 2)}),
    "strided_with_rest": ((6, 7, 2), (3, 2, 2, 3), {"window_strides": (2, 3), "padding": "VALID"}),
    "stride_beyond_kernel": ((7, 7, 2), (2, 2, 2, 3), {"window_strides": (3, 4), "padding": "VALID"}),
    "asymmetric_padding": ((5, 5, 2), (3, 3, 2, 3), {"window_strides": (2, 1), "padding": ((0, 1), (2, 0))}),
    "negative_padding": ((6, 6, 2), (3, 3, 2, 3), {"padding": ((-1, 0), (1, -2))}),
    "negative_padding_strided": ((7, 7, 2), (3, 3, 2, 3), {"window_strides": (2, 2), "padding": ((-1, 0), (0, -1))}),
    "wide_padding": ((3, 3, 2), (2, 2, 2, 3), {"padding": ((3, 3), (0, 4))}),
    "kernel_dilated": ((7, 6, 2), (3, 2, 2, 3), {"rhs_dilation": (2, 3)}),
    "kernel_dilated_valid": ((7, 6, 2), (3, 2, 2, 3), {"rhs_dilation": (2, 3), "padding": "VALID"}),
    "kernel_dilated_strided": ((8, 7, 2), (3, 2, 2, 3), {"rhs_dilation": (2, 2), "window_strides": (2, 3)}),
    "image_dilated": ((3, 3, 2), (3, 3, 2, 3), {"lhs_dilation": (2, 2), "padding": ((1, 2), (2, 1))}),
    "image_dilated_negative_padding": (
        (3, 3, 2),
        (2, 3, 2, 3),
        {"lhs_dilation": (2, 3), "padding": ((-1, 1), (0, -2))},
    ),
    "all_at_once": (
        (5, 4, 2),
        (2, 3, 2, 3),
        {
            "window_strides": (3, 2),
            "padding": ((1, -1), (3, 2)),
            "lhs_dilation": (2, 3),
            "rhs_dilation": (3, 2),
        },
    ),
    "grouped": ((5, 5, 4), (3, 3, 2, 6), {"feature_group_count": 2}),
    "grouped_strided_dilated": (
        (6, 6, 4),
        (2, 2, 2, 6),
        {"feature_group_count": 2, "window_strides": (2, 1), "rhs_dilation": (1, 2)},
    ),
    "grouped_image_dilated": (
        (3, 3, 4),
        (2, 2, 2, 6),
        {"feature_group_count": 2, "lhs_dilation": (2, 2), "padding": ((0, 0), (1, 0))},
    ),
    "depthwise": ((5, 5, 3), (3, 3, 1, 3), {"feature_group_count": 3}),
    "depthwise_multiplied": ((5, 5, 3), (3, 3, 1, 6), {"feature_group_count": 3}),
    "depthwise_strided": ((6, 6, 3), (3, 3, 1, 3), {"feature_group_count": 3, "window_strides": (2, 2)}),
    "few_positions": ((2, 2, 4), (3, 3, 4, 5), {}),
    "few_positions_strided": ((3, 4, 4), (3, 3, 4, 5), {"window_strides": (2, 2)}),
    "few_positions_grouped": ((2, 2, 6), (3, 3, 3, 8), {"feature_group_count": 2}),
    "few_positions_dilated": (
        (2, 3, 4),
        (3, 3, 4, 5),
        {"window_strides": (2, 1), "padding": ((3, 2), (2, 2)), "lhs_dilation": (2, 1), "rhs_dilation": (1, 2)},
    ),
    "few_positions_layout": ((4, 2, 2), (3, 5, 3, 4), {"dimension_numbers": ("NCHW", "HOWI", "NWHC")}),
    "few_positions_one_axis": ((3, 5), (3, 5, 4), {"dimension_numbers": ("NWC", "WIO", "NWC")}),
    "nchw": ((2, 5, 4), (3, 2, 3, 2), {"dimension_numbers": ("NCHW", "OIHW", "NCHW")}),
    "nchw_grouped": (
        (4, 5, 4),
        (6, 2, 3, 2),
        {"dimension_numbers": ("NCHW", "OIHW", "NCHW"), "feature_group_count": 2},
    ),
    "mixed_layout": ((2, 5, 4), (3, 2, 2, 3), {"dimension_numbers": ("NCHW", "HWIO", "NHWC")}),
    "strange_layout": ((5, 2, 4), (2, 3, 3, 2), {"dimension_numbers": ("NHCW", "IHOW", "NWCH")}),
    "one_axis": ((6, 2), (3, 2, 3), {"dimension_numbers": ("NWC", "WIO", "NWC")}),
    "one_axis_causal": (
        (6, 2),
        (3, 2, 3),
        {"dimension_numbers": ("NWC", "WIO", "NWC"), "padding": ((4, 0),), "rhs_dilation": (2,)},
    ),
    "one_axis_depthwise": (
        (6, 3),
        (3, 1, 3),
        {"dimension_numbers": ("NWC", "WIO", "NWC"), "feature_group_count": 3, "padding": ((2, 0),)},
    ),
    "three_axes": ((3, 4, 3, 2), (2, 3, 2, 2, 3), {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC")}),
    "three_axes_strided": (
        (4, 4, 3, 2),
        (2, 3, 2, 2, 3),
        {"dimension_numbers": ("NDHWC", "DHWIO", "NDHWC"), "window_strides": (2, 1, 2), "padding": "VALID"},
    ),
    "no_axes": ((4,), (4, 3), {"dimension_numbers": ("NC", "IO", "NC"), "window_strides": ()}),
}


def convolve(x: jax.Array, w: jax.Array, **kwargs: Any) -> jax.Array:
    defaults = {"window_strides": (1,) * (w.ndim - 2), "padding": "SAME"}
    defaults["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, w, **{**defaults, **kwargs})


for _name, (_image, _kernel, _kwargs) in CONVOLUTIONS.items():
    add_layer(
        f"conv_{_name}",
        lambda w, x, kwargs=_kwargs: jnp.tanh(convolve(x[None], w, **kwargs)),
        _kernel,
        _image,
    )


def _flattened(w, x):
    patches = lax.conv_general_dilated_patches(
        x[None], (2, 2), (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    return jnp.tanh(patches @ w)


CONVOLUTION_USES: dict[
    str, tuple[Callable[[jax.Array, jax.Array], jax.Array], tuple[int, ...], tuple[int, ...], str]
] = {
    "several_images": (lambda w, x: jnp.tanh(convolve(x, w)), (3, 3, 2, 3), (3, 4, 4, 2), FAST),
    "several_images_last_axis": (
        lambda w, x: jnp.tanh(convolve(x, w, dimension_numbers=("HWCN", "HWIO", "HWCN"))),
        (3, 3, 2, 3),
        (4, 4, 2, 3),
        FAST,
    ),
    "batch_groups": (lambda w, x: jnp.tanh(convolve(x, w, batch_group_count=2)), (3, 3, 2, 4), (4, 4, 4, 2), ANY),
    "several_images_few_positions": (lambda w, x: jnp.tanh(convolve(x, w)), (3, 3, 5, 6), (2, 2, 2, 5), FAST),
    "same_kernel_in_a_row_few_positions": (
        lambda w, x: convolve(jnp.tanh(convolve(x[None], w)), w),
        (3, 3, 6, 6),
        (2, 2, 6),
        FAST,
    ),
    "vmap_images": (
        lambda w, x: jax.vmap(lambda image: jnp.tanh(convolve(image[None], w)))(x),
        (3, 3, 2, 3),
        (3, 4, 4, 2),
        FAST,
    ),
    "vmap_kernels": (
        lambda w, x: jax.vmap(lambda v: jnp.tanh(convolve(x[None], v)))(w),
        (2, 3, 3, 2, 3),
        (4, 4, 2),
        ANY,
    ),
    "vmap_both": (
        lambda w, x: jax.vmap(lambda v, image: jnp.tanh(convolve(image[None], v)))(w, x),
        (3, 3, 3, 2, 3),
        (3, 4, 4, 2),
        ANY,
    ),
    "transposed": (
        lambda w, x: jnp.tanh(
            lax.conv_transpose(x[None], w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        ),
        (3, 3, 2, 3),
        (3, 3, 2),
        FAST,
    ),
    "transposed_kernel": (
        lambda w, x: jnp.tanh(
            lax.conv_transpose(
                x[None], w, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"), transpose_kernel=True
            )
        ),
        (3, 3, 3, 2),
        (3, 3, 2),
        ANY,
    ),
    "flipped_kernel": (lambda w, x: jnp.tanh(convolve(x[None], w[::-1, ::-1])), (3, 3, 2, 3), (5, 5, 2), ANY),
    "standardised_kernel": (
        lambda w, x: jnp.tanh(convolve(x[None], (w - w.mean((0, 1, 2))) / jnp.sqrt(w.var((0, 1, 2)) + 1e-4))),
        (3, 3, 2, 3),
        (5, 5, 2),
        ANY,
    ),
    "weight_as_image": (
        # A learned template, matched with a kernel that comes from the example.
        lambda w, x: jnp.tanh(convolve(w[None], x, padding="VALID")),
        (5, 5, 2),
        (3, 3, 2, 2),
        ANY,
    ),
    "same_kernel_on_two_scales": (
        lambda w, x: jnp.concatenate([jnp.tanh(convolve(y[None], w)).mean((1, 2)) for y in (x, x[::2, ::2])]),
        (3, 3, 2, 3),
        (6, 6, 2),
        FAST,
    ),
    "same_kernel_in_a_row": (
        lambda w, x: convolve(jnp.tanh(convolve(x[None], w)), w),
        (3, 3, 2, 2),
        (5, 5, 2),
        FAST,
    ),
    "circular": (
        lambda w, x: jnp.tanh(convolve(jnp.pad(x, ((1, 1), (1, 1), (0, 0)), mode="wrap")[None], w, padding="VALID")),
        (3, 3, 2, 3),
        (4, 4, 2),
        FAST,
    ),
    "patches_then_dense": (_flattened, (8, 3), (4, 4, 2), FAST),
    "remat": (jax.checkpoint(lambda w, x: jnp.tanh(convolve(x[None], w))), (3, 3, 2, 3), (4, 4, 2), FAST),
    "in_scan": (
        lambda w, x: lax.scan(lambda h, _: (jnp.tanh(convolve(h, w)), None), x[None], None, length=2)[0],
        (3, 3, 2, 2),
        (4, 4, 2),
        gradient("scan"),
    ),
}
for _name, (_layer, _weight, _example, _family) in CONVOLUTION_USES.items():
    add_layer(f"conv_{_name}", _layer, _weight, _example, _family)


@case
def conv_bias_channels_first() -> Problem:
    def loss(params, x):
        out = convolve(x[None], params["w"], dimension_numbers=("NCHW", "OIHW", "NCHW"))
        return score(jnp.tanh(out + params["b"][:, None, None]))

    return Problem(loss, normals(w=(3, 2, 3, 3), b=(3,)), examples(2, 4, 4), {"w": FAST, "b": FAST})


@case
def conv_pool_conv_pool() -> Problem:
    def loss(params, x):
        x = jax.nn.relu(convolve(x[None], params["first"]) + params["bias"])
        x = lax.reduce_window(x, -jnp.inf, lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID")
        x = jnp.tanh(convolve(x, params["second"]))
        x = lax.reduce_window(x, 0.0, lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9
        return score(x.mean((0, 1, 2)) @ params["head"])

    params = normals(first=(3, 3, 2, 3), bias=(3,), second=(3, 3, 3, 2), head=(2, 3))
    return Problem(loss, params, examples(6, 6, 2), {"first": FAST, "second": FAST, "head": FAST, "bias": FAST})


@case
def conv_residual_block() -> Problem:
    """The same activations enter a convolution and a shortcut of another stride, and join again."""

    def loss(params, x):
        x = x[None]
        branch = convolve(jax.nn.relu(convolve(x, params["a"], window_strides=(2, 2))), params["b"])
        return score(jnp.tanh(branch + convolve(x, params["shortcut"], window_strides=(2, 2))))

    params = normals(a=(3, 3, 2, 3), b=(3, 3, 3, 3), shortcut=(1, 1, 2, 3))
    return Problem(loss, params, examples(5, 5, 2), {".": FAST})


# Norms.


def _standardise(x: jax.Array, axes: Any = -1) -> jax.Array:
    return (x - x.mean(axes, keepdims=True)) * lax.rsqrt(x.var(axes, keepdims=True) + 1e-5)


NORMS: dict[str, tuple[Callable[[dict, jax.Array], jax.Array], tuple[int, ...], str]] = {
    "layer_norm": (lambda p, x: _standardise(x) * p["scale"] + p["shift"], (3, 4), FAST),
    "layer_norm_one_token": (lambda p, x: _standardise(x) * p["scale"] + p["shift"], (4,), ANY),
    "layer_norm_of_image": (lambda p, x: _standardise(x, (0, 1, 2)) * p["scale"] + p["shift"], (3, 3, 4), FAST),
    "group_norm": (
        lambda p, x: _standardise(x.reshape(3, 3, 2, 2), (0, 1, 3)).reshape(x.shape) * p["scale"] + p["shift"],
        (3, 3, 4),
        FAST,
    ),
    "instance_norm": (lambda p, x: _standardise(x, (0, 1)) * p["scale"] + p["shift"], (3, 3, 4), FAST),
    "rms_norm": (
        lambda p, x: x * lax.rsqrt(jnp.mean(x**2, -1, keepdims=True) + 1e-6) * (1 + p["scale"]) + p["shift"],
        (3, 4),
        FAST,
    ),
    "norm_with_dense_before": (
        lambda p, x: _standardise(x @ (p["scale"][:, None] * jnp.eye(4) + 0.3)) + p["shift"],
        (3, 4),
        ANY,
    ),
}


def _norm_problem(norm: Callable, shape: tuple[int, ...], family: str) -> Problem:
    params = {"scale": 1 + normal(0, 4, scale=0.2), "shift": normal(1, 4, scale=0.5)}
    target = normal(2, 4)

    def loss(params, x):
        return score(jnp.tanh(norm(params, x)) * target)

    return Problem(loss, params, examples(*shape), {"scale": family, "shift": family})


for _name, (_norm, _shape, _family) in NORMS.items():
    add(_name, functools.partial(_norm_problem, _norm, _shape, _family))


# Embeddings: a table of 7 rows, ids of every kind; the loss sees the rows through a nonlinearity.

_IDS = np.array([[0, 3, 3], [6, 1, 2], [-1, 0, -7], [9, 5, -9], [2, 2, 2]], np.int32)  # some are no rows of the table
_INSIDE = np.clip(_IDS, 0, 6)

EMBEDDINGS: dict[str, tuple[Callable[[jax.Array, jax.Array], jax.Array], tuple[int, ...], np.ndarray, str]] = {
    "index": (lambda t, i: t[i], (7, 4), _INSIDE, FAST),
    "index_outside": (lambda t, i: t[i], (7, 4), _IDS, FAST),
    "take_fill": (lambda t, i: jnp.take(t, i, axis=0, mode="fill", fill_value=0), (7, 4), _IDS, FAST),
    "take_clip": (lambda t, i: jnp.take(t, i, axis=0, mode="clip"), (7, 4), _IDS, FAST),
    "take_wrap": (lambda t, i: jnp.take(t, i, axis=0, mode="wrap"), (7, 4), _IDS, FAST),
    "take_inside": (lambda t, i: jnp.take(t, i, axis=0), (7, 4), _INSIDE, FAST),
    "get_promise": (lambda t, i: t.at[i].get(mode="promise_in_bounds"), (7, 4), _INSIDE, FAST),
    "get_unique": (
        lambda t, i: t.at[i].get(unique_indices=True, indices_are_sorted=True),
        (7, 4),
        np.array([[0, 3, 4], [1, 2, 6], [0, 1, 2], [4, 5, 6], [2, 3, 5]], np.int32),
        FAST,
    ),
    "one_hot": (lambda t, i: jax.nn.one_hot(i, 7) @ t, (7, 4), _IDS, FAST),
    "two_axes_of_ids": (lambda t, i: t[i.reshape(3, 1) + np.arange(2)], (8, 4), _INSIDE, FAST),
    "one_id": (lambda t, i: t[i], (7, 4), _INSIDE[:, 0], FAST),
    "dynamic_index": (lambda t, i: lax.dynamic_index_in_dim(t, i, keepdims=False), (7, 4), _INSIDE[:, 0], ANY),
    "columns": (lambda t, i: t[:, i], (4, 7), _INSIDE, FAST),
    "take_columns": (lambda t, i: jnp.take(t, i, axis=1), (4, 7), _INSIDE, FAST),
    "bag": (lambda t, i: t[i].sum(0), (7, 4), _INSIDE, FAST),
    "bag_repeated_ids_weighted": (lambda t, i: jnp.arange(1.0, 4) @ t[i], (7, 4), _INSIDE, FAST),
    "scaled": (lambda t, i: np.sqrt(4) * t[i], (7, 4), _INSIDE, FAST),
    "one_number_an_id": (lambda t, i: t[i], (7,), _INSIDE, FAST),
    "blocks": (lambda t, i: t[i], (7, 2, 3), _INSIDE, FAST),
    "pairs_of_ids": (lambda t, i: t[i[:2], i[1:]], (7, 7), _INSIDE, ANY),
    "pairs_of_ids_with_rest": (lambda t, i: t[i[:2], i[1:]], (7, 7, 2), _INSIDE, ANY),
    "relative_positions": (lambda t, i: t[:, np.arange(3)[:, None] - np.arange(3) + 2] * i, (2, 5), _INSIDE, ANY),
    "constant_positions": (lambda t, i: t[np.arange(3)] * i[:, None], (7, 4), 1 + _INSIDE, ANY),
    "two_lookups": (lambda t, i: jnp.tanh(t[i]) * t[i[::-1]], (7, 4), _INSIDE, FAST),
    "two_lookups_of_unlike_length": (lambda t, i: jnp.tanh(t[i]) * t[i[:1]], (7, 4), _INSIDE, FAST),
    "lookup_and_one_hot": (lambda t, i: jnp.tanh(t[i]) * (jax.nn.one_hot(i, 7) @ t), (7, 4), _INSIDE, ANY),
    "of_normalised_table": (lambda t, i: (t / jnp.linalg.norm(t, axis=1, keepdims=True))[i], (7, 4), _INSIDE, ANY),
    "sliced": (lambda t, i: lax.dynamic_slice(t, (i[0], 0), (2, 4)), (7, 4), _IDS, ANY),
    "vmap_ids": (lambda t, i: jax.vmap(lambda one: t[one])(i), (7, 4), _INSIDE, FAST),
    "take_along_axis": (lambda t, i: jnp.take_along_axis(t, i[:, None], axis=0), (7, 4), _INSIDE, ANY),
    "under_remat": (jax.checkpoint(lambda t, i: jnp.tanh(t[i])), (7, 4), _INSIDE, FAST),
}


def _embedding_problem(lookup: Callable, table: tuple[int, ...], ids: np.ndarray, family: str) -> Problem:
    def loss(params, i):
        return score(jnp.tanh(lookup(params["table"], i)))

    return Problem(loss, {"table": normal(0, *table)}, jnp.asarray(ids), {"table": family})


for _name, (_lookup, _table, _ids, _family) in EMBEDDINGS.items():
    add(f"embedding_{_name}", functools.partial(_embedding_problem, _lookup, _table, _ids, _family))


@case
def embedding_factorisation() -> Problem:
    def loss(params, example):
        user, item = params["users"][example["user"]], params["items"][example["item"]]
        return score(user @ item + params["bias"][example["item"]])

    batch = {"user": labels(4), "item": jnp.asarray([2, 0, 2, 5, 1])}
    return Problem(loss, normals(users=(4, 3), items=(6, 3), bias=(6,)), batch, {"users": FAST, "items": FAST})


@case
def embedding_codebook() -> Problem:
    """Vector quantisation: the nearest code, straight through, and a pull of the codes."""

    def loss(params, x):
        encoded = jnp.tanh(x @ params["w"])
        distances = jnp.sum((encoded[:, None] - params["codes"]) ** 2, -1)
        chosen = params["codes"][jnp.argmin(distances, -1)]
        through = encoded + lax.stop_gradient(chosen - encoded)
        pull = jnp.sum((lax.stop_gradient(encoded) - chosen) ** 2)
        return score(through @ params["head"]) + pull

    params = normals(w=(6, 3), codes=(5, 3), head=(3, 2))
    return Problem(loss, params, examples(4, 6), {"w": FAST, "codes": ANY, "head": FAST}, step=0.5)


@case
def embedding_row_chosen_by_parameters() -> Problem:
    """Rows that change along a path: the same position looks up another row."""

    def loss(params, x):
        return score(jnp.tanh(params["table"][jnp.argmax(x @ params["gate"])] * x.sum()))

    expected = {"table": FAST, "gate": UNUSED}
    return Problem(loss, normals(table=(7, 4), gate=(6, 7)), examples(6), expected, step=1.0, silent="gate")


# Attention and transformers.


def _attend(q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """Causal attention of tokens (T, heads, k)."""
    scores = jnp.einsum("qhk,thk->hqt", q, k) / np.sqrt(q.shape[-1])
    scores = jnp.where(np.tril(np.ones(scores.shape[1:], bool)), scores, -1e9)
    return jnp.einsum("hqt,thk->qhk", jax.nn.softmax(scores), v)


@case
def attention() -> Problem:
    def loss(params, x):
        q, k, v = (jnp.einsum("td,dhk->thk", x, params[name]) for name in "qkv")
        return score(jnp.einsum("thk,hkd->td", _attend(q, k, v), params["out"]))

    params = normals(q=(4, 2, 3), k=(4, 2, 3), v=(4, 2, 3), out=(2, 3, 4))
    return Problem(loss, params, examples(4, 4), {".": FAST})


@case
def attention_fused_projection() -> Problem:
    def loss(params, x):
        q, k, v = (part.reshape(4, 2, 2) for part in jnp.split(x @ params["qkv"] + params["bias"], 3, axis=-1))
        return score(_attend(q, k, v).reshape(4, 4) @ params["out"])

    params = normals(qkv=(4, 12), bias=(12,), out=(4, 4))
    return Problem(loss, params, examples(4, 4), {"qkv": FAST, "out": FAST, "bias": ANY})


@case
def attention_weight_split_before_use() -> Problem:
    def loss(params, x):
        q, k, v = ((x @ part).reshape(4, 2, 2) for part in jnp.split(params["qkv"], 3, axis=-1))
        return score(_attend(q, k, v).reshape(4, 4) @ params["out"])

    return Problem(loss, normals(qkv=(4, 12), out=(4, 4)), examples(4, 4), {"qkv": ANY, "out": FAST})


@case
def attention_of_learned_queries() -> Problem:
    def loss(params, x):
        scores = (params["latents"] @ params["q"]) @ (x @ params["k"]).T
        return score(jax.nn.softmax(scores) @ (x @ params["v"]))

    params = normals(latents=(2, 4), q=(4, 3), k=(4, 3), v=(4, 3))
    return Problem(loss, params, examples(5, 4), {"latents": ANY, "q|k|v": FAST})


@case
def attention_builtin() -> Problem:
    def loss(params, x):
        q, k, v = (jnp.einsum("td,dhk->thk", x, params[name])[None] for name in "qkv")
        return score(jax.nn.dot_product_attention(q, k, v, is_causal=True)[0])

    return Problem(loss, normals(q=(4, 2, 3), k=(4, 2, 3), v=(4, 2, 3)), examples(4, 4), {".": FAST})


@case
def stacked_layers_by_index() -> Problem:
    def loss(params, x):
        for layer in range(3):
            x = x + jnp.tanh(x @ params["w"][layer] + params["b"][layer])
        return score(x)

    return Problem(loss, normals(w=(3, 4, 4), b=(3, 4)), examples(3, 4), {".": ANY})


@case
def experts_by_gate() -> Problem:
    """A mixture of experts: batched products, a softmax gate of the two best."""

    def loss(params, x):
        gate, kept = lax.top_k(x @ params["gate"], 2)
        out = jnp.einsum("tef,efd->ted", jnp.tanh(jnp.einsum("td,edf->tef", x, params["up"])), params["down"])
        return score(jnp.einsum("tk,tkd->td", jax.nn.softmax(gate), jnp.take_along_axis(out, kept[..., None], 1)))

    params = normals(gate=(4, 3), up=(3, 4, 5), down=(3, 5, 4))
    return Problem(loss, params, examples(4, 4), {"gate": FAST, "up": FAST, "down": FAST})


def _transformer(tied: bool) -> Problem:
    width, heads, vocabulary, length = 4, 2, 6, 4
    shapes = {"scale": (width,), "shift": (width,), "qkv": (width, 3, heads, 2), "out": (heads, 2, width)}
    shapes |= {"scale_2": (width,), "shift_2": (width,), "up": (width, 6), "bias": (6,), "down": (6, width)}
    layers = [{name: normal(10 * i + j, *s, scale=0.5) for j, (name, s) in enumerate(shapes.items())} for i in range(2)]
    params = {"table": normal(90, vocabulary, width), "positions": normal(91, length, width), "layers": layers}
    if not tied:
        params["head"] = normal(92, vocabulary, width)

    def block(p, x):
        q, k, v = jnp.einsum("td,dchk->cthk", _standardise(x) * (1 + p["scale"]) + p["shift"], p["qkv"])
        x = x + jnp.einsum("thk,hkd->td", _attend(q, k, v), p["out"])
        hidden = jax.nn.gelu((_standardise(x) * (1 + p["scale_2"]) + p["shift_2"]) @ p["up"] + p["bias"])
        return x + hidden @ p["down"]

    def loss(params, example):
        x = params["table"][example["x"]] + params["positions"]
        for p in params["layers"]:
            x = block(p, x)
        logits = _standardise(x) @ params["table" if tied else "head"].T
        return cross_entropy(logits, example["y"])

    ids = labels(vocabulary, length + 1)
    expected = {"table": ANY if tied else FAST, "head|qkv|out|up|down|scale|shift|bias": FAST, "positions": ANY}
    if tied:
        expected["qkv|out|up|down|scale|shift|bias"] = expected.pop("head|qkv|out|up|down|scale|shift|bias")
    return Problem(loss, params, {"x": ids[:, :-1], "y": ids[:, 1:]}, expected)


add("transformer_tied", functools.partial(_transformer, tied=True))
add("transformer_untied", functools.partial(_transformer, tied=False))


# Half precision: as exact as its rounding, which is that of the inputs of every product.


@case
def bfloat16_compute() -> Problem:
    def loss(params, x):
        w, v = (params[name].astype(jnp.bfloat16) for name in "wv")
        hidden = jnp.tanh(x.astype(jnp.bfloat16) @ w)
        return score((hidden @ v).astype(jnp.float32) + params["b"])

    params = normals(w=(6, 4), v=(4, 2), b=(2,))
    return Problem(loss, params, examples(3, 6), {"w": FAST, "v": FAST, "b": FAST}, eps=EPS16, step=0.5)


@case
def bfloat16_params() -> Problem:
    def loss(params, x):
        hidden = jnp.tanh(x @ params["w"].astype(jnp.float32))
        return score(hidden @ params["v"])

    params = normals(w=(6, 4), v=(4, 2))
    params["w"] = params["w"].astype(jnp.bfloat16)
    return Problem(loss, params, examples(3, 6), {"w": FAST, "v": FAST}, eps=EPS16, step=0.5)


@case
def bfloat16_conv() -> Problem:
    def loss(params, x):
        out = convolve(x[None].astype(jnp.bfloat16), params["w"].astype(jnp.bfloat16))
        return score(jnp.tanh(out.astype(jnp.float32)))

    return Problem(loss, normals(w=(3, 3, 2, 3)), examples(4, 4, 2), {"w": FAST}, eps=EPS16, step=0.5)


@case
def float16_with_float32_accumulation() -> Problem:
    def loss(params, x):
        w = params["w"].astype(jnp.float16)
        return score(jnp.tanh(jnp.matmul(x.astype(jnp.float16), w, preferred_element_type=jnp.float32)))

    return Problem(loss, normals(w=(6, 4)), examples(3, 6), {"w": FAST}, eps=2.0**-10, step=0.2)


# Parameters of every kind.


class _Pair(NamedTuple):
    w: jax.Array
    rest: list


@case
def params_named_tuple_list_and_none() -> Problem:
    def loss(params, x):
        v, nothing, (b, c) = params.rest
        return score(jnp.tanh(x @ params.w) @ v + (b if nothing is None else 0) * c)

    rest = [normal(1, 4, 2), None, (normal(2, 2), normal(3))]
    return Problem(loss, _Pair(normal(0, 6, 4), rest), examples(3, 6), {r"\.w": FAST, r"rest\[0\]": FAST})


@case
def params_with_integers_and_keys() -> Problem:
    def loss(params, x):
        noise = jax.random.normal(params["key"], (4,)) + jax.random.normal(
            jax.random.wrap_key_data(params["raw"]), (4,)
        )
        return score(jnp.tanh(x @ params["w"] + noise) * params["count"] * params["flag"])

    others = {"key": jax.random.key(0), "raw": jax.random.key_data(jax.random.key(1)), "count": jnp.asarray(3)}
    return Problem(loss, {**normals(w=(6, 4)), **others, "flag": True}, examples(3, 6), {"w": FAST})


@case
def params_python_and_numpy() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(x @ params["w"]) * params["scale"])

    params = {"w": np.asarray(normal(0, 6, 4)), "scale": 1.5}
    return Problem(loss, params, examples(3, 6), {"w": FAST, "scale": ANY})


@case
def params_predicate_wrt() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(x @ params["w"]) * params["mean"] + params["b"])

    params = normals(w=(6, 4), mean=(4,), b=(4,))
    return Problem(
        loss, params, examples(3, 6), {"w": FAST, "b": FAST}, wrt=lambda path, leaf: path[0].key in ("w", "b")
    )


@case
def params_partly_unused() -> Problem:
    def loss(params, x):
        stopped = lax.stop_gradient(params["stopped"])
        compared = jnp.where(params["compared"] > 0, 1.0, 2.0)
        return score(jnp.tanh(x @ params["w"]) * stopped * compared)

    params = normals(w=(6, 4), stopped=(4,), compared=(4,), unused=(3, 2), scalar=())
    expected = {"w": FAST, "unused|stopped|compared|scalar": UNUSED}
    return Problem(loss, params, examples(3, 6), expected, silent="unused|stopped|compared|scalar")


@case
def params_of_size_zero_and_one() -> Problem:
    def loss(params, x):
        hidden = jnp.concatenate([x @ params["w"], x @ params["empty"]], axis=1)
        return score(jnp.tanh(hidden * params["one"]))

    params = {**normals(w=(6, 4)), "empty": jnp.zeros((6, 0)), "one": jnp.ones((1, 1, 1))}
    return Problem(loss, params, examples(3, 6), {"w": FAST, "one": ANY, "empty": UNUSED}, silent="empty")


@case
def params_same_array_twice() -> Problem:
    def loss(params, x):
        return score(jnp.tanh(jnp.tanh(x @ params["a"]) @ params["b"]))

    w = normal(0, 6, 6, scale=0.5)
    return Problem(loss, {"a": w, "b": w}, examples(3, 6), {".": FAST})


def _partial_loss(scale, basis, params, x):
    return score(jnp.tanh(x @ basis @ params["w"]) * scale)


@case
def loss_is_a_partial() -> Problem:
    loss = jax.tree_util.Partial(_partial_loss, jnp.asarray(2.0), normal(9, 6, 5))
    return Problem(loss, normals(w=(5, 4)), examples(3, 6), {"w": FAST})


class _Loss(eqx.Module):
    basis: jax.Array
    power: int

    def __call__(self, params, x):
        return score(jnp.tanh(x @ self.basis @ params["w"]) ** self.power)


@case
def loss_is_a_module() -> Problem:
    return Problem(_Loss(normal(9, 6, 5), 2), normals(w=(5, 4)), examples(3, 6), {"w": FAST})


@case
def loss_under_jit() -> Problem:
    @jax.jit
    def loss(params, x):
        return score(jnp.tanh(x @ params["w"] + params["b"]))

    return Problem(loss, normals(w=(6, 4), b=(4,)), examples(3, 6), {"w": FAST, "b": FAST})


@case
def loss_under_remat() -> Problem:
    @jax.checkpoint
    def loss(params, x):
        return score(jnp.tanh(jnp.tanh(x @ params["w"]) @ params["v"]))

    return Problem(loss, normals(w=(6, 4), v=(4, 2)), examples(3, 6), {".": FAST})


@case
def loss_with_custom_vjp() -> Problem:
    @jax.custom_vjp
    def loss(params, x):
        return score(x @ params["w"])

    def forward(params, x):
        return loss(params, x), (params, x)

    def backward(kept, cotangent):
        params, x = kept
        return {"w": cotangent * (x.T @ jnp.sign(x @ params["w"] - 0.3) + params["w"])}, None

    loss.defvjp(forward, backward)
    return Problem(loss, normals(w=(6, 4)), examples(3, 6), {"w": ANY})


# Models of flax linen, flax nnx and equinox, as users write them.


def _linen_problem(model: linen.Module, shape: tuple[int, ...], expected: dict[str, str], **kwargs: Any) -> Problem:
    batch = {"x": examples(*shape), "y": labels(3)}
    params = jax.jit(model.init)(jax.random.key(0), batch["x"][0])

    def loss(params, example):
        return cross_entropy(model.apply(params, example["x"]), example["y"])

    return Problem(loss, params, batch, expected, **kwargs)


class _LinenCNN(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.relu(linen.Conv(3, (3, 3), strides=2)(x))
        x = linen.avg_pool(linen.relu(linen.Conv(4, (3, 3), feature_group_count=1)(x)), (2, 2))
        x = linen.GroupNorm(num_groups=2)(x[None])[0]
        return linen.Dense(3)(x.mean((0, 1)))


class _LinenLSTM(linen.Module):
    @linen.compact
    def __call__(self, x):
        return linen.Dense(3)(linen.RNN(linen.OptimizedLSTMCell(4))(x)[-1])


class _LinenAttention(linen.Module):
    @linen.compact
    def __call__(self, x):
        x = linen.LayerNorm()(x)
        x = x + linen.MultiHeadDotProductAttention(num_heads=2)(x)
        return linen.Dense(3)(linen.LayerNorm()(x).mean(0))


add(
    "linen_mlp",
    lambda: _linen_problem(linen.Sequential([linen.Dense(5), linen.relu, linen.Dense(3)]), (4,), {"kernel": FAST}),
)
add("linen_cnn", lambda: _linen_problem(_LinenCNN(), (8, 8, 2), {"kernel": FAST, "Conv.*bias": FAST}))
add(
    "linen_lstm",
    lambda: _linen_problem(_LinenLSTM(), (3, 2), {"Cell.*kernel": gradient("scan"), "Dense_0.*kernel": FAST}),
)
add("linen_attention", lambda: _linen_problem(_LinenAttention(), (3, 4), {"kernel": FAST}, silent="key.*bias"))


def _nnx_problem(
    build: Callable[[nnx.Rngs], nnx.Module], shape: tuple[int, ...], expected: dict[str, str], **kwargs: Any
) -> Problem:
    adapted = adapt(build(nnx.Rngs(0)), "cross_entropy")
    batch = {"x": examples(*shape), "y": labels(3)}
    return Problem(adapted.loss_fn, adapted.params, batch, expected, wrt=adapted.wrt, **kwargs)


class _NnxAttention(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.norm = nnx.LayerNorm(4, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
        self.head = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x):
        return self.head((x + self.attention(self.norm(x))).mean(1))


class _NnxConv(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.down = nnx.Conv(2, 4, (3, 3), strides=2, rngs=rngs)
        self.depthwise = nnx.Conv(4, 4, (3, 3), feature_group_count=4, rngs=rngs)
        self.up = nnx.ConvTranspose(4, 3, (2, 2), strides=(2, 2), rngs=rngs)
        self.circular = nnx.Conv(3, 3, (3,), kernel_dilation=2, padding="CIRCULAR", rngs=rngs)

    def __call__(self, x):
        x = self.up(nnx.relu(self.depthwise(nnx.relu(self.down(x)))))
        return self.circular(nnx.max_pool(jnp.tanh(x), (2, 2), (2, 2)).mean(1)).mean(1)


class _NnxRecurrent(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.rnn = nnx.RNN(nnx.LSTMCell(2, 3, rngs=rngs))
        self.head = nnx.Linear(3, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.rnn(x)[:, -1])


class _NnxMLP(nnx.Module):
    def __init__(self, rngs: nnx.Rngs):
        self.first, self.norm = nnx.Linear(4, 6, rngs=rngs), nnx.LayerNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)

    def __call__(self, x):
        return self.head(self.dropout(nnx.gelu(self.norm(self.first(x)))))


add("nnx_mlp", lambda: _nnx_problem(_NnxMLP, (4,), {"kernel": FAST}))
add("nnx_conv", lambda: _nnx_problem(_NnxConv, (6, 6, 2), {"kernel": FAST, "up.*bias": FAST}))
add("nnx_attention", lambda: _nnx_problem(_NnxAttention, (3, 4), {"kernel": FAST}, silent="key.*bias"))
add("nnx_lstm", lambda: _nnx_problem(_NnxRecurrent, (3, 2), {"rnn.*kernel": gradient("scan"), "head.*kernel": FAST}))


def _equinox_problem(model: eqx.Module, inputs: jax.Array, expected: dict[str, str], **kwargs: Any) -> Problem:
    params, static = eqx.partition(model, eqx.is_inexact_array)

    def loss(params, x):
        return score(jnp.tanh(eqx.combine(params, static)(x)))

    return Problem(loss, params, inputs, expected, **kwargs)


class _EquinoxAttention(eqx.Module):
    norm: eqx.nn.LayerNorm
    attention: eqx.nn.MultiheadAttention

    def __call__(self, x):
        x = jax.vmap(self.norm)(x)
        return x + self.attention(x, x, x)


class _EquinoxText(eqx.Module):
    table: eqx.nn.Embedding
    cell: eqx.nn.GRUCell
    head: eqx.nn.Linear

    def __call__(self, ids):
        state = jnp.zeros(3)
        state, _ = lax.scan(lambda h, token: (self.cell(token, h), None), state, jax.vmap(self.table)(ids))
        return self.head(state)


def _equinox_key(index: int) -> jax.Array:
    return jax.random.key(index)


EQUINOX: dict[str, Callable[[], Problem]] = {
    "mlp": lambda: _equinox_problem(
        eqx.nn.MLP(4, 3, width_size=5, depth=1, key=_equinox_key(0)), examples(4), {"weight": FAST}
    ),
    "conv": lambda: _equinox_problem(
        eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(2, 4, 3, stride=2, padding=1, groups=2, key=_equinox_key(0)),
                eqx.nn.MaxPool2d(2),
                eqx.nn.GroupNorm(2, 4),
                eqx.nn.ConvTranspose2d(4, 3, 2, stride=2, key=_equinox_key(1)),
            ]
        ),
        examples(2, 6, 6),
        {r"\[0\]\.weight|\[3\]\.weight": FAST, r"\[0\]\.bias|\[3\]\.bias": FAST},
    ),
    "attention": lambda: _equinox_problem(
        _EquinoxAttention(eqx.nn.LayerNorm(4), eqx.nn.MultiheadAttention(2, 4, use_key_bias=True, key=_equinox_key(0))),
        examples(3, 4),
        {"proj.weight": FAST, "norm": FAST},
        silent="key_proj.bias",
    ),
    "embedding": lambda: _equinox_problem(
        _EquinoxText(
            eqx.nn.Embedding(6, 2, key=_equinox_key(0)),
            eqx.nn.GRUCell(2, 3, key=_equinox_key(1)),
            eqx.nn.Linear(3, 2, key=_equinox_key(2)),
        ),
        labels(6, 3),
        {"cell.weight": gradient("scan"), "head.weight": FAST, "table": FAST},
    ),
}
for _name, _build in EQUINOX.items():
    add(f"equinox_{_name}", _build)


# Every model of the zoo with every norm.


def _zoo_problem(spec: ModelSpec, shape: tuple[int, ...]) -> Problem:
    adapted = adapt(build_model(spec, shape, 3, seed=0), "cross_entropy")
    batch = {"x": examples(*shape), "y": labels(3)}
    # Twenty layers deep, on four channels: a norm divides by the spread of four numbers, which may be small. One late
    # bias moves the Gram matrix by less than such rounding.
    extra = {"eps": 4 * EPS32, "silent": "bias|scale"} if spec.name == "resnet18" else {}
    return Problem(adapted.loss_fn, adapted.params, batch, {"kernel": FAST}, wrt=adapted.wrt, **extra)


for _norm in ("none", "layer", "group", "batch"):
    for _spec, _shape in (
        (ModelSpec("ffn", widths=(8, 8), norm=_norm), (8, 8, 3)),
        (ModelSpec("cnn", widths=(8,), base_width=4, norm=_norm), (8, 8, 3)),
        (ModelSpec("resnet8", base_width=4, norm=_norm), (8, 8, 3)),
        (ModelSpec("resnet18", base_width=4, norm=_norm), (8, 8, 3)),
    ):
        add(f"zoo_{_spec.name}_{_norm}", functools.partial(_zoo_problem, _spec, _shape))
