"""Runs a model under an emulated precision and says how far it moves, by layer."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from frontload.megatron_ext.inference.quantise import Emulation, emulated_linear
from frontload.megatron_ext.model.layers import ColumnLinear, RowLinear
from frontload.megatron_ext.model.stack import build_model, initialise_weights
from frontload.megatron_ext.ranks.parallelism import join_groups, silence_megatron
from frontload.recipes.errors import RecipeError
from frontload.recipes.facts.census import count_parameters
from frontload.recipes.facts.pattern import parse_pattern
from frontload.recipes.machines.placement import Placement
from frontload.recipes.machines.precision import Precision, find_precision
from frontload.recipes.schema import Model

MOST_PARAMETERS = 200_000_000
"""An emulation holds weights and gradients twice in float32: 3.2 GB at this size."""


@dataclass(frozen=True, kw_only=True)
class LayerError:
    """Distance of one layer from its float32 self, relative to the float32 values (Frobenius)."""

    layer: int
    kind: str
    is_fp8: bool
    output: float  # what the layer adds to the residual stream
    gradient: float  # of its weights


@dataclass(frozen=True, kw_only=True)
class PrecisionError:
    """One precision against float32 on the same weights and tokens."""

    precision: str
    loss: float
    loss_fp32: float
    layers: tuple[LayerError, ...]

    def of_kind(self, kind: str, part: str) -> float:
        """Mean over the layers of a kind; part is "output" or "gradient"."""
        found = [getattr(layer, part) for layer in self.layers if layer.kind == kind]
        return sum(found) / len(found)


@dataclass(frozen=True, kw_only=True)
class _Run:
    loss: float
    outputs: list[Tensor]
    gradients: list[Tensor]


def emulate_precisions(
    model: Model, names: tuple[str, ...], *, rows: int, sequence_tokens: int, seed: int
) -> list[PrecisionError]:
    """Runs one forward and backward pass in float32 and in each precision.

    Weights are freshly drawn and tokens random, both from the seed: the errors are those of the
    beginning of training. Only linears of layers are rounded; embedding, output layer, norms,
    convolution and scan stay in float32, so that the error is the products' own.

    Raises: RecipeError for a model too large for it.
    """
    total = count_parameters(model).total
    if total > MOST_PARAMETERS:
        raise RecipeError(
            "precision --emulate",
            found=f"the model has {total:_} parameters",
            rule=f"an emulation runs the model here, up to {MOST_PARAMETERS:_}",
            do="name a proxy of the family, e.g. hybrid_15m",
        )
    silence_megatron()
    module = build_model(model, Placement(), join_groups(Placement()), precision="fp32")
    initialise_weights(module, model, seed)
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(model.vocab_size, (rows, sequence_tokens + 1), generator=generator)
    plain = _run(module, tokens)
    found = []
    for name in names:
        precision = find_precision(name)
        with emulated(module, precision):
            found.append(_compare(model, precision, plain, _run(module, tokens)))
    return found


@contextmanager
def emulated(module: nn.Module, precision: Precision) -> Iterator[None]:
    """The linears of the layers round their products as the precision does, until the end."""
    layers: Any = module.decoder.layers  # type: ignore[union-attr]
    changed: list[Any] = []
    for number, layer in enumerate(layers):
        emulation = Emulation(precision, is_fp8=precision.is_fp8_layer(number, len(layers)))
        for linear in layer.modules():
            if isinstance(linear, ColumnLinear | RowLinear):
                linear.forward = functools.partial(_forward, linear, emulation)  # type: ignore[method-assign]
                changed.append(linear)
    try:
        yield
    finally:
        for linear in changed:
            del linear.forward


def _forward(linear: Any, emulation: Emulation, input_: Tensor, *_: Any) -> tuple[Tensor, None]:
    output = emulated_linear(input_.flatten(0, -2), linear.weight, emulation)
    return output.unflatten(0, input_.shape[:-1]), None


def _run(module: Any, tokens: Tensor) -> _Run:
    outputs: list[Tensor] = []

    def keep(_module: Any, inputs: Any, options: Any, output: Any) -> None:
        before = options.get("hidden_states", inputs[0] if inputs else None)
        after = output[0] if isinstance(output, tuple) else output
        outputs.append((after - before).detach())

    hooks = [layer.register_forward_hook(keep, with_kwargs=True) for layer in module.decoder.layers]
    module.zero_grad(set_to_none=True)
    loss = module(tokens[:, :-1], None, None, labels=tokens[:, 1:]).mean()
    loss.backward()
    for hook in hooks:
        hook.remove()
    gradients = [
        torch.cat([one.grad.flatten() for one in layer.parameters() if one.dim() == 2])
        for layer in module.decoder.layers
    ]
    return _Run(loss=float(loss.detach()), outputs=outputs, gradients=gradients)


def _compare(model: Model, precision: Precision, plain: _Run, rounded: _Run) -> PrecisionError:
    letters = parse_pattern(model.pattern)
    return PrecisionError(
        precision=precision.name,
        loss=rounded.loss,
        loss_fp32=plain.loss,
        layers=tuple(
            LayerError(
                layer=number,
                kind=letter.name.lower(),
                is_fp8=precision.is_fp8_layer(number, len(letters)),
                output=_distance(rounded.outputs[number], plain.outputs[number]),
                gradient=_distance(rounded.gradients[number], plain.gradients[number]),
            )
            for number, letter in enumerate(letters)
        ),
    )


def _distance(found: Tensor, expected: Tensor) -> float:
    return float((found - expected).norm() / expected.norm())
