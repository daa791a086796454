"""What travels between the rollout and veRL's trainer: the columns that somebody reads."""

import pytest
from omegaconf import OmegaConf

from frontload.megatron_ext.inference.generate import Response
from frontload.rl.plugins.agent_loop import PromptRow, objects_read, rows_for_queue

TENSORS = {
    "prompts",
    "responses",
    "input_ids",
    "position_ids",
    "response_mask",
    "loss_mask",
    "rollout_log_probs",
    "rm_scores",
}
DUMP = {"rollout_data_dir": "answers"}


@pytest.mark.parametrize(
    ("trainer", "is_validation", "objects"),
    [
        ({}, False, {"uid", "num_turns"}),
        (DUMP, False, {"uid", "num_turns", "reward_model"}),
        (DUMP, True, {"uid", "num_turns", "reward_model", "data_source", "extra_fields"}),
    ],
)
def test_a_row_carries_what_veRL_reads(
    trainer: dict[str, str], *, is_validation: bool, objects: set[str]
) -> None:
    gold = {"ground_truth": "7"}
    row = {"uid": "u", "data_source": "own", "reward_model": gold, "extra_info": {"kind": "k"}}
    prompts = [PromptRow(uid="u", tokens=[1, 2, 3], row=row)]
    groups = [[Response(tokens=[4, 5], log_probabilities=[-1.0, -2.0])] * 2]
    names = objects_read(OmegaConf.create({"trainer": trainer}), is_validation=is_validation)
    scores = [[{"score": 1.0, "format": 1.0}, {"score": 0.0, "format": 1.0}]]
    keys, columns, tags = rows_for_queue(prompts, groups, scores, step=3, names=names)
    assert set(columns.keys()) == TENSORS | objects
    assert keys == ["u_0_0", "u_1_0"]
    assert [tag["score"] for tag in tags] == [1.0, 0.0]
    assert {tag["max_global_steps"] for tag in tags} == {2}
    assert list(columns["uid"]) == ["u", "u"]
    if is_validation:
        first = {"reward_extra_info": {"score": 1.0, "format": 1.0}}
        assert list(columns["extra_fields"])[0] == first
        assert list(columns["reward_model"]) == [gold, gold]
