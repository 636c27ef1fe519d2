"""Dropout: trained with it, judged without. A loss that draws a new mask at each look would judge the mask."""

import jax
import numpy as np
import optax
from flax import linen as nn
from sklearn.datasets import load_digits

from lggwjax.training import Monitor

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
images, labels = load_digits(return_X_y=True)
data = {"x": (images / 16).astype(np.float32), "y": labels}
part = lambda start, stop: jax.tree.map(lambda leaf: leaf[start:stop], data)
train, heldout = part(0, 300), part(300, 1100)


class Net(nn.Module):
    @nn.compact
    def __call__(self, x, deterministic):
        x = nn.Dropout(0.5)(nn.relu(nn.Dense(128)(x)), deterministic=deterministic)
        return nn.Dense(10)(x)


def loss_fn(params, example):
    """The loss of one example, every unit kept: the network that will be used."""
    return cross_entropy(model.apply(params, example["x"], deterministic=True), example["y"])


@jax.jit
def train_step(params, opt_state, key, batch):
    def objective(params):
        logits = model.apply(params, batch["x"], deterministic=False, rngs={"dropout": key})
        return cross_entropy(logits, batch["y"]).mean()

    changes, opt_state = optimizer.update(jax.grad(objective)(params), opt_state)
    return optax.apply_updates(params, changes), opt_state


model, optimizer = Net(), optax.adam(0.003)
params = model.init(jax.random.key(0), train["x"][:1], deterministic=True)
opt_state = optimizer.init(params)

# The monitor, in three lines (1 and 2 here, 3 in the loop).
monitor = Monitor(loss_fn, part(0, 64), heldout, every=10)
state = monitor.init(params)
for step, key in enumerate(jax.random.split(jax.random.key(1), 60), 1):
    params, opt_state = train_step(params, opt_state, key, train)
    state, report = monitor.observe(state, step, params)
    if report is not None:
        print(report)
