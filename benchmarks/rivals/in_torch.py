"""Per-sample gradients in torch, by ``torch.func`` or by opacus, and what is made of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn.functional import cross_entropy

from benchmarks.rivals.draws import ALONE, draw_facts
from benchmarks.rivals.torch_nets import InTorch, in_torch
from benchmarks.worker import Limit, Subject


def _rows(gradients: Any, num: int) -> torch.Tensor:
    return torch.cat([g.reshape(num, -1) for g in gradients], dim=1)


def _by_torch_func(given: InTorch) -> Callable[[], torch.Tensor]:
    params = {name: value.detach() for name, value in given.model.named_parameters()}

    def loss(params: Any, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return cross_entropy(torch.func.functional_call(given.model, params, (x[None],)), y[None])

    gradients = torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))
    return lambda: _rows(gradients(params, given.x, given.y).values(), len(given.y))


def _by_opacus(given: InTorch, mode: str) -> Callable[[], torch.Tensor]:
    from opacus.grad_sample import wrap_model

    extra = {} if mode == "hooks" else {"batch_first": True}
    model = wrap_model(given.model, grad_sample_mode=mode, loss_reduction="sum", **extra)

    def gradients() -> torch.Tensor:
        for parameter in model.parameters():
            parameter.grad = parameter.grad_sample = None
        cross_entropy(model(given.x), given.y, reduction="sum").backward()
        rows = _rows([parameter.grad_sample for parameter in model.parameters()], len(given.y))
        for parameter in model.parameters():
            parameter.grad = parameter.grad_sample = None
        return rows

    return gradients


def _gradients(given: InTorch, source: str) -> Callable[[], torch.Tensor]:
    return _by_torch_func(given) if source == "torch.func" else _by_opacus(given, source)


def gram(file: str, source: str) -> Subject:
    gradients = _gradients(in_torch(file), source)

    def call() -> torch.Tensor:
        rows = gradients().detach()
        return rows @ rows.T

    return Subject(call, check=lambda result: result.numpy())


def project(file: str, source: str, num_draws: int, projector: str = "normal") -> Subject:
    gradients = _gradients(in_torch(file), source)

    def directions(rows: torch.Tensor, seed: int) -> torch.Tensor:
        if projector == "traker":
            from trak.projectors import BasicProjector

            # One block, made anew for every K directions: its fastest setting here.
            dim = rows.shape[1]
            return BasicProjector(dim, num_draws, seed, "normal", "cpu", block_size=num_draws).project(rows, 0)
        generator = torch.Generator().manual_seed(seed)
        return rows @ torch.randn((rows.shape[1], num_draws), generator=generator)

    def call(seed: int = 0) -> torch.Tensor:
        return directions(gradients().detach(), seed)

    def gram_of_rows() -> torch.Tensor:
        rows = gradients().detach()
        return (rows @ rows.T).numpy()

    return Subject(
        call,
        limits={ALONE: Limit(gradients)},
        facts=lambda result: draw_facts(result.numpy(), call(1).numpy()),
        check=lambda _: gram_of_rows(),
    )
