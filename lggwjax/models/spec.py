"""What a model of the zoo is asked to be: one frozen, checked description."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, get_args

ModelName = Literal["ffn", "cnn", "resnet8", "resnet18"]
Activation = Literal["relu", "tanh", "gelu"]
Norm = Literal["none", "layer", "group", "batch"]
Init = Literal["standard", "mean-field"]

_DEFAULT_WIDTHS: dict[str, tuple[int, ...]] = {"ffn": (256, 256), "cnn": (64,), "resnet8": (), "resnet18": ()}
_DEFAULT_BASE_WIDTH: dict[str, int | None] = {"ffn": None, "cnn": 16, "resnet8": 16, "resnet18": 64}
# Residual branches add up, so a ResNet wants a norm; group normalisation treats every sample by itself, and thus
# its per-sample gradients mean the same in training and in measuring, which batch normalisation cannot promise.
_DEFAULT_NORM: dict[str, Norm] = {"ffn": "none", "cnn": "none", "resnet8": "group", "resnet18": "group"}


@dataclass(frozen=True)
class ModelSpec:
    r"""Describe a model of the zoo.

    Fields left at ``None`` are filled in on construction, so that a saved description is complete.

    Attributes:
        name: ``"ffn"`` (dense layers), ``"cnn"`` (two strided convolutions, then dense layers), ``"resnet8"`` (one
            block in each of three stages) or ``"resnet18"`` (the CIFAR form: two blocks in each of four stages).
        widths: Hidden dense widths of ``ffn`` (default 256, 256; ``()`` is a linear model) and ``cnn`` (default 64);
            a ResNet has none.
        base_width: Channels of the first convolution (``cnn`` and ``resnet8`` 16, ``resnet18`` 64); later stages double
            them. An ``ffn`` has none.
        activation: ``"relu"``, ``"tanh"`` or ``"gelu"``.
        bias: Whether the model has additive terms at all. A layer followed by a norm leaves its bias to the norm.
        norm: ``"none"`` (default of ``ffn`` and ``cnn``), ``"group"`` (default of the ResNets), ``"layer"`` or
            ``"batch"``.
        residual: Whether a ResNet's blocks have their skip connections.
        init_scale: Multiplies every initial kernel (1: variance 2/fan-in before relu and gelu, 1/fan-in before tanh and
            in the head).
        init: ``"standard"``, or ``"mean-field"`` (as in muP): the head's initial kernel is smaller by another factor of
            1/sqrt(fan-in), so that logits start as averages over features.
        top_k: Keep, of each sample's features, the ``top_k`` largest in absolute value and set the rest to 0; ``None``
            keeps all.

    Raises:
        ValueError: If a field is not of its kind, or has no meaning for the model named.

    Example:
        >>> ModelSpec("cnn").widths, ModelSpec("cnn").base_width
        ((64,), 16)
        >>> ModelSpec("ffn", widths=[8], norm="layer").widths
        (8,)
    """

    name: ModelName = "ffn"
    widths: tuple[int, ...] | None = None
    base_width: int | None = None
    activation: Activation = "relu"
    bias: bool = True
    norm: Norm | None = None
    residual: bool = True
    init_scale: float = 1.0
    init: Init = "standard"
    top_k: int | None = None

    def __post_init__(self) -> None:
        _expect_one_of("name", self.name, get_args(ModelName))
        if self.widths is None:
            object.__setattr__(self, "widths", _DEFAULT_WIDTHS[self.name])
        elif isinstance(self.widths, (list, tuple)):
            object.__setattr__(self, "widths", tuple(self.widths))
        else:
            raise ValueError(f"Expected widths to be a tuple of integers, got {self.widths!r}. One layer is (256,).")
        if self.base_width is None:
            object.__setattr__(self, "base_width", _DEFAULT_BASE_WIDTH[self.name])
        if self.norm is None:
            object.__setattr__(self, "norm", _DEFAULT_NORM[self.name])
        _expect_one_of("activation", self.activation, get_args(Activation))
        _expect_one_of("norm", self.norm, get_args(Norm))
        _expect_one_of("init", self.init, get_args(Init))
        self._check_numbers()
        self._check_meaning()

    def _check_numbers(self) -> None:
        # Over fewer than three numbers a norm returns constants: nothing before it would have a gradient.
        smallest = 3 if self.norm in ("layer", "group") else 1
        for width in (*(self.widths or ()), *(() if self.base_width is None else (self.base_width,))):
            if not _is_count(width) or width < smallest:
                raise ValueError(
                    f"Expected widths and base_width >= {smallest} with norm={self.norm!r}, got {width!r}. "
                    "Choose wider layers (integers) or another norm."
                )
        for field in ("bias", "residual"):
            if not isinstance(getattr(self, field), bool):
                raise ValueError(f"Expected {field} to be True or False, got {getattr(self, field)!r}. Pass a bool.")
        scale = self.init_scale
        is_number = isinstance(scale, (int, float)) and not isinstance(scale, bool)
        if not is_number or not math.isfinite(scale) or scale <= 0:
            raise ValueError(f"Expected init_scale to be a finite number > 0, got {scale!r}. The usual scale is 1.")
        if self.top_k is not None and (not _is_count(self.top_k) or self.top_k < 1):
            raise ValueError(f"Expected top_k to be an integer >= 1, got {self.top_k!r}. None keeps all features.")

    def _check_meaning(self) -> None:
        is_resnet = self.name in ("resnet8", "resnet18")
        if is_resnet and self.widths:
            raise ValueError(f"Expected no widths for {self.name!r}, got {self.widths}. Its size is set by base_width.")
        if self.name == "ffn" and self.base_width is not None:
            raise ValueError(f"Expected no base_width for 'ffn', got {self.base_width}. Its size is set by widths.")
        if not is_resnet and not self.residual:
            raise ValueError(
                f"Expected residual=True for {self.name!r}, got False. Only a ResNet has connections to leave out."
            )


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _expect_one_of(field: str, value: object, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise ValueError(f"Expected {field} to be one of {', '.join(allowed)}, got {value!r}. Choose one of these.")
