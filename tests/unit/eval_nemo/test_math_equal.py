"""Our grader beside NeMo-Skills' math_equal on GSM8K and MATH-500 golds: where they differ.

math_equal.json holds every difference among 1,562 pairs of a gold answer and a spelling of it.
"""

import json
import subprocess
from contextlib import closing
from pathlib import Path

import pytest

from frontload.eval.grading.grade import Grader, Kind, Reference
from frontload.eval.grading.layout import AnswerLayout
from frontload.eval.nemo.environment import FOLDER, python_of

HERE = Path(__file__).parent
ENVIRONMENT = HERE.parents[2] / FOLDER
CLASSES = json.loads((HERE / "math_equal.json").read_text(encoding="utf-8"))["classes"]
PAIRS = [pair for one in CLASSES for pair in one["pairs"]]
ASK = """
import json, sys
from nemo_skills.evaluation.math_grader import math_equal
pairs = json.load(sys.stdin)
print(json.dumps([bool(math_equal(one["gold"], one["answer"])) for one in pairs]))
"""


def test_we_judge_the_listed_pairs_as_the_page_says() -> None:
    with closing(Grader()) as grader:
        found = [
            grader.grade(
                f"\\boxed{{{pair['answer']}}}",
                Reference(
                    gold=pair["gold"], kind=Kind.ANSWER, layout=AnswerLayout.BOXED, question=""
                ),
            ).correct
            for pair in PAIRS
        ]
    assert found == [not pair["nemo_accepts"] for pair in PAIRS]


def test_the_page_counts_what_is_listed() -> None:
    page = (HERE.parents[2] / "eval" / "nemo" / "README.md").read_text(encoding="utf-8")
    for one in CLASSES:
        assert f"| {one['why']} | {len(one['pairs'])} | {one['right']} |" in page


@pytest.mark.slow
@pytest.mark.skipif(
    not (ENVIRONMENT / "environment.json").is_file(),
    reason="no .nemo-skills: make it with `frontload eval environment nemo-skills`",
)
def test_nemo_skills_judges_them_as_listed() -> None:
    asked = [str(python_of(ENVIRONMENT)), "-c", ASK]
    ended = subprocess.run(
        asked, input=json.dumps(PAIRS), capture_output=True, text=True, check=True, env={}
    )
    found = json.loads(ended.stdout.splitlines()[-1])
    assert found == [pair["nemo_accepts"] for pair in PAIRS]
