"""Frozen layers with LoRA: the frozen weights travel along, the adapters A and B are the gradient coordinates."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
from sklearn.datasets import load_digits

from lggwjax.training import Monitor

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
images, labels = load_digits(return_X_y=True)
data = {"x": (images / 16).astype(np.float32), "y": labels}
part = lambda start, stop: jax.tree.map(lambda leaf: leaf[start:stop], data)
turned = lambda batch: batch | {"x": batch["x"].reshape(-1, 8, 8).swapaxes(1, 2).reshape(-1, 64)}
# The base learns digits as they are; the adapters learn mirrored ones.
pretrain, train, heldout = part(0, 700), turned(part(700, 1000)), turned(part(1000, 1797))


def loss_fn(params, example):
    """The loss of one example, each weight plus B A."""
    weights = [w + ab["B"] @ ab["A"] for w, ab in zip(params["base"], params["lora"], strict=True)]
    return cross_entropy(weights[1] @ jax.nn.relu(weights[0] @ example["x"]), example["y"])


def make_step(name, optimizer):
    """A step on one part of the parameters; the other stays."""

    @jax.jit
    def train_step(params, opt_state, batch):
        def objective(part):
            return jax.vmap(loss_fn, (None, 0))(params | {name: part}, batch).mean()

        changes, opt_state = optimizer.update(jax.grad(objective)(params[name]), opt_state)
        return params | {name: optax.apply_updates(params[name], changes)}, opt_state

    return train_step, optimizer.init


shapes, keys = ((64, 64), (10, 64)), jax.random.split(jax.random.key(0), 4)
base = [jax.random.normal(key, shape) / 8 for key, shape in zip(keys[:2], shapes, strict=True)]
lora = [
    {"A": jax.random.normal(key, (4, columns)) / 8, "B": jnp.zeros((rows, 4))}
    for key, (rows, columns) in zip(keys[2:], shapes, strict=True)
]
params = {"base": base, "lora": lora}
train_step, init = make_step("base", optax.adam(0.003))
opt_state = init(params["base"])
for _ in range(100):
    params, opt_state = train_step(params, opt_state, pretrain)

# The monitor, in three lines (1 and 2 here, 3 in the loop).
probe = jax.tree.map(lambda leaf: leaf[:64], train)
monitor = Monitor(loss_fn, probe, heldout, every=10, wrt=lambda path, leaf: path[0].key == "lora")
state = monitor.init(params)
train_step, init = make_step("lora", optax.adam(0.003))
opt_state = init(params["lora"])
for step in range(1, 61):
    params, opt_state = train_step(params, opt_state, train)
    state, report = monitor.observe(state, step, params)
    if report is not None:
        print(report)
