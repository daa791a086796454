"""The stages of a study that ask benchmarks: rows proved, answers kept, a server in between."""

import json
import os
import re
import shutil
import socket
import sys
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from frontload.eval.benchmark_stages import ask_benchmarks, import_benchmarks
from frontload.eval.protocol.answers import GenerationRequest, LoglikelihoodRequest
from frontload.eval.protocol.data_root import DataRoot
from frontload.eval.protocol.in_process import load_in_process
from frontload.eval.serving.vllm_process import VllmSettings, vllm_answerer, vllm_command
from frontload.recipes.errors import ArtifactError, RecipeError, StageError, Stopped
from frontload.recipes.machines.placement import Placement
from frontload.recipes.runs.suite import BenchmarkRows, SuiteRun
from tests.training_inputs import tiny_model
from tests.unit.eval_protocol.protocol_inputs import CONTEXT, few, write_tokenizer
from tests.unit.megatron_ext.convert_inputs import write_checkpoint


@dataclass
class Work:
    """A workspace that is asked to stop after some answers."""

    path: Path
    scratch: Path
    placement: Placement = field(default_factory=Placement)
    key: str = "k"
    stops_after: int = 10**9
    seen: list[tuple[int, int, str]] = field(default_factory=list)

    def progress(self, done: int, total: int, *, note: str = "") -> None:
        self.seen.append((done, total, note))

    def stop_asked(self) -> bool:
        return len(self.seen) > self.stops_after


def work(folder: Path, *, stops_after: int = 10**9) -> Work:
    for name in ("path", "scratch"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    return Work(path=folder / "path", scratch=folder / "scratch", stops_after=stops_after)


@pytest.fixture(scope="module")
def inputs(made_root: DataRoot, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The folders of the stages below, as a store has them."""
    folder = tmp_path_factory.mktemp("inputs")
    write_tokenizer(folder / "tokenizer")
    model = tiny_model(vocab_size=340, max_sequence_tokens=CONTEXT, pattern="M-")
    (folder / "checkpoint").mkdir()
    write_checkpoint(folder / "checkpoint", model, scale=0.3)
    rows = work(folder / "rows")
    recipe = BenchmarkRows(root=str(made_root.folder), revision="1")
    import_benchmarks(recipe, {}, rows)  # pyright: ignore[reportArgumentType]
    names = {name: folder / name for name in ("tokenizer", "checkpoint")}
    return {**names, "rows": rows.path}


RUN = SuiteRun(
    suite=few("sft", "math500", "mmlu", longest=6), size="tiny", answerer="frontload", seed=1
)


def test_a_stage_that_is_asked_to_stop_goes_on_to_the_same_bytes(
    inputs: dict[str, Path], tmp_path: Path
) -> None:
    whole = work(tmp_path / "whole")
    ask_benchmarks(RUN, inputs, whole)  # pyright: ignore[reportArgumentType]
    assert whole.seen[-1] == (16, 16, "mmlu")
    for stop in (7, 20):
        part = work(tmp_path / "part", stops_after=stop)
        with suppress(Stopped):
            ask_benchmarks(RUN, inputs, part)  # pyright: ignore[reportArgumentType]
            pytest.fail("it was asked to stop")
    assert not (tmp_path / "part" / "path" / "scores.json").exists()
    ask_benchmarks(RUN, inputs, work(tmp_path / "part"))  # pyright: ignore[reportArgumentType]
    names = sorted(path.name for path in whole.path.iterdir())
    assert names == [
        *("evaluation.json", "items.jsonl", "questions.jsonl", "samples.jsonl", "scores.json")
    ]
    for name in names:
        assert (tmp_path / "part" / "path" / name).read_bytes() == (whole.path / name).read_bytes()


def test_rows_that_changed_after_the_import_are_refused(
    inputs: dict[str, Path], tmp_path: Path, made_root: DataRoot
) -> None:
    """The proof that was imported counts, not a manifest that was written anew."""
    rows = tmp_path / "rows"
    rows.mkdir()
    found = json.loads((inputs["rows"] / "proof.json").read_text())
    for one in found["splits"]:
        one["sha256"] = "0" * 64
    (rows / "proof.json").write_text(json.dumps(found))
    (rows / "rows.json").write_bytes((inputs["rows"] / "rows.json").read_bytes())
    with pytest.raises(ArtifactError, match="other bytes than its manifest proves"):
        ask_benchmarks(RUN, inputs | {"rows": rows}, work(tmp_path))  # pyright: ignore


def test_a_study_without_rows_is_refused(tmp_path: Path) -> None:
    recipe = BenchmarkRows(root=str(tmp_path / "none"), revision="1")
    with pytest.raises(RecipeError, match="frontload eval data --root"):
        import_benchmarks(recipe, {}, work(tmp_path))  # pyright: ignore[reportArgumentType]


def test_a_server_that_ends_before_it_answers_says_why(tmp_path: Path) -> None:
    says = "import sys; print('no GPU here', file=sys.stderr); sys.exit(3)"
    settings = VllmSettings(
        model=tmp_path, log=tmp_path / "log", program=(sys.executable, "-c", says)
    )
    with pytest.raises(StageError, match="code 3: no GPU here"), vllm_answerer(settings):
        pass
    missing = VllmSettings(model=tmp_path, log=tmp_path / "log", program=("no-such-vllm",))
    with pytest.raises(RecipeError, match="no program no-such-vllm"), vllm_answerer(missing):
        pass
    command = vllm_command(VllmSettings(model=Path("m"), log=tmp_path / "log"), port=7)
    assert command == ["vllm", "serve", "m", "--host", "127.0.0.1", "--port", "7"]


def test_a_server_in_vllms_place_answers_what_the_checkpoint_answers(
    inputs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`frontload serve` speaks vLLM's protocol; it is started, asked and ended by the same code."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(path for path in sys.path if path))
    folder = tmp_path / "served"
    shutil.copytree(inputs["checkpoint"], folder)
    shutil.copy(inputs["tokenizer"] / "tokenizer.json", folder)
    serve = (sys.executable, "-m", "frontload.launch.cli", "serve", "--tokenizer", str(folder))
    settings = VllmSettings(model=folder, log=tmp_path / "log", program=serve)
    local = load_in_process(inputs["checkpoint"], inputs["tokenizer"])
    asked = [
        GenerationRequest(
            key=str(seed),
            prompt="Ada has 12 apples",
            messages=None,
            seed=seed,
            temperature=1.0,
            top_p=1.0,
            max_new_tokens=8,
            stop=(),
        )
        for seed in range(3)
    ]
    option = LoglikelihoodRequest(key="o", context="Ada has", continuation=" 12 apples")
    with vllm_answerer(settings) as served:
        assert dict(served.generate(asked)) == dict(local.generate(asked))
        ((_, remote),) = served.loglikelihood([option])
        ((_, own),) = local.loglikelihood([option])
        assert remote.total == pytest.approx(own.total, abs=1e-4)
        (port,) = set(re.findall(r"127\.0\.0\.1:(\d+)", (tmp_path / "log").read_text()))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", int(port))) != 0, "it ended with the block"
