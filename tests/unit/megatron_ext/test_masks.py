"""Sparse pretraining: masked weights stay 0, go out as 0, and learn in dense fine-tuning."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.hf.convert import export_hf  # noqa: E402
from frontload.megatron_ext.model.stack import initialise_weights  # noqa: E402
from frontload.megatron_ext.stages import pretrain, sft  # noqa: E402
from frontload.megatron_ext.training.datasets import BlendSamples  # noqa: E402
from frontload.megatron_ext.training.engine import build_engine, train_step  # noqa: E402
from frontload.recipes.errors import ArtifactError  # noqa: E402
from frontload.recipes.facts.census import count_masked  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from tests.tiny_run import artifact_bytes  # noqa: E402
from tests.training_inputs import (  # noqa: E402
    BATCH,
    load_module,
    tiny_model,
    tiny_pretrain,
    tiny_sft,
    tiny_training,
    workspace,
    write_blend,
    write_pack,
)

STEPS = 4
SPARSE = replace(tiny_pretrain(STEPS * BATCH), sparsity=0.75)
DENSE_NAMES = ("embedding", "output_layer", "norm", "conv1d", "A_log", "dt_bias", ".D")


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], Path]:
    """The inputs and the checkpoint of a pretraining with three of four weights masked."""
    root = tmp_path_factory.mktemp("sparse")
    inputs = write_blend(root / "inputs", STEPS * BATCH)
    work = workspace(root / "work")
    pretrain(SPARSE, inputs, work)
    return inputs, work.path


def test_three_of_four_weights_of_each_matrix_and_no_others_are_0_after_training(
    trained: tuple[dict[str, Path], Path],
) -> None:
    masked = 0
    for name, parameter in load_module(trained[1]).named_parameters():
        zeros = int((parameter == 0).sum())
        if any(word in name for word in DENSE_NAMES):
            assert zeros == 0, name
        else:
            assert zeros == round(0.75 * parameter.numel()), name
            assert (parameter == 0).any(0).all(), f"{name}: a mask is of weights, not of columns"
            masked += zeros
    assert masked == count_masked(tiny_model(), 0.75)
    state = json.loads((trained[1] / "training_state.json").read_text())
    assert (state["sparsity"], state["masked_weights"]) == (0.75, masked)


def test_the_export_holds_the_zeros_and_dense_fine_tuning_fills_them(
    trained: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    from safetensors.torch import load_file

    export_hf(trained[1], tmp_path / "hf")
    tensors = [
        t for path in (tmp_path / "hf").glob("*.safetensors") for t in load_file(path).values()
    ]
    assert sum(int((one == 0).sum()) for one in tensors) == count_masked(tiny_model(), 0.75)
    work = workspace(tmp_path / "sft")
    pack = write_pack(tmp_path / "pack", BATCH)
    sft(tiny_sft(BATCH), {"start": trained[1], "pack": pack}, work)
    before, after = (dict(load_module(path).named_parameters()) for path in (trained[1], work.path))
    for name, parameter in before.items():
        was_masked = (parameter == 0) & (parameter.dim() == 2)
        assert (after[name][was_masked] != 0).float().mean() > 0.99 or not was_masked.any(), name


def test_the_gradient_that_is_clipped_is_that_of_the_weights_that_learn(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, BATCH)
    samples = BlendSamples(inputs["blend"], inputs)
    found: list[tuple[float, Any]] = []
    for sparsity in (0.5, 0.0):
        engine = build_engine(tiny_model(), tiny_training(8), Placement(), sparsity=sparsity)
        if found:  # a dense engine at the same weights
            for parameter, (_, weight, _) in zip(
                engine.module.parameters(), found[0][1], strict=True
            ):
                parameter.data.copy_(weight)
        else:
            initialise_weights(engine.module, tiny_model(), 7)
            engine.masks.clear_weights()
        start = [parameter.detach().clone() for parameter in engine.module.parameters()]
        result = train_step(engine, samples, first_sample=0, learning_rate=0.0)
        parameters: list[Any] = list(engine.module.parameters())
        gradients = [parameter.main_grad.clone() for parameter in parameters]
        found.append((result.grad_norm, list(zip(start, start, gradients, strict=True))))
    clip = tiny_training(8).optimizer.clip_grad
    (sparse_norm, sparse), (dense_norm, dense) = found
    whole = [clipped / min(1.0, clip / (dense_norm + 1e-6)) for _, _, clipped in dense]
    kept = [
        gradient * ((weight != 0) | (weight.dim() < 2))
        for (weight, _, _), gradient in zip(sparse, whole, strict=True)
    ]
    norm = float(torch.cat([one.flatten() for one in kept]).norm())
    assert sparse_norm == pytest.approx(norm, rel=1e-5)
    assert sparse_norm < 0.99 * dense_norm
    for (_, _, clipped), expected in zip(sparse, kept, strict=True):
        scaled = expected * min(1.0, clip / (norm + 1e-6))
        assert torch.allclose(clipped, scaled, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_phases_and_kills_change_no_byte_of_a_sparse_run(tmp_path: Path, precision: str) -> None:
    inputs = write_blend(tmp_path / "inputs", STEPS * BATCH)
    training = replace(SPARSE.training, precision=precision)
    recipe = replace(SPARSE, training=training)
    whole = workspace(tmp_path / "whole")
    pretrain(recipe, inputs, whole)
    broken = workspace(
        tmp_path / "broken", placement=Placement(checkpoint_every_seconds=0.0), stop_after=2
    )
    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, inputs, broken)
    broken.stop_after = 10**9
    pretrain(recipe, inputs, broken)
    assert artifact_bytes(broken.path) == artifact_bytes(whole.path)


def test_a_start_that_was_trained_dense_or_with_another_mask_is_refused(
    trained: tuple[dict[str, Path], Path], tmp_path: Path
) -> None:
    inputs = {**trained[0], "start": trained[1]}
    other_seed = replace(SPARSE, training=replace(SPARSE.training, seed=8))
    denser = replace(SPARSE, sparsity=0.9)
    for number, recipe in enumerate((other_seed, denser)):
        with pytest.raises(ArtifactError, match="weights under the mask are not 0"):
            pretrain(recipe, inputs, workspace(tmp_path / str(number)))
    more = workspace(tmp_path / "more")
    pretrain(replace(SPARSE, num_samples=BATCH), inputs, more)
    one, other = (dict(load_module(path).named_parameters()) for path in (trained[1], more.path))
    assert all(torch.equal(one[name] == 0, other[name] == 0) for name in one)
