"""The 8B's own pattern, 52 layers at tiny width, on eight ranks, against one rank.

Every layout takes a step from the same drawn weights, on a blend and on packed conversations; a run
that changes from tensor to uneven pipeline parallelism takes two, the second from the checkpoint of
the first. Loss and gradient norm say whether forward and backward are those of one rank.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from frontload.recipes.errors import Stopped
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.machines.placement import Placement
from frontload.recipes.schema import Model, Pretrain
from tests.ranks import run_on_ranks
from tests.training_inputs import (
    SEQUENCE,
    tiny_model,
    tiny_training,
    workspace,
    write_blend,
    write_pack,
)

if TYPE_CHECKING:
    from frontload.megatron_ext.training.engine import Engine

pytestmark = pytest.mark.slow

BATCH, STEPS = 8, 2
UNEVEN = (5, 7, 7, 7, 7, 7, 7, 5)
LAYOUTS: dict[str, dict[str, Any]] = {
    "tp8-sp": {"tensor_parallel": 8, "sequence_parallel": True},
    "tp4-dp2-recompute": {"tensor_parallel": 4, "recompute": True},
    "tp4-pp2": {"tensor_parallel": 4, "pipeline_parallel": 2},
    "tp2-pp4-sp": {"tensor_parallel": 2, "pipeline_parallel": 4, "sequence_parallel": True},
    "pp8-uneven": {"pipeline_parallel": 8, "pipeline_layers": UNEVEN},
    "dp8-cut": {"distributed_optimizer": True},
    "tp2-pp2-dp2-cut": {
        "tensor_parallel": 2, "pipeline_parallel": 2, "distributed_optimizer": True,
    },
}  # fmt: skip
"""On eight ranks; `cut` has the optimizer's state cut over the data-parallel ranks."""
PACKED = ("tp8-sp", "tp4-pp2", "pp8-uneven")
CHANGES = ("tp8-sp", "pp8-uneven")
"""The first stops after a step, the second goes on from its checkpoint."""


def real_model() -> Model:
    """Tiny in width; pattern, groups and heads divide as the 8B's do."""
    path = find_recipe("models", "hybrid_8b")
    assert path is not None
    return tiny_model(
        pattern=load_recipe(path, Model).value.pattern,
        num_attention_heads=8,
        num_query_groups=8,
        kv_channels=4,
        mamba_num_heads=8,
        mamba_head_dim=8,
        mamba_state_dim=8,
        mamba_num_groups=8,
        init_std=0.05,
    )


def pretraining() -> Pretrain:
    samples = STEPS * BATCH
    training = tiny_training(samples, global_batch_sequences=BATCH)
    # Adam's first steps are the sign of the gradient: at a rate of 5e-3, 52 layers would make of a
    # gradient of 1e-9 that rounds to the other side a difference that is seen
    optimizer = replace(training.optimizer, learning_rate=1e-3, min_learning_rate=1e-4)
    training = replace(training, optimizer=optimizer)
    return Pretrain(model=real_model(), training=training, start_sample=0, num_samples=samples)


def placement(name: str) -> Placement:
    options = LAYOUTS[name]
    piped = "pipeline_parallel" in options
    return Placement(
        ranks_per_node=8,
        checkpoint_every_seconds=1e9,
        micro_batch_sequences=2 if piped else 0,
        **options,
    )


def take_steps(engine: "Engine", samples: Any, *, num_steps: int = 1) -> list[tuple[float, float]]:
    """Loss and gradient norm of each step from drawn weights.

    An engine that took steps before has their moments still: they say nothing of a first step's
    loss and gradient.
    """
    from frontload.megatron_ext.model.stack import initialise_weights
    from frontload.megatron_ext.training.engine import train_step
    from frontload.megatron_ext.training.schedule import learning_rate

    recipe = pretraining()
    initialise_weights(engine.module, recipe.model, recipe.training.seed)
    engine.optimizer.reload_model_params()
    found = []
    schedule, optimizer = recipe.training.schedule, recipe.training.optimizer
    for step in range(num_steps):
        rate = learning_rate(optimizer, schedule, (step + 1) * BATCH)
        result = train_step(engine, samples, first_sample=step * BATCH, learning_rate=rate)
        found.append((result.loss, result.grad_norm))
    return found


def steps_of(root: Path, places: dict[str, Placement]) -> dict[str, list[tuple[float, float]]]:
    """Both kinds of data under each placement, with the engine that was built for it."""
    from frontload.megatron_ext import cpu

    cpu.prepare()
    from frontload.megatron_ext.training.datasets import BlendSamples, PackSamples
    from frontload.megatron_ext.training.engine import build_engine

    inputs = {path.name: path for path in (root / "inputs").iterdir()}
    blend, pack = BlendSamples(inputs["blend"], inputs), PackSamples(root / "pack", SEQUENCE)
    recipe, found = pretraining(), {}
    for name, place in places.items():
        engine = build_engine(recipe.model, recipe.training, place)
        found[name] = take_steps(engine, blend, num_steps=STEPS if name == "alone" else 1)
        if name in PACKED or name == "alone":
            found[f"packed {name}"] = take_steps(engine, pack)
    return found


def train_eight(root: str) -> dict[str, Any]:
    """On a rank: every layout, and a run that changes its layout."""
    from frontload.megatron_ext.stages import pretrain

    top = Path(root)
    found: dict[str, Any] = steps_of(top, {name: placement(name) for name in LAYOUTS})
    inputs = {path.name: path for path in (top / "inputs").iterdir()}
    before, after = (workspace(top / "changes", placement=placement(name)) for name in CHANGES)
    before.lines, before.ask_to_stop_at = [(0, {})], 1
    with pytest.raises(Stopped):
        pretrain(pretraining(), inputs, before)
    pretrain(pretraining(), inputs, after)
    lines = [*before.lines[1:], *after.lines]
    found["changes"] = [metrics["train__loss"] for _, metrics in lines]
    return found


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """One rank alone, and everything else in one launch of eight."""
    root = tmp_path_factory.mktemp("real-pattern")
    write_blend(root / "inputs", STEPS * BATCH)
    write_pack(root / "pack", STEPS * BATCH)
    alone = steps_of(root, {"alone": Placement()})
    eight = run_on_ranks(
        __file__, "train_eight", 8, arguments={"root": str(root)}, timeout_seconds=900
    )[0]
    return {"blend": alone["alone"], "packed": alone["packed alone"], "eight": eight}


LOSS, NORM = 1e-5, 1e-4  # float32 sums in another order through 52 layers; absolute, relative


def check_equal(found: list[list[float]], expected: list[tuple[float, float]]) -> None:
    (loss, norm), (loss_alone, norm_alone) = found[0], expected[0]
    assert loss == pytest.approx(loss_alone, abs=LOSS)
    assert norm == pytest.approx(norm_alone, rel=NORM)


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout_trains_like_one_rank(runs: dict[str, Any], name: str) -> None:
    check_equal(runs["eight"][name], runs["blend"])


@pytest.mark.parametrize("name", PACKED)
def test_packed_conversations_with_resets(runs: dict[str, Any], name: str) -> None:
    check_equal(runs["eight"][f"packed {name}"], runs["packed"])


def test_uneven_pipeline_goes_on_from_tensor_parallel(runs: dict[str, Any]) -> None:
    expected = [loss for loss, _ in runs["blend"]]
    assert runs["eight"]["changes"] == pytest.approx(expected, abs=LOSS)
