"""The problems' models in torch: the same layers, the same numbers."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from benchmarks.problems import Problem, read

THREADS = 2


class InTorch(NamedTuple):
    """A problem in torch; images come with channels first."""

    model: nn.Module
    x: torch.Tensor
    y: torch.Tensor


def in_torch(file: str) -> InTorch:
    """Build a problem's model with the parameters of its first checkpoint."""
    torch.set_num_threads(THREADS)
    arrays = read(file)
    model = _ffn(arrays.problem) if arrays.problem.model == "ffn" else ResNet18(arrays.problem)
    model.load_state_dict({_torch_name(name): _torch_leaf(leaf) for name, leaf in arrays.checkpoints[0].items()})
    x = torch.from_numpy(arrays.x)
    x = x.permute(0, 3, 1, 2).contiguous() if x.ndim == 4 else x.reshape(len(x), -1)
    return InTorch(model, x, torch.from_numpy(arrays.y).long())


def _torch_name(name: str) -> str:
    """``body/layers/3/branch/layers/0/kernel`` is ``body.3.branch.0.weight``."""
    *layers, leaf = [part for part in name.split("/") if part != "layers"]
    return ".".join([*layers, "bias" if leaf == "bias" else "weight"])


def _torch_leaf(leaf: np.ndarray) -> torch.Tensor:
    if leaf.ndim == 4:
        leaf = leaf.transpose(3, 2, 0, 1)
    elif leaf.ndim == 2:
        leaf = leaf.T
    return torch.from_numpy(np.ascontiguousarray(leaf))


def _ffn(problem: Problem) -> nn.Module:
    sizes = [int(np.prod(problem.input_shape)), *(problem.widths or ())]
    hidden: OrderedDict[str, nn.Module] = OrderedDict()
    for i, (before, after) in enumerate(pairwise(sizes)):
        hidden[str(3 * i)] = nn.Linear(before, after)
        hidden[f"relu{i}"] = nn.ReLU()
    return nn.Sequential(OrderedDict(hidden=nn.Sequential(hidden), head=nn.Linear(sizes[-1], problem.num_outputs)))


def _conv(before: int, after: int, stride: int, size: int = 3) -> OrderedDict[str, nn.Module]:
    """A convolution padded as jax's ``SAME`` is: at stride 2 on even sizes, the odd row goes to the far end."""
    far_end = stride == 2 and size == 3
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if far_end:
        layers["pad"] = nn.ZeroPad2d((0, 1, 0, 1))
    layers["conv"] = nn.Conv2d(before, after, size, stride, 0 if far_end or size == 1 else 1, bias=False)
    return layers


def _norm(channels: int) -> nn.GroupNorm:
    groups = next((g for g in (8, 4, 2) if channels % g == 0 and channels >= 4 * g), 1)
    return nn.GroupNorm(groups, channels, eps=1e-6)


def _numbered(*pieces: nn.Module | OrderedDict[str, nn.Module]) -> nn.Sequential:
    """Number the layers as the zoo does: a padding takes no number."""
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    for i, piece in enumerate(pieces):
        for name, layer in (piece if isinstance(piece, OrderedDict) else {"conv": piece}).items():
            layers[str(i) if name == "conv" else f"{name}{i}"] = layer
    return nn.Sequential(layers)


class Block(nn.Module):
    """Two convolutions, added to their input."""

    def __init__(self, before: int, after: int, stride: int):
        """Make the layers."""
        super().__init__()
        first, second = _conv(before, after, stride), _conv(after, after, 1)
        self.branch = _numbered(first, _norm(after), nn.ReLU(), second, _norm(after))
        changes = stride != 1 or before != after
        self.shortcut = _numbered(_conv(before, after, stride, 1), _norm(after)) if changes else nn.Identity()
        self.relu = nn.ReLU()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the activation of branch plus shortcut."""
        return self.relu(self.branch(x) + self.shortcut(x))


class ResNet18(nn.Module):
    """The zoo's ResNet-18 for small images."""

    def __init__(self, problem: Problem):
        """Make the layers."""
        super().__init__()
        base = problem.base_width or 1
        blocks, channels = [], base
        for stage in range(4):
            for position in range(2):
                after = base * 2**stage
                blocks.append(Block(channels, after, 2 if stage > 0 and position == 0 else 1))
                channels = after
        self.body = _numbered(_conv(problem.input_shape[-1], base, 1), _norm(base), nn.ReLU(), *blocks)
        self.head = nn.Linear(channels, problem.num_outputs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        return self.head(self.body(x).mean(dim=(2, 3)))
