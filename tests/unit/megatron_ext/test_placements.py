"""Every combination that cannot run is refused before anything is built, with both numbers."""

import dataclasses
from typing import Any

import pytest

from frontload.megatron_ext import cpu

cpu.prepare()

from frontload.megatron_ext.ranks.parallelism import check_placement  # noqa: E402
from frontload.recipes.errors import RecipeError  # noqa: E402
from frontload.recipes.facts.layout import Batching  # noqa: E402
from frontload.recipes.machines.placement import Placement  # noqa: E402
from tests.training_inputs import tiny_model, tiny_training  # noqa: E402


@pytest.mark.parametrize(
    ("options", "numbers"),
    [
        ({"ranks_per_node": 4, "tensor_parallel": 4}, ("4", "2")),
        ({"ranks_per_node": 3, "pipeline_parallel": 3}, ("3", "4")),
        ({"ranks_per_node": 3}, ("4", "3")),
        ({"ranks_per_node": 3, "tensor_parallel": 2}, ("3", "2")),
        ({"micro_batch_sequences": 3}, ("3", "4")),
        ({"sequence_parallel": True}, ("1", "32")),
        ({"ranks_per_node": 2, "context_parallel": 2}, ("2",)),
    ],
)
def test_impossible_layout_is_refused(options: dict[str, Any], numbers: tuple[str, ...]) -> None:
    with pytest.raises(RecipeError) as caught:
        check_placement(tiny_model(), tiny_training(8), Placement(**options))
    assert all(number in caught.value.found for number in numbers), str(caught.value)


def test_tied_embeddings_and_pipeline_are_refused_on_a_cpu() -> None:
    placement = Placement(ranks_per_node=2, pipeline_parallel=2)
    with pytest.raises(RecipeError, match="tie_embeddings"):
        check_placement(tiny_model(tie_embeddings=True), tiny_training(8), placement)


def test_batch_is_cut_over_ranks_and_micro_batches() -> None:
    placement = Placement(ranks_per_node=2, micro_batch_sequences=1)
    training = dataclasses.replace(tiny_training(8), global_batch_sequences=8)
    found = check_placement(tiny_model(), training, placement)
    assert found == Batching(data_parallel=2, num_micro_batches=4, micro_sequences=1)
