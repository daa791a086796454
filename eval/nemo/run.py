"""Asks NeMo-Skills to evaluate the model behind a server, on rows that we lay out for it."""

import json
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from frontload.eval.nemo.environment import NemoEnvironment, python_of, read_environment
from frontload.recipes.artifact import write_json
from frontload.recipes.errors import ArtifactError, RecipeError, StageError

ROW_FIELDS = ("problem", "expected_answer")
OURS = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
OFFLINE = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


@dataclass(frozen=True, kw_only=True)
class NemoRun:
    """One benchmark, asked of one model."""

    benchmark: str  # NeMo-Skills' name of it
    url: str  # the server's base, which ends in /v1
    model: str
    num_samples: int
    temperature: float
    top_p: float
    max_new_tokens: int
    max_rows: int | None = None  # the first ones only


@dataclass(frozen=True, kw_only=True)
class NemoScores:
    """What NeMo-Skills found, as it wrote it: kind of average -> name -> number."""

    protocol: Mapping[str, Any]
    metrics: Mapping[str, Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class NemoPlace:
    """Where NeMo-Skills lies and writes, and the caller's environment variables."""

    environment: Path
    out: Path
    variables: Mapping[str, str]


def run_nemo(run: NemoRun, rows: Sequence[Mapping[str, Any]], *, place: NemoPlace) -> NemoScores:
    """Evaluates, and keeps every answer below `out`. Called again it goes on where it was.

    Raises: RecipeError without an environment or for a benchmark that it lacks; StageError when
            NeMo-Skills fails.
    """
    environment, out = place.environment, place.out.resolve()
    made = read_environment(environment)
    if made is None:
        raise RecipeError(
            f"NeMo-Skills in {environment}",
            found="no environment",
            rule="NeMo-Skills runs from packages of its own, and nothing is installed at run time",
            do="run `frontload eval environment nemo-skills` once, or score with the native runner",
        )
    _check_rows(run, rows)
    data = out / "data"
    _lay_rows(run, rows, data=data, environment=environment)
    command = _command(run, environment=environment, data=data, out=out)
    log = out / "nemo-skills.log"
    with open(log, "ab") as stream:
        ended = subprocess.run(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=_variables(place),
            cwd=out,
            check=False,
        )
    metrics = out / "eval-results" / run.benchmark / "metrics.json"
    if ended.returncode or not metrics.is_file():
        raise StageError(
            f"ns eval --benchmarks={run.benchmark}",
            found=f"it ended with {ended.returncode}: {_last_line(log)}",
            rule=f"it writes {metrics.name} when every row was answered and graded",
            do=f"read {log}, then run the same command again: its answers are kept",
        )
    return NemoScores(
        protocol=_protocol(run, made, num_rows=len(rows)), metrics=_metrics(metrics, run.benchmark)
    )


def write_scores(scores: NemoScores, path: Path) -> None:
    """Writes them with the protocol that they were made by."""
    write_json(path, {"protocol": scores.protocol, "metrics": scores.metrics})


def _check_rows(run: NemoRun, rows: Sequence[Mapping[str, Any]]) -> None:
    for number, row in enumerate(rows):
        lost = [name for name in ROW_FIELDS if name not in row]
        if lost:
            raise RecipeError(
                f"rows of {run.benchmark}, row {number}",
                found=f"no field {lost[0]}",
                rule=f"a row for NeMo-Skills has {' and '.join(ROW_FIELDS)}",
                do="name the fields so",
            )
    if not rows:
        raise RecipeError(
            f"rows of {run.benchmark}",
            found="none",
            rule="a benchmark has one row or more",
            do="name another file",
        )


def _lay_rows(
    run: NemoRun, rows: Sequence[Mapping[str, Any]], *, data: Path, environment: Path
) -> None:
    """The folder that `--data_dir` wants: the benchmark's own defaults beside our rows."""
    package = next((environment / "venv" / "lib").glob("python3*/site-packages/nemo_skills"))
    defaults = package / "dataset" / run.benchmark / "__init__.py"
    if not defaults.is_file():
        there = sorted(path.parent.name for path in package.glob("dataset/*/__init__.py"))
        raise RecipeError(
            f"benchmark {run.benchmark}",
            found="NeMo-Skills has none of that name",
            rule="its benchmarks are " + ", ".join(there),
            do="name one of them",
        )
    folder = data / run.benchmark
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(defaults, folder / "__init__.py")
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / "test.jsonl").write_text(text, encoding="utf-8")


def _command(run: NemoRun, *, environment: Path, data: Path, out: Path) -> list[str]:
    most = [] if run.max_rows is None else [f"++max_samples={run.max_rows}"]
    return [
        str(python_of(environment).with_name("ns")),
        "eval",
        "--server_type=vllm",
        f"--server_address={run.url}",
        f"--model={run.model}",
        f"--benchmarks={run.benchmark}:{run.num_samples}",
        f"--output_dir={out}",
        f"--data_dir={data}",
        f"++inference.tokens_to_generate={run.max_new_tokens}",
        f"++inference.temperature={run.temperature}",
        f"++inference.top_p={run.top_p}",
        *most,
    ]


def _variables(place: NemoPlace) -> dict[str, str]:
    """The caller's variables without its own Python, and no way to the hub."""
    own = str(python_of(place.environment).parent)
    kept = {name: value for name, value in place.variables.items() if name not in OURS}
    return kept | OFFLINE | {"PATH": f"{own}:{kept.get('PATH', '')}"}


def _protocol(run: NemoRun, made: NemoEnvironment, *, num_rows: int) -> dict[str, Any]:
    num_rows = min(run.max_rows or num_rows, num_rows)
    return {"runner": "nemo-skills", "num_rows": num_rows, **asdict(run), **asdict(made)}


def _metrics(path: Path, benchmark: str) -> Mapping[str, Mapping[str, Any]]:
    try:
        return json.loads(path.read_text())[benchmark]
    except (ValueError, KeyError) as error:
        raise ArtifactError(
            f"metrics of NeMo-Skills {path}",
            found=f"no numbers of {benchmark} ({error!r})",
            rule="it holds them by benchmark",
            do="delete it and run the same command again",
        ) from error


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1][-300:] if lines else "it wrote nothing"
