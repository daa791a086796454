"""A stage as a file of a job, and back; the order of mappings decides nothing."""

from dataclasses import replace

import pytest

from frontload.data_tools.raw_stages import in_key_order
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.curation import load_curation
from frontload.recipes.stage import RECIPE_TYPES, Stage, canonical
from frontload.recipes.stage_file import StageFile, from_json, read_as, to_json
from frontload.recipes.study.expand import load_study


@pytest.mark.parametrize("study", ["laptop", "paper_8b", "paper_tiny", "own_data", "single_gpu"])
def test_a_stage_comes_back_from_its_file_with_its_key(study: str) -> None:
    for stage in load_study(study).stages:
        file = StageFile(
            kind=stage.kind,
            label=stage.label,
            key=stage.key,
            payload=stage.payload(),
            recipe=stage.recipe,
            inputs={},
            placement=Placement(),
            work=0.0,
        )
        back = from_json(to_json(file))
        again = Stage(kind=back.kind, label="", recipe=back.recipe, inputs=stage.inputs)
        assert again.key == stage.key, stage.folder
        assert type(back.recipe) is RECIPE_TYPES[stage.kind]


def test_a_curation_is_made_in_one_order_whatever_order_it_was_written_in() -> None:
    curation = load_curation("paper_sets").value
    backwards = replace(
        curation,
        sources=dict(reversed(curation.sources.items())),
        sets=dict(reversed(curation.sets.items())),
    )
    assert canonical(backwards) == canonical(curation), "one key"
    one, other = in_key_order(curation), in_key_order(backwards)
    assert list(one.sets) == list(other.sets)
    assert list(one.sources) == list(other.sources)
    for name in one.sets:
        before = list(one.sets)[: list(one.sets).index(name)]
        members = [member for member in one.sets[name].members if member in one.sets]
        assert all(member in before for member in members)
    assert read_as(type(curation), canonical(curation)) == curation
