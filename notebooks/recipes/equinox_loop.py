"""Equinox: the floating arrays of the model are the parameters, what is left of it is fixed."""

import equinox as eqx
import jax
import numpy as np
import optax
from sklearn.datasets import load_digits

from lggwjax.training import Monitor

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
images, labels = load_digits(return_X_y=True)
data = {"x": (images / 16).astype(np.float32), "y": labels}
part = lambda start, stop: jax.tree.map(lambda leaf: leaf[start:stop], data)
train, heldout = part(0, 300), part(300, 1100)

model = eqx.nn.MLP(64, 10, width_size=64, depth=1, key=jax.random.key(0))
params, static = eqx.partition(model, eqx.is_inexact_array)
optimizer = optax.adam(0.003)
opt_state = optimizer.init(params)


def loss_fn(params, example):
    """The loss of one example."""
    return cross_entropy(eqx.combine(params, static)(example["x"]), example["y"])


@eqx.filter_jit
def train_step(model, opt_state, batch):
    def objective(model):
        return cross_entropy(jax.vmap(model)(batch["x"]), batch["y"]).mean()

    changes, opt_state = optimizer.update(eqx.filter_grad(objective)(model), opt_state)
    return eqx.apply_updates(model, changes), opt_state


# The monitor, in three lines (1 and 2 here, 3 in the loop).
monitor = Monitor(loss_fn, part(0, 64), heldout, every=10)
state = monitor.init(params)
for step in range(1, 61):
    model, opt_state = train_step(model, opt_state, train)
    state, report = monitor.observe(state, step, eqx.filter(model, eqx.is_inexact_array))
    if report is not None:
        print(report)
