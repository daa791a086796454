"""The real NeMo-Skills on our server, where `eval environment nemo-skills` has made it."""

import json
import os
from pathlib import Path

import pytest

from frontload.eval.nemo.environment import FOLDER, read_environment
from frontload.eval.nemo.run import NemoPlace, NemoRun, run_nemo
from tests.unit.eval_serving.small_server import NAME, make_small, serve

ENVIRONMENT = Path(__file__).resolve().parents[3] / FOLDER


@pytest.mark.slow
@pytest.mark.skipif(
    not (ENVIRONMENT / "environment.json").is_file(),
    reason="no .nemo-skills: make it with `frontload eval environment nemo-skills`",
)
def test_ns_eval_asks_our_server_and_grades(tmp_path: Path) -> None:
    assert read_environment(ENVIRONMENT) is not None
    rows = [{"problem": f"{n} + 1 ?", "expected_answer": str(n + 1)} for n in range(3)]
    with serve(make_small(tmp_path / "small", context=512)) as running:
        run = NemoRun(
            benchmark="gsm8k", url=running.url, model=NAME, num_samples=2, temperature=0.7,
            top_p=0.95, max_new_tokens=20,
        )  # fmt: skip
        place = NemoPlace(environment=ENVIRONMENT, out=tmp_path / "out", variables=dict(os.environ))
        scores = run_nemo(run, rows, place=place)
        assert running.server.answers.num_answered == 6
    assert scores.metrics["pass@1[avg-of-2]"]["num_entries"] == 3
    written = (tmp_path / "out/eval-results/gsm8k/output-rs1.jsonl").read_text().splitlines()
    assert [json.loads(line)["expected_answer"] for line in written] == ["1", "2", "3"]
