"""Losses of fine-tuning: each weight, its gradient, and a killed run that goes on alike."""

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.model.stack import initialise_weights  # noqa: E402
from frontload.megatron_ext.stages import pretrain, sft  # noqa: E402
from frontload.megatron_ext.training.datasets import PackSamples  # noqa: E402
from frontload.megatron_ext.training.engine import Engine, build_engine, train_step  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from frontload.recipes.token_losses import PLAIN_LOSS, TokenLoss  # noqa: E402
from tests.training_inputs import (  # noqa: E402
    BATCH,
    SEQUENCE,
    tiny_model,
    tiny_pretrain,
    tiny_sft,
    tiny_training,
    workspace,
    write_blend,
    write_pack,
)

LOSSES = {
    "dft": TokenLoss(kind="dft"),
    "iw_token": TokenLoss(kind="iw_token", least_weight=0.8, most_weight=1.3),
    "iw_sequence": TokenLoss(kind="iw_sequence", least_weight=0.9, most_weight=1.08, exponent=2.0),
}
MODEL = tiny_model(pattern="M-*")


def moved_engine(loss: TokenLoss, *, micro: int = 0) -> Engine:
    """An engine whose start is seed 7 and whose weights have moved a little from there."""
    training = tiny_training(8)
    training = replace(training, optimizer=replace(training.optimizer, clip_grad=1e9))
    engine = build_engine(MODEL, training, Placement(micro_batch_sequences=micro), loss=loss)
    initialise_weights(engine.module, MODEL, 7)
    engine.start.keep(engine.module)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in engine.module.parameters():
            parameter += 0.01 * torch.randn(parameter.shape, generator=generator)
    engine.optimizer.reload_model_params()
    return engine


def log_probabilities(module: Any, rows: list[tuple[Any, Any]]) -> list[torch.Tensor]:
    """Of the answer tokens of each conversation, each read alone."""
    found = []
    for tokens, mask in rows:
        logits_BSV = module(tokens[None, :-1], None, None)
        chosen = logits_BSV[0].float().log_softmax(-1).gather(1, tokens[1:, None])[:, 0]
        found.append(chosen[mask[1:]])
    return found


def plain_weights(loss: TokenLoss, now: list[float], start: list[float]) -> list[float]:
    """The weights of one conversation's answer tokens, token by token in Python."""

    def clipped(value: float) -> float:
        return min(max(value, loss.least_weight), loss.most_weight)

    if loss.kind == "dft":
        return [math.exp(one) for one in now]
    ratios = [one - before for one, before in zip(now, start, strict=True)]
    if loss.kind == "iw_token":
        return [clipped(math.exp(ratio)) for ratio in ratios]
    return [clipped(math.exp(loss.exponent * sum(ratios) / len(ratios)))] * len(ratios)


@pytest.mark.parametrize("micro", [0, 1])
@pytest.mark.parametrize("name", LOSSES)
def test_each_gradient_is_that_of_a_plain_reference_on_conversations_read_alone(
    tmp_path: Path, name: str, micro: int
) -> None:
    loss, pack = LOSSES[name], write_pack(tmp_path, BATCH)
    engine = moved_engine(loss, micro=micro)
    samples = PackSamples(pack, SEQUENCE)
    rows = []
    for row in np.load(pack / "order.npy"):
        for number in samples._conversations(int(row)):
            tokens = torch.from_numpy(samples._tokens.sequence(number).astype(np.int64))
            mask = torch.from_numpy(samples._mask.sequence(number).astype(bool))
            rows.append((tokens, mask))
    with torch.no_grad(), engine.start.swapped_in(engine.module):
        start = log_probabilities(engine.module, rows)
    now = log_probabilities(engine.module, rows)
    weights = [
        plain_weights(loss, one.tolist(), before.tolist())
        for one, before in zip(now, start, strict=True)
    ]
    count = sum(map(len, weights))
    parts = [-(torch.tensor(w) * n).sum() for w, n in zip(weights, now, strict=True)]
    objective = torch.stack(parts).sum() / count
    parameters: dict[str, Any] = dict(engine.module.named_parameters())
    expected = torch.autograd.grad(objective, list(parameters.values()))
    result = train_step(engine, samples, first_sample=0, learning_rate=0.0)
    assert result.weighted_loss == pytest.approx(float(objective.detach()), rel=1e-5)
    plain = -sum(float(one.detach().sum()) for one in now) / count
    assert result.loss == pytest.approx(plain, rel=1e-5)
    flat = [weight for one in weights for weight in one]
    if name != "dft":  # the check sees both ends of the clip, and weights between them
        assert {loss.least_weight, loss.most_weight} < set(flat)
    assert max(flat) > 1.15 * min(flat)
    for (parameter_name, parameter), gradient in zip(parameters.items(), expected, strict=True):
        # 1e-4: float32 sums of other shapes
        largest = gradient.abs().max()
        difference = parameter.main_grad - gradient
        assert difference.abs().max() <= 1e-4 * largest + 1e-7, parameter_name


