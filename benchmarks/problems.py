"""The problems that are measured: a model, its samples and a path of checkpoints, in one ``.npz`` file.

Reading needs numpy alone, so that rivals in torch run without jax. Writing and :func:`in_jax` need jax and flax.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from lggwjax.models import Adapted


@dataclass(frozen=True)
class Problem:
    """What is measured: n samples of normal inputs with random labels, a model of the zoo, T checkpoints of SGD.

    Attributes:
        model: ``ffn`` (ReLU, biases) or ``resnet18`` (group norm), both with cross-entropy.
        num_samples: n.
        input_shape: Shape of one input.
        widths: Hidden widths of the FFN.
        base_width: Channels of the ResNet's first stage.
        num_outputs: Classes.
        num_checkpoints: T, from the initial parameters on, one step of SGD on all n samples apart.
        learning_rate: Of SGD.
    """

    model: str
    num_samples: int
    input_shape: tuple[int, ...]
    widths: tuple[int, ...] | None = None
    base_width: int | None = None
    num_outputs: int = 10
    num_checkpoints: int = 1
    learning_rate: float = 0.1

    def __str__(self) -> str:
        if self.model == "ffn":
            layers = (int(np.prod(self.input_shape)), *(self.widths or ()), self.num_outputs)
            name = f"FFN {'-'.join(map(str, layers))}"
        else:
            name = f"ResNet-18 of base width {self.base_width} on {'x'.join(map(str, self.input_shape))}"
        path = f", T = {self.num_checkpoints}" if self.num_checkpoints > 1 else ""
        return f"{name}, n = {self.num_samples}{path}, float32"


class Arrays(NamedTuple):
    """A problem's file as numpy arrays; ``checkpoints`` are flat dicts from ``a/b/c`` to an array."""

    problem: Problem
    x: np.ndarray
    y: np.ndarray
    checkpoints: list[dict[str, np.ndarray]]


class InJax(NamedTuple):
    """A problem in jax: what the library is called with, and one batched gradient, which is the limit."""

    loss_fn: Callable[[Any, Any], Any]
    path: list[Any]
    batch: dict[str, Any]
    wrt: Callable[[tuple, Any], bool]
    batch_gradient: Callable[[Any], Any]


def read(file: str) -> Arrays:
    """Read a problem's file."""
    with np.load(file) as stored:
        raw = json.loads(str(stored["problem"]))
        tuples = {name: tuple(value) if isinstance(value, list) else value for name, value in raw.items()}
        problem = Problem(**tuples)
        leaves = {name[2:]: stored[name] for name in stored.files if name.startswith("p/")}
        checkpoints = [{name: leaf[t] for name, leaf in leaves.items()} for t in range(problem.num_checkpoints)]
        return Arrays(problem, stored["x"], stored["y"], checkpoints)


def in_jax(file: str) -> InJax:
    """Put a problem's arrays on the device, in the form the library is called with."""
    import jax
    import jax.numpy as jnp

    arrays = read(file)
    adapted = _adapt(arrays.problem)
    path = [_nested(adapted, {k: jnp.asarray(v) for k, v in leaves.items()}) for leaves in arrays.checkpoints]
    batch = {"x": jnp.asarray(arrays.x), "y": jnp.asarray(arrays.y)}
    gradient = _batch_gradient(adapted)
    jax.block_until_ready((path, batch))
    return InJax(adapted.loss_fn, path, batch, adapted.wrt, lambda params: gradient(params, batch))


def write(file: str, problem: Problem) -> int:
    """Make a problem's arrays and write them down.

    Returns:
        p, the number of gradient coordinates.
    """
    import jax
    import optax

    rng = np.random.default_rng(0)
    x = rng.standard_normal((problem.num_samples, *problem.input_shape), dtype=np.float32)
    y = rng.integers(problem.num_outputs, size=problem.num_samples).astype(np.int32)
    adapted = _adapt(problem)
    gradient, optimiser = _batch_gradient(adapted), optax.sgd(problem.learning_rate)
    params = adapted.params["params"]
    state = optimiser.init(params)
    path = []
    for step in range(problem.num_checkpoints):
        if step > 0:
            updates, state = optimiser.update(gradient({**adapted.params, "params": params}, {"x": x, "y": y}), state)
            params = optax.apply_updates(params, updates)
        path.append(jax.device_get(params))
    names = [_name(place) for place, _ in jax.tree_util.tree_flatten_with_path(params)[0]]
    columns = zip(*map(jax.tree.leaves, path), strict=True)
    leaves = {f"p/{name}": np.stack(column) for name, column in zip(names, columns, strict=True)}
    np.savez(file, x=x, y=y, problem=np.array(json.dumps(asdict(problem))), **leaves)
    return sum(leaf[0].size for leaf in leaves.values())


def _adapt(problem: Problem) -> Adapted:
    from lggwjax.models import ModelSpec, adapt, build

    if problem.model == "ffn":
        spec = ModelSpec("ffn", widths=problem.widths)
    else:
        spec = ModelSpec("resnet18", base_width=problem.base_width, norm="group")
    return adapt(build(spec, problem.input_shape, problem.num_outputs, seed=0), "cross_entropy")


def _batch_gradient(adapted: Adapted) -> Callable[[Any, Any], Any]:
    """The jitted gradient of the mean loss, from one forward pass of the whole batch: what one training step costs."""
    import jax

    def mean_loss(params: Any, state: Any, batch: Any) -> Any:
        return adapted.train_fn({"params": params, "state": state}, batch)[0].mean()

    gradient = jax.jit(jax.grad(mean_loss))
    return lambda params, batch: gradient(params["params"], params["state"], batch)


def _name(place: tuple) -> str:
    return "/".join(str(key.key) for key in place)


def _nested(adapted: Adapted, leaves: dict[str, Any]) -> dict[str, Any]:
    import jax

    params = jax.tree_util.tree_map_with_path(lambda place, _: leaves[_name(place)], adapted.params["params"])
    return {**adapted.params, "params": params}


if __name__ == "__main__":  # python -m benchmarks.problems FILE JSON
    given = {k: tuple(v) if isinstance(v, list) else v for k, v in json.loads(sys.argv[2]).items()}
    print(write(str(Path(sys.argv[1])), Problem(**given)))
