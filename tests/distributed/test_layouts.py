"""Every layout trains like one rank: same checkpoint in, same losses, same weights out."""

import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from frontload.recipes.machines.placement import Placement
from frontload.recipes.token_losses import TokenLoss
from tests.ranks import run_on_ranks
from tests.training_inputs import (
    BATCH,
    tiny_pretrain,
    tiny_sft,
    workspace,
    write_blend,
    write_pack,
    write_step_pack,
)

STEPS, SAVED_AT, TUNED_STEPS = 6, 2, 3
LAYOUTS: dict[str, dict[str, Any]] = {
    "tp2-dp2": {"tensor_parallel": 2},
    "tp2-dp2-sp": {"tensor_parallel": 2, "sequence_parallel": True},
    "pp2-dp2": {"pipeline_parallel": 2, "micro_batch_sequences": 1},
    "tp2-pp2": {"tensor_parallel": 2, "pipeline_parallel": 2, "micro_batch_sequences": 2},
    "tp2-pp2-uneven": {
        "tensor_parallel": 2,
        "pipeline_parallel": 2,
        "pipeline_layers": [1, 3],
        "micro_batch_sequences": 2,
    },
    "dp4": {},
    "dp4-overlap": {"overlap_communication": True, "micro_batch_sequences": 1},
    "tp2-dp2-overlap": {
        "tensor_parallel": 2,
        "overlap_communication": True,
        "micro_batch_sequences": 1,
    },
    "pp2-dp2-overlap": {
        "pipeline_parallel": 2,
        "overlap_communication": True,
        "micro_batch_sequences": 1,
    },
    "tp2-dp2-recompute": {"tensor_parallel": 2, "recompute": True},
}
"""On four ranks, so that each axis meets another one."""
IN_STEPS = ("dp4", "pp2-dp2", "tp2-dp2")
NO_LINES = ("lost layer", "memory", "steps")
FROM_ZERO: dict[str, dict[str, Any]] = {
    "fresh-tp2-pp2": LAYOUTS["tp2-pp2"],
    "fresh-distributed-optimizer": {"distributed_optimizer": True, "tensor_parallel": 2},
    "fresh-distributed-overlap": {
        "distributed_optimizer": True,
        "tensor_parallel": 2,
        "overlap_communication": True,
    },
}
WEIGHTED: dict[str, dict[str, Any]] = {
    "sft-tp2-pp2": LAYOUTS["tp2-pp2"],
    "sft-dp4-micro": {"micro_batch_sequences": 1},
    "sft-tp2-dp2-sp": LAYOUTS["tp2-dp2-sp"],
    "sft-distributed-overlap": {
        "distributed_optimizer": True,
        "tensor_parallel": 2,
        "overlap_communication": True,
        "micro_batch_sequences": 1,
    },
}
"""Fine-tuning with importance weights, which run a second model through each layout."""
SPARSE: dict[str, dict[str, Any]] = {
    "sparse-tp2-pp2": LAYOUTS["tp2-pp2"],
    "sparse-distributed-optimizer": FROM_ZERO["fresh-distributed-overlap"],
}
"""From weights of which half are masked."""
LOSSES = {
    "iw_sequence": TokenLoss(kind="iw_sequence", least_weight=0.5, most_weight=2.0),
    "dft": TokenLoss(kind="dft"),
}


