"""One rank's engine: documents do not see each other, losses are global means, shims are named."""

import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.model.layers import document_resets  # noqa: E402
from frontload.megatron_ext.model.stack import build_model, initialise_weights  # noqa: E402
from frontload.megatron_ext.ranks.parallelism import join_groups, take_census  # noqa: E402
from frontload.megatron_ext.stages import pretrain, sft  # noqa: E402
from frontload.megatron_ext.training import loop  # noqa: E402
from frontload.megatron_ext.training.datasets import BlendSamples, PackSamples  # noqa: E402
from frontload.megatron_ext.training.engine import build_engine, train_step  # noqa: E402
from frontload.recipes.errors import StageError  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from tests.training_inputs import (  # noqa: E402
    BATCH,
    SEQUENCE,
    VOCABULARY,
    tiny_model,
    tiny_pretrain,
    tiny_sft,
    tiny_training,
    workspace,
    write_blend,
    write_pack,
    write_step_pack,
)


@pytest.fixture
def module() -> Any:
    model = tiny_model(pattern="M-*M-")
    module = build_model(model, Placement(), join_groups(Placement()), precision="fp32")
    initialise_weights(module, model, 3)
    return module


def loss_and_gradients(module: Any, rows: list[tuple[torch.Tensor, Any]]) -> tuple[Any, Any]:
    module.zero_grad()
    losses = []
    for tokens, resets in rows:
        found = module(tokens[:, :-1], None, None, labels=tokens[:, 1:], packed_seq_params=resets)
        found.sum().backward()
        losses.append(found.detach().flatten())
    return torch.cat(losses), {name: p.grad.clone() for name, p in module.named_parameters()}


