"""nngeometry: the layerwise Gram matrix, and the width that its user would sample from it by hand."""

from __future__ import annotations

from collections.abc import Callable

import torch
from nngeometry.gram import GramMatrix
from nngeometry.layercollection import LayerCollection
from torch.nn.functional import cross_entropy

from benchmarks.rivals.torch_nets import in_torch
from benchmarks.worker import Subject

DRAWS_PER_BLOCK = 4096


class _OneBatch(torch.utils.data.DataLoader):
    """The whole batch at once, without the time that collecting it sample by sample would take."""

    def __iter__(self):
        """Yield the one batch."""
        yield [tensor.detach() for tensor in self.dataset.tensors]


def _gram(file: str) -> Callable[[], torch.Tensor]:
    model, x, y = in_torch(file)
    layers = LayerCollection.from_model(model)

    def losses(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(model(x), y, reduction="none")[:, None]

    loader = _OneBatch(torch.utils.data.TensorDataset(x, y), batch_size=len(y))

    def gram() -> torch.Tensor:
        found = GramMatrix(model, loader, function=losses, layer_collection=layers)
        return found.to_torch().detach().reshape(len(y), len(y))

    return gram


def gram(file: str) -> Subject:
    return Subject(_gram(file), check=lambda result: result.numpy())


def width(file: str, target_stderr: float) -> Subject:
    """Gram matrix, symmetric root, and as many half-ranges as the target needs; that number is told for free."""
    gram = _gram(file)

    def sample(matrix: torch.Tensor, num_draws: int, generator: torch.Generator) -> torch.Tensor:
        values, vectors = torch.linalg.eigh(matrix)
        root = vectors * values.clamp(min=0).sqrt()
        halves = []
        for start in range(0, num_draws, DRAWS_PER_BLOCK):
            size = min(DRAWS_PER_BLOCK, num_draws - start)
            projections = root @ torch.randn((len(matrix), size), generator=generator)
            halves.append((projections.amax(0) - projections.amin(0)) / 2)
        return torch.cat(halves)

    generator = torch.Generator().manual_seed(0)
    matrix = gram()
    pilot = sample(matrix, DRAWS_PER_BLOCK, generator)
    num_draws = max(2, round(float(pilot.std() / target_stderr) ** 2))

    def call() -> tuple[torch.Tensor, torch.Tensor]:
        halves = sample(gram(), num_draws, generator)
        return halves.mean(), halves.std() / num_draws**0.5

    def facts(result: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
        value, stderr = map(float, result)
        return {"value": value, "stderr": stderr, "num_draws": num_draws}

    return Subject(call, facts=facts, check=lambda _: matrix.numpy())
