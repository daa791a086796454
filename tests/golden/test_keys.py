"""The keys of the studies that ship: a key that moves is a visible line in review.

`make golden` writes keys.txt again; the commit says why they moved.
"""

import os
from pathlib import Path

from frontload.recipes.study.expand import load_study

GOLDEN = Path(__file__).with_name("keys.txt")
STUDIES = (
    *("laptop", "own_data", "smoke", "single_gpu", "single_gpu_tiny"),
    *("paper_8b", "paper_tiny"),
)


def current() -> str:
    """One line a stage: study, folder."""
    lines = [f"{name} {stage.folder}\n" for name in STUDIES for stage in load_study(name).stages]
    return "".join(lines)


def test_the_keys_of_the_shipped_studies_are_those_in_the_file() -> None:
    found = current()
    if os.environ.get("FRONTLOAD_GOLDEN") == "write":
        GOLDEN.write_text(found)
    expected = set(GOLDEN.read_text().splitlines())
    moved = sorted(set(found.splitlines()) ^ expected)
    assert not moved, "run `make golden` and say in the commit why these moved:\n" + "\n".join(
        moved
    )


def test_a_three_seed_study_keeps_the_keys_of_the_first_seed() -> None:
    golden = set(GOLDEN.read_text().splitlines())
    three = {
        f"laptop {stage.folder}"
        for stage in load_study("laptop", overrides=["seeds=[1, 2, 3]"]).stages
    }
    assert {line for line in golden if line.startswith("laptop ")} - three == {
        line for line in golden if line.startswith("laptop tabulate/")
    }