def test_packed_rows_equal_separate_documents(module: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    lengths = [[5, 11, 16], [20, 12, 0]]
    tokens = torch.randint(0, VOCABULARY, (2, SEQUENCE + 1), generator=generator)
    ids = torch.stack([torch.repeat_interleave(torch.arange(3), torch.tensor(n)) for n in lengths])
    packed, packed_grads = loss_and_gradients(
        module, [(tokens, document_resets(ids.to(torch.int32)))]
    )
    alone: list[tuple[torch.Tensor, Any]] = []
    for row, row_lengths in enumerate(lengths):
        start = 0
        for length in filter(None, row_lengths):
            alone.append((tokens[row : row + 1, start : start + length + 1], None))
            start += length
    separate, separate_grads = loss_and_gradients(module, alone)
    leaking, _ = loss_and_gradients(module, [(tokens, None)])
    assert (leaking - separate).abs().max() > 1e-2  # the check can fail
    assert torch.allclose(packed, separate, atol=2e-5)  # float32 sums of other shapes
    for name, gradient in separate_grads.items():
        assert torch.allclose(packed_grads[name], gradient, atol=2e-4, rtol=1e-3), name


def test_loss_is_the_mean_over_masked_tokens_of_the_whole_batch(tmp_path: Path) -> None:
    samples = PackSamples(write_pack(tmp_path, 8), SEQUENCE)
    results = []
    for micro in (0, 1):
        placement = Placement(micro_batch_sequences=micro)
        engine = build_engine(tiny_model(), tiny_training(8), placement)
        initialise_weights(engine.module, tiny_model(), 7)
        with torch.no_grad():
            rows = samples.read(range(4))
            resets = document_resets(torch.from_numpy(rows.document_ids_BS))
            losses = engine.module(
                torch.from_numpy(rows.tokens_BS),
                None,
                None,
                labels=torch.from_numpy(rows.labels_BS),
                packed_seq_params=resets,
            )
            mask = torch.from_numpy(rows.loss_mask_BS)
            expected = float((losses * mask).sum() / mask.sum())
        result = train_step(engine, samples, first_sample=0, learning_rate=1e-3)
        assert result.loss == pytest.approx(expected, abs=1e-6)
        assert result.loss_tokens == int(mask.sum())
        results.append(result.grad_norm)
    assert results[0] == pytest.approx(results[1], rel=1e-5)


def test_rows_of_padding_are_left_out_and_change_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    samples = PackSamples(write_step_pack(tmp_path, tokens=180, steps=3), SEQUENCE)
    computed: list[int] = []
    read = PackSamples.read
    monkeypatch.setattr(
        PackSamples, "read", lambda self, rows: (computed.append(len(rows)), read(self, rows))[1]
    )

    def gradients(micro: int) -> tuple[float, float, int]:
        engine = build_engine(
            tiny_model(), tiny_training(12), Placement(micro_batch_sequences=micro)
        )
        initialise_weights(engine.module, tiny_model(), 7)
        result = train_step(engine, samples, first_sample=4, learning_rate=1e-3)
        return result.loss, result.grad_norm, result.loss_tokens

    with_text = len(samples.with_text(range(4, 8)))
    assert 1 < with_text < BATCH
    left_out = gradients(0)
    assert computed == [with_text]
    assert gradients(1) == pytest.approx(left_out, rel=1e-5)
    assert computed[1:] == [1] * BATCH  # Megatron runs each micro-batch, with a row or more
    monkeypatch.setattr(PackSamples, "with_text", lambda self, rows: rows)
    assert gradients(0) == pytest.approx(left_out, rel=1e-5)
    assert computed[-1] == BATCH


@pytest.mark.parametrize("is_cut", [False, True])
def test_one_rank_may_state_an_overlap_that_it_has_no_use_for(
    tmp_path: Path, *, is_cut: bool
) -> None:
    samples = PackSamples(write_pack(tmp_path, 12), SEQUENCE)
    found = []
    for overlap in (False, True):
        placement = Placement(
            micro_batch_sequences=1, overlap_communication=overlap, distributed_optimizer=is_cut
        )
        engine = build_engine(tiny_model(), tiny_training(12), placement)
        initialise_weights(engine.module, tiny_model(), 7)
        engine.optimizer.reload_model_params()
        steps = [
            train_step(engine, samples, first_sample=first, learning_rate=1e-3)
            for first in (0, 4, 8)
        ]
        engine.parts()
        weights = [parameter.detach().clone() for parameter in engine.module.parameters()]
        found.append(([step.loss for step in steps], weights))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-6)
    for one, other in zip(found[0][1], found[1][1], strict=True):
        assert torch.allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("forgets", [False, True])
def test_heads_that_forget_within_a_token_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, forgets: bool
) -> None:
    """Of one head in each of two layers, four rows and each of their chunks; else nothing is."""

    def drawn(module: Any, model: Any, seed: int) -> None:
        initialise_weights(module, model, seed)
        for name, parameter in module.named_parameters():
            if name.endswith("dt_bias"):
                parameter.data[1] += 60.0 * forgets

    monkeypatch.setattr(loop, "initialise_weights", drawn)
    model, work = tiny_model(pattern="M-*M-"), workspace(tmp_path / "work")
    job = loop.TrainingJob(
        model=model,
        training=tiny_training(4),
        samples=PackSamples(write_pack(tmp_path, 4), SEQUENCE),
        num_samples=4,
        start_sample=0,
        start=None,
        optimizer_continues=False,
    )
    loop.train(job, work)
    ((_, line),) = work.lines
    expected = 2 * 4 * SEQUENCE // model.mamba_chunk_tokens
    assert line.get("train__steep_rows") == (expected if forgets else None)


