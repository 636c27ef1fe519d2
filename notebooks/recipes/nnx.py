"""Flax nnx, with BatchNorm and dropout: `model.eval()` is what is judged, and its statistics travel with each step."""

import jax
import numpy as np
import optax
from flax import nnx
from sklearn.datasets import load_digits

from lggwjax.training import Monitor

cross_entropy = optax.losses.softmax_cross_entropy_with_integer_labels
images, labels = load_digits(return_X_y=True)
data = {"x": (images / 16).astype(np.float32), "y": labels}
part = lambda start, stop: jax.tree.map(lambda leaf: leaf[start:stop], data)
train, heldout = part(0, 300), part(300, 1100)


class Net(nnx.Module):
    def __init__(self, rngs):
        self.first, self.norm = nnx.Linear(64, 64, use_bias=False, rngs=rngs), nnx.BatchNorm(64, rngs=rngs)
        self.dropout, self.last = nnx.Dropout(0.2, rngs=rngs), nnx.Linear(64, 10, rngs=rngs)

    def __call__(self, x):
        return self.last(self.dropout(nnx.relu(self.norm(self.first(x)))))


model = Net(nnx.Rngs(0))
optimizer = nnx.Optimizer(model, optax.adam(0.003), wrt=nnx.Param)
model.eval()
eval_graph, *start = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
model.train()


def loss_fn(params, example):
    """The loss of one example, with running averages and without dropout. `params`: (weights, statistics, keys)."""
    logits = nnx.merge(eval_graph, *params)(example["x"][None])[0]
    return cross_entropy(logits, example["y"])


@nnx.jit
def train_step(model, optimizer, batch):
    gradient = nnx.grad(lambda model: cross_entropy(model(batch["x"]), batch["y"]).mean())(model)
    optimizer.update(model, gradient)


# The monitor, in three lines (1 and 2 here, 3 in the loop); the first part of `params` are the weights.
monitor = Monitor(loss_fn, part(0, 64), heldout, every=10, wrt=lambda path, leaf: path[0].idx == 0)
state = monitor.init(tuple(start))
rng = np.random.default_rng(0)
for step in range(1, 61):
    rows = rng.permutation(300)[:100]
    train_step(model, optimizer, jax.tree.map(lambda leaf, rows=rows: leaf[rows], train))
    state, report = monitor.observe(state, step, tuple(nnx.split(model, nnx.Param, nnx.BatchStat, ...)[1:]))
    if report is not None:
        print(report)