def train_layouts(root: str, layouts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """On a rank: goes on from the saved checkpoint under each layout, then starts one from zero."""
    from frontload.megatron_ext.stages import pretrain
    from tests.unit.megatron_ext.test_memory import peak_shares

    found: dict[str, Any] = {}
    inputs = {path.name: path for path in (Path(root) / "inputs").iterdir()}
    for name, options in layouts.items():
        placement = Placement(ranks_per_node=4, checkpoint_every_seconds=1e9, **options)
        work = workspace(Path(root) / name, placement=placement)
        pretrain(tiny_pretrain(STEPS * BATCH), inputs, work)
        found[name] = work.lines
        if name in FROM_ZERO:
            more = workspace(Path(root) / f"{name}-more", placement=placement)
            recipe = tiny_pretrain(BATCH, start_sample=STEPS * BATCH)
            pretrain(recipe, inputs | {"start": work.path}, more)
            found[f"{name}-more"] = more.lines
    found |= _tune_weighted(Path(root), WEIGHTED)
    found |= _pretrain_sparse(Path(root), SPARSE)
    found["steps"] = _tune_in_steps(Path(root), inputs["pack"])
    found["lost layer"] = _lose_a_layer(Path(root), inputs)
    found["memory"] = peak_shares(4)
    return found


def _pretrain_sparse(root: Path, layouts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Pretrains from drawn and half masked weights under each layout, on four ranks by default."""
    from frontload.megatron_ext.stages import pretrain

    inputs = {path.name: path for path in (root / "inputs").iterdir()}
    found: dict[str, Any] = {}
    for name, options in layouts.items():
        placement = replace(Placement(ranks_per_node=4), **options)
        work = workspace(root / name, placement=placement)
        pretrain(replace(tiny_pretrain(TUNED_STEPS * BATCH), sparsity=0.5), inputs, work)
        found[name] = work.lines
    return found


def _tune_weighted(root: Path, layouts: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Fine-tunes the published model by each loss under each layout, on four ranks by default."""
    from frontload.megatron_ext.stages import sft

    inputs = {"start": root / "alone" / "path", "pack": root / "pack"}
    found: dict[str, Any] = {}
    for name, options in layouts.items():
        for kind, loss in LOSSES.items():
            placement = replace(Placement(ranks_per_node=4), **options)
            work = workspace(root / f"{name}-{kind}", placement=placement)
            recipe = replace(tiny_sft(TUNED_STEPS * BATCH), loss=loss)
            sft(recipe, inputs, work)
            found[f"{name}-{kind}"] = work.lines
    return found


def _tune_in_steps(root: Path, pack: Path) -> dict[str, Any]:
    """Fine-tunes on a budget in real tokens: some ranks and stages meet rows of padding alone."""
    from frontload.megatron_ext.stages import sft

    found = {}
    for name in IN_STEPS:
        placement = Placement(ranks_per_node=4, **LAYOUTS[name])
        work = workspace(root / f"steps-{name}", placement=placement)
        sft(tiny_sft(3 * BATCH), {"start": root / "alone" / "path", "pack": pack}, work)
        found[name] = work.lines
    return found


def _lose_a_layer(root: Path, inputs: dict[str, Path]) -> list[Any]:
    """What this rank says when the last rank has built one layer too few; no lines, no wait."""
    from megatron.core.models.hybrid.hybrid_block import HybridStack

    from frontload.megatron_ext.stages import pretrain
    from frontload.recipes.errors import StageError

    build = HybridStack.__init__

    def lose_the_last(self: Any, *args: Any, **options: Any) -> None:
        build(self, *args, **options)
        if os.environ["RANK"] == "3":
            self.layers = self.layers[:-1]

    placement = Placement(ranks_per_node=4, **LAYOUTS["tp2-pp2-uneven"])
    HybridStack.__init__ = lose_the_last
    try:
        pretrain(tiny_pretrain(BATCH), inputs, workspace(root / "lost", placement=placement))
    except StageError as error:
        return [str(error)]
    finally:
        HybridStack.__init__ = build
    return []


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank alone, and all layouts in one launch of four ranks."""
    from frontload.megatron_ext.stages import pretrain, sft

    root = tmp_path_factory.mktemp("layouts")
    inputs = write_blend(root / "inputs", STEPS * BATCH)
    pack = write_step_pack(root / "inputs" / "pack", tokens=180, steps=3)
    recipe = tiny_pretrain(STEPS * BATCH)
    stopped = workspace(
        root / "stopped", placement=Placement(checkpoint_every_seconds=0.0), stop_after=SAVED_AT + 1
    )
    with pytest.raises(KeyboardInterrupt):
        pretrain(recipe, inputs, stopped)
    alone = workspace(root / "alone")
    pretrain(recipe, inputs, alone)
    tuned = workspace(root / "alone-steps")
    sft(tiny_sft(3 * BATCH), {"start": alone.path, "pack": pack}, tuned)
    for name in LAYOUTS:
        shutil.copytree(stopped.scratch, root / name / "scratch")
    write_pack(root / "pack", TUNED_STEPS * BATCH)
    weighted = _tune_weighted(root, {"alone": {"ranks_per_node": 1}})
    weighted |= _pretrain_sparse(root, {"alone-sparse": {"ranks_per_node": 1}})
    more = workspace(root / "alone-more")
    recipe = tiny_pretrain(BATCH, start_sample=STEPS * BATCH)
    pretrain(recipe, inputs | {"start": alone.path}, more)
    arguments = {"root": str(root), "layouts": LAYOUTS | FROM_ZERO}
    ranks = run_on_ranks(__file__, "train_layouts", 4, arguments=arguments)
    both = {"alone": alone.lines, "alone-more": more.lines, "alone-steps": tuned.lines, **weighted}
    return both | {"layouts": ranks[0], "silent": ranks[1:], "root": root}


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_goes_on_like_one_rank(runs: dict[str, Any], name: str) -> None:
    lines = runs["layouts"][name]
    assert [step for step, _ in lines] == list(range(SAVED_AT + 1, STEPS + 1))
    for (_, expected), (_, found) in zip(runs["alone"][SAVED_AT:], lines, strict=True):
        # 1e-5: float32 sums in another order, over at most 4 steps
        assert found["train__loss"] == pytest.approx(expected["train__loss"], abs=1e-5)
        assert found["train__grad_norm"] == pytest.approx(expected["train__grad_norm"], rel=1e-4)
        assert found["data__loss_tokens"] == expected["data__loss_tokens"]


@pytest.mark.parametrize("name", IN_STEPS)
def test_a_budget_in_real_tokens_trains_alike_on_every_layout(
    runs: dict[str, Any], name: str
) -> None:
    lines, alone = runs["layouts"]["steps"][name], runs["alone-steps"]
    assert len(lines) == len(alone) == 3
    for (_, expected), (_, found) in zip(alone, lines, strict=True):
        assert found["train__loss"] == pytest.approx(expected["train__loss"], abs=1e-5)
        assert found["train__grad_norm"] == pytest.approx(expected["train__grad_norm"], rel=1e-4)
        assert found["data__loss_tokens"] == expected["data__loss_tokens"]


@pytest.mark.parametrize("name", FROM_ZERO)
def test_drawn_weights_and_next_phase_are_those_of_one_rank(
    runs: dict[str, Any], name: str
) -> None:
    for suffix in ("", "-more"):
        found = [metrics["train__loss"] for _, metrics in runs["layouts"][name + suffix]]
        expected = [metrics["train__loss"] for _, metrics in runs["alone" + suffix]]
        assert found == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("name", WEIGHTED)
def test_weighted_fine_tuning_under_a_layout_is_that_of_one_rank(
    runs: dict[str, Any], name: str, loss: str
) -> None:
    expected = runs[f"alone-{loss}"]
    found = runs["layouts"][f"{name}-{loss}"]
    assert len(found) == len(expected) == TUNED_STEPS
    for (_, one), (_, other) in zip(expected, found, strict=True):
        # 1e-5: float32 sums in another order
        assert other["train__loss"] == pytest.approx(one["train__loss"], abs=1e-5)
        assert other["train__weighted_loss"] == pytest.approx(one["train__weighted_loss"], abs=1e-5)
        assert other["train__grad_norm"] == pytest.approx(one["train__grad_norm"], rel=1e-4)
    last = found[-1][1]
    assert abs(last["train__weighted_loss"] - last["train__loss"]) > 1e-3  # the weights are not 1


@pytest.mark.parametrize("name", SPARSE)
def test_the_masks_of_a_layout_are_those_of_one_rank(runs: dict[str, Any], name: str) -> None:
    from tests.training_inputs import load_module

    for (_, one), (_, other) in zip(runs["alone-sparse"], runs["layouts"][name], strict=True):
        # 2e-5: float32 sums in another order
        assert other["train__loss"] == pytest.approx(one["train__loss"], abs=2e-5)
        assert other["train__grad_norm"] == pytest.approx(one["train__grad_norm"], rel=1e-4)
    found, expected = (
        dict(load_module(runs["root"] / which / "path").named_parameters())
        for which in (name, "alone-sparse")
    )
    zeros = {key: (tensor == 0) for key, tensor in expected.items()}
    assert sum(int(one.sum()) for one in zeros.values()) > 10_000
    assert all(((found[key] == 0) == zero).all() for key, zero in zeros.items())


def test_only_the_first_rank_writes_metrics(runs: dict[str, Any]) -> None:
    for rank in runs["silent"]:
        assert all(lines == [] for name, lines in rank.items() if name not in NO_LINES)


@pytest.mark.parametrize("name", ["tensor parallel", "sequence parallel"])
def test_memory_on_two_tensor_ranks_is_within_fifteen_percent(
    runs: dict[str, Any], name: str
) -> None:
    for found in (runs["layouts"], *runs["silent"]):
        assert found["memory"][name] == pytest.approx(1.0, abs=0.15)


def test_a_layer_lost_on_one_rank_stops_all_of_them_at_the_start(runs: dict[str, Any]) -> None:
    told = [runs["layouts"]["lost layer"], *(rank["lost layer"] for rank in runs["silent"])]
    assert len(told) == 4
    for (message,) in told:
        assert message == told[0][0]
    assert "rank 3 (pipeline 1, tensor 1, data 0): 2 layers from 1" in told[0][0]
    assert "the recipe has 3 layers from 1" in told[0][0]


@pytest.mark.parametrize(
    "name", ["tp2-pp2", "fresh-distributed-optimizer", "fresh-distributed-overlap"]
)
def test_published_weights_load_on_one_rank(runs: dict[str, Any], name: str) -> None:
    from tests.training_inputs import load_module

    found, expected = (
        dict(load_module(runs["root"] / which / "path").state_dict()) for which in (name, "alone")
    )
    assert found.keys() == expected.keys()
    for key, tensor in expected.items():
        if tensor is not None:
            assert found[key].sub(tensor).abs().max() < 2e-5, key