def test_not_a_number_is_refused_with_its_sample(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 8)
    samples = BlendSamples(inputs["blend"], inputs)
    engine = build_engine(tiny_model(), tiny_training(8), Placement())
    initialise_weights(engine.module, tiny_model(), 7)
    rows = samples.read(range(4))
    only = set(rows.tokens_BS[2]) - set(rows.tokens_BS[[0, 1, 3]].flatten())
    token = int(min(only))
    table = engine.module.embedding.word_embeddings.weight
    with torch.no_grad():
        table[token] = float("inf")
    before = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
    with pytest.raises(StageError, match=r"the loss is nan at sample 2 \(base, documents"):
        train_step(engine, samples, first_sample=0, learning_rate=1e-3)
    for name, parameter in engine.module.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_batch_in_which_nothing_is_to_be_learnt_is_refused_with_its_rows(tmp_path: Path) -> None:
    """AdamW would move every weight all the same: by its decay and by the steps before."""
    pack = write_pack(tmp_path / "pack", 8)
    lengths = np.fromfile(pack / "loss_mask.idx", "<i4", count=16, offset=34)
    ends = np.cumsum(lengths)[1::2]  # two conversations a row
    masks = np.fromfile(pack / "loss_mask.bin", np.uint8)
    for row in np.load(pack / "order.npy")[BATCH:]:
        masks[ends[row - 1] if row else 0 : ends[row]] = 0
    masks.tofile(pack / "loss_mask.bin")
    work = workspace(tmp_path / "alone")
    pretrain(tiny_pretrain(8), write_blend(tmp_path / "in", 8), work)
    tuned = workspace(tmp_path / "tuned")
    told = (
        r"rank 0, step 2: no token of its batch has loss: sample 4 .* on data rank 0; .*sample 7 .*"
        r"; each step learns from at least one token; look at the loss masks"
    )
    with pytest.raises(StageError, match=told):
        sft(tiny_sft(8), {"pack": pack, "start": work.path}, tuned)
    assert len(tuned.losses()) == 1
    engine = build_engine(tiny_model(), tiny_training(8), Placement())
    initialise_weights(engine.module, tiny_model(), 7)
    samples = PackSamples(pack, SEQUENCE)
    train_step(engine, samples, first_sample=0, learning_rate=1e-3)
    before = {name: p.detach().clone() for name, p in engine.module.named_parameters()}
    with pytest.raises(StageError, match="no token of its batch"):
        train_step(engine, samples, first_sample=BATCH, learning_rate=1e-3)
    for name, parameter in engine.module.named_parameters():
        assert torch.equal(parameter, before[name]), name


def test_a_dropped_layer_is_noticed() -> None:
    groups = join_groups(Placement())
    module = build_model(tiny_model(pattern="M-*M"), Placement(), groups, precision="fp32")
    with pytest.raises(StageError, match="4 layers"):
        take_census(module, tiny_model(pattern="M-*MM"), Placement(), groups)


def test_bf16_follows_float32(tmp_path: Path) -> None:
    inputs = write_blend(tmp_path, 32)
    samples = BlendSamples(inputs["blend"], inputs)
    curves = []
    for precision in ("fp32", "bf16"):
        training = tiny_training(32, precision=precision)
        engine = build_engine(tiny_model(), training, Placement())
        initialise_weights(engine.module, tiny_model(), 7)
        engine.optimizer.reload_model_params()
        curves.append(
            [
                train_step(engine, samples, first_sample=at, learning_rate=3e-3).loss
                for at in range(0, 32, 4)
            ]
        )
    assert curves[0][-1] < curves[0][0] - 0.1
    # 0.02 of 4.8: bfloat16 has 8 bits of mantissa; weights are updated in float32
    assert curves[1] == pytest.approx(curves[0], abs=0.02)
    assert curves[1] != curves[0]


def test_every_shim_names_a_line_that_is_there() -> None:
    """A new version of Megatron moves these lines; the shims must then be read again."""
    root = Path(sys.modules["megatron.core"].__file__ or "").parent
    text = Path(cpu.__file__).read_text()
    for name in cpu.TORCH_USERS:
        listed = re.search(rf'"{re.escape(name)}",  # (:[^\n]*)', text)
        assert listed, name
        lines = (root / (name.replace(".", "/") + ".py")).read_text().splitlines()
        for number in re.findall(r":(\d+)", listed.group(1)):
            near = "\n".join(lines[int(number) - 6 : int(number) + 5])
            assert "cuda" in near, f"{name}:{number} no longer names a device"
