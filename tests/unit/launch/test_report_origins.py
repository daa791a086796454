"""Where the numbers of a report come from, also of cells that several suites score."""

from pathlib import Path

from frontload.launch.shown.reporting import origins_of
from frontload.recipes.study.expand import load_study


def test_each_suite_of_a_cell_names_its_evaluation_and_seed() -> None:
    study = load_study(
        "smoke", overrides=["seeds=[1, 4]", "evaluation.suites_of_tuned=[sft, base]"]
    )
    folders = {stage.key: Path(stage.folder) for stage in study.stages}
    found = origins_of(study, folders)["pt:LMQ>sft:SHQ"]
    assert [one.seed for one in found] == [1, 1, 4, 4]
    assert len({one.evaluation for one in found}) == 4
    assert {one.folder.as_posix() for one in found} == {one.evaluation for one in found}
    assert len({one.checkpoint for one in found}) == 2
