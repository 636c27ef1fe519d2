"""Augmentation: trained on moved images, judged on images as they are.

The held-out probe is not augmented. So the verdict is about the loss on unseen images as they come in use, and not
about the augmented loss that training descends on. The widths are those of the clean training samples; the augmented
images form a larger set, whose width is larger.
"""

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
train, heldout = part(0, 300), part(300, 1100)


def loss_fn(params, example):
    """The loss of one example."""
    hidden = jax.nn.relu(example["x"] @ params["first"] + params["bias"])
    return cross_entropy(hidden @ params["last"], example["y"])


def augment(key, image):
    """Move an image of 8 x 8 by up to one pixel each way."""
    shift = jax.random.randint(key, (2,), -1, 2)
    return jnp.roll(image.reshape(8, 8), shift, axis=(0, 1)).reshape(64)


@jax.jit
def train_step(params, opt_state, key, batch):
    moved = batch | {"x": jax.vmap(augment)(jax.random.split(key, len(batch["x"])), batch["x"])}
    gradient = jax.grad(lambda params: jax.vmap(loss_fn, (None, 0))(params, moved).mean())(params)
    changes, opt_state = optimizer.update(gradient, opt_state)
    return optax.apply_updates(params, changes), opt_state


first_key, last_key, loop_key = jax.random.split(jax.random.key(0), 3)
params = {"first": jax.random.normal(first_key, (64, 64)) / 8, "bias": jnp.zeros(64)}
params |= {"last": jax.random.normal(last_key, (64, 10)) / 8}
optimizer = optax.adam(0.003)
opt_state = optimizer.init(params)

# The monitor, in three lines (1 and 2 here, 3 in the loop).
monitor = Monitor(loss_fn, part(0, 64), heldout, every=10)
state = monitor.init(params)
for step, key in enumerate(jax.random.split(loop_key, 60), 1):
    params, opt_state = train_step(params, opt_state, key, train)
    state, report = monitor.observe(state, step, params)
    if report is not None:
        print(report)
