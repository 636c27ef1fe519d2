"""Flax linen, a TrainState with batch_stats: judged with running averages, gradients with respect to params only."""

from typing import Any

import jax
import numpy as np
import optax
from flax import linen as nn
from flax.training import train_state
from sklearn.datasets import load_digits

from lggwjax.training import Monitor

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
images, labels = load_digits(return_X_y=True)
data = {"x": (images / 16).astype(np.float32), "y": labels}
part = lambda start, stop: jax.tree.map(lambda leaf: leaf[start:stop], data)
train, heldout = part(0, 300), part(300, 1100)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, train):
        x = nn.Dense(64, use_bias=False)(x)  # a bias before the norm does nothing in training, and drifts
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9)(x)
        return nn.Dense(10)(nn.relu(x))


class TrainState(train_state.TrainState):
    batch_stats: Any


def loss_fn(params, example):
    """The loss of one example. With train=True an example would be its own batch, and the norm would mean nothing."""
    return cross_entropy(model.apply(params, example["x"], train=False), example["y"])


@jax.jit
def train_step(state, batch):
    def objective(params):
        variables = {"params": params, "batch_stats": state.batch_stats}
        logits, new = model.apply(variables, batch["x"], train=True, mutable=["batch_stats"])
        return cross_entropy(logits, batch["y"]).mean(), new["batch_stats"]

    gradient, batch_stats = jax.grad(objective, has_aux=True)(state.params)
    return state.apply_gradients(grads=gradient).replace(batch_stats=batch_stats)


model = Net()
start = model.init(jax.random.key(0), train["x"][:1], train=False)
learner = TrainState.create(apply_fn=model.apply, tx=optax.adam(0.003), **start)

# The monitor, in three lines (1 and 2 here, 3 in the loop).
monitor = Monitor(loss_fn, part(0, 64), heldout, every=10, wrt=lambda path, leaf: path[0].key == "params")
state = monitor.init(start)
for step in range(1, 61):
    learner = train_step(learner, train)
    state, report = monitor.observe(state, step, {"params": learner.params, "batch_stats": learner.batch_stats})
    if report is not None:
        print(report)