@pytest.mark.parametrize("name", ["iw_token", "iw_sequence"])
def test_the_first_step_is_plain_fine_tuning_to_the_bit_and_the_second_is_not(
    tmp_path: Path, name: str
) -> None:
    samples = PackSamples(write_pack(tmp_path, 2 * BATCH), SEQUENCE)
    weights: dict[str, list[Any]] = {}
    for loss in (PLAIN_LOSS, LOSSES[name]):
        engine = build_engine(MODEL, tiny_training(8), Placement(), loss=loss)
        initialise_weights(engine.module, MODEL, 7)
        engine.start.keep(engine.module)
        engine.optimizer.reload_model_params()
        for first in (0, BATCH):
            train_step(engine, samples, first_sample=first, learning_rate=1e-2)
            kept = [parameter.detach().clone() for parameter in engine.module.parameters()]
            weights.setdefault(loss.kind, []).append(kept)
    (plain_one, plain_two), (one, two) = weights.values()
    assert all(map(torch.equal, plain_one, one))
    assert not all(map(torch.equal, plain_two, two))


def test_dft_weighs_an_answer_that_is_surely_known_as_plain_fine_tuning_does(
    tmp_path: Path,
) -> None:
    """Where p is 1 the weight is 1; at a start that knows nothing it is about 1 / vocabulary."""
    samples = PackSamples(write_pack(tmp_path, BATCH), SEQUENCE)
    engine = build_engine(MODEL, tiny_training(8), Placement(), loss=LOSSES["dft"])
    initialise_weights(engine.module, MODEL, 7)
    module: Any = engine.module
    with torch.no_grad():
        module.output_layer.weight.zero_()
    result = train_step(engine, samples, first_sample=0, learning_rate=0.0)
    assert result.loss == pytest.approx(math.log(MODEL.vocab_size), rel=1e-6)
    assert result.weighted_loss == pytest.approx(result.loss / MODEL.vocab_size, rel=1e-5)


def test_a_killed_run_goes_on_with_the_weights_of_its_start(tmp_path: Path) -> None:
    blend = write_blend(tmp_path / "blend", BATCH)
    first = workspace(tmp_path / "first")
    pretrain(tiny_pretrain(BATCH), blend, first)
    inputs = {"start": first.path, "pack": write_pack(tmp_path / "pack", 4 * BATCH)}
    plain = tiny_sft(4 * BATCH)
    recipe = replace(plain, loss=LOSSES["iw_token"])
    whole = workspace(tmp_path / "whole")
    sft(recipe, inputs, whole)
    broken = workspace(
        tmp_path / "broken", placement=Placement(checkpoint_every_seconds=0.0), stop_after=2
    )
    with pytest.raises(KeyboardInterrupt):
        sft(recipe, inputs, broken)
    broken.stop_after = 10**9
    sft(recipe, inputs, broken)
    assert broken.lines == whole.lines
    ratios = [line["train__weighted_loss"] / line["train__loss"] for _, line in whole.lines]
    assert ratios[0] == 1.0
    assert min(abs(ratio - 1.0) for ratio in ratios[1:]) > 1e-4
