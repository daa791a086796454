"""Making the environment of NeMo-Skills, and running it, with a stand-in for its repository."""

import json
from pathlib import Path

import pytest

from frontload.eval.nemo import environment as module
from frontload.eval.nemo.environment import make_environment, python_of, read_environment
from frontload.launch.cli import main
from frontload.launch.doctor.finding import NOTE, OK
from frontload.launch.doctor.software import harness_finding
from frontload.recipes.errors import ArtifactError, RecipeError, StageError
from tests.unit.eval_nemo.standin import make_repository


@pytest.fixture(scope="module", autouse=True)
def lock(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A lock file without packages: the real one is a download of 1.3 GB."""
    path = tmp_path_factory.mktemp("lock") / "lock.txt"
    path.write_text("# nothing\n")
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "LOCK", path)
    yield
    patch.undo()


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("repository")
    return folder, make_repository(folder)


@pytest.fixture(scope="module")
def made(repository: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "environment"
    source, commit = repository
    words = ["eval", "environment", "nemo-skills", "--from", str(source), "--commit", commit[:9]]
    assert main([*words, "--folder", str(folder)]) == 0
    return folder


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    path = tmp_path / "rows.jsonl"
    row = {"question": "How many?", "answer": "so many\n#### 1,234"}
    path.write_text((json.dumps(row) + "\n") * 3)
    return path


def ask(made: Path, rows: Path, out: Path, *flags: str, benchmark: str = "gsm8k") -> int:
    words = ["eval", "nemo-skills", "http://127.0.0.1:9/v1", "--benchmark", benchmark]
    words += ["--rows", str(rows), "--out", str(out), "--folder", str(made)]
    return main([*words, *(flags or ("--model", "m"))])


def test_the_commit_is_recorded_and_a_second_call_makes_nothing(
    made: Path, repository: tuple[Path, str]
) -> None:
    source, commit = repository
    found = read_environment(made)
    assert found is not None
    assert (found.commit, found.source) == (commit, str(source))
    assert python_of(made).is_file()
    before = (made / "environment.json").stat().st_mtime_ns
    assert make_environment(made, source=str(source), commit=commit) == found
    assert (made / "environment.json").stat().st_mtime_ns == before
    assert sorted(one.name for one in made.iterdir()) == ["environment.json", "venv"]


def test_doctor_says_whether_it_is_there_and_how_to_get_it(made: Path, tmp_path: Path) -> None:
    assert harness_finding(made).state == OK
    absent = harness_finding(tmp_path / "none")
    assert (absent.state, absent.do) == (NOTE, "frontload eval environment nemo-skills")
    assert "native runner" in absent.found


def test_a_run_says_who_made_its_numbers(
    made: Path, rows: Path, tmp_path: Path, repository: tuple[Path, str],
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("PYTHONPATH", "/elsewhere")
    out = tmp_path / "out"
    flags = ("--model", "m", "--samples", "4", "--max-rows", "2", "--max-new-tokens", "99")
    assert ask(made, rows, out, *flags) == 0
    scores = json.loads((out / "scores.json").read_text())
    protocol, numbers = scores["protocol"], scores["metrics"]["pass@1"]
    assert protocol["runner"] == "nemo-skills"
    assert protocol["commit"] == repository[1]
    assert (protocol["num_rows"], protocol["num_samples"]) == (2, 4)
    assert numbers["first"] == {"problem": "How many?", "expected_answer": "1234"}
    assert (numbers["rows"], numbers["offline"], numbers["python"]) == (3, "1", None)
    for word in ("--server_type=vllm", "--benchmarks=gsm8k:4", "++max_samples=2",
                 "++inference.tokens_to_generate=99", "++inference.temperature=0.7"):  # fmt: skip
        assert word in numbers["argv"]
    assert f"runner: nemo-skills {repository[1][:12]}, n = 2 rows" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("benchmark", "flags", "code", "named"),
    [
        ("gsm9k", (), 2, "its benchmarks are gsm8k"),
        ("gsm8k", ("--model", "m9"), 1, "the server does not answer"),
        ("gsm8k", ("--model", "m", "--samples", "0"), 2, "--samples"),
        ("gsm8k", ("--model", "m", "--top-p", "1.5"), 2, "--top-p"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    made: Path, rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    benchmark: str, flags: tuple[str, ...], code: int, named: str,
) -> None:  # fmt: skip
    assert ask(made, rows, tmp_path / "out", *flags, benchmark=benchmark) == code
    assert named in capsys.readouterr().err
    assert not (tmp_path / "out" / "scores.json").exists()


@pytest.mark.parametrize("text", ["", '{"question": "a", "answer": "b"}\n', "{\n"])
def test_rows_that_are_none_are_refused(made: Path, tmp_path: Path, text: str) -> None:
    rows = tmp_path / "rows.jsonl"
    rows.write_text(text)
    assert ask(made, rows, tmp_path / "out") == 2
    assert not (tmp_path / "out").exists()


def test_without_an_environment_nothing_is_installed(
    rows: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert ask(tmp_path / "none", rows, tmp_path / "out") == 2
    assert "frontload eval environment nemo-skills" in capsys.readouterr().err
    assert sorted(one.name for one in tmp_path.iterdir()) == ["rows.jsonl"]


def test_one_that_was_not_finished_is_refused_and_made_again(
    repository: tuple[Path, str], tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    commit = make_repository(broken, is_broken=True)
    folder = tmp_path / "environment"
    with pytest.raises(StageError, match="no_such_module"):
        make_environment(folder, source=str(broken), commit=commit)
    with pytest.raises(ArtifactError, match="not finished"):
        read_environment(folder)
    assert harness_finding(folder).state == NOTE
    source, commit = repository
    assert make_environment(folder, source=str(source), commit=commit).commit == commit


def test_another_lock_file_makes_it_stale(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOCK", Path(module.__file__).with_name("lock.txt"))
    with pytest.raises(ArtifactError, match="another lock file"):
        read_environment(made)


def test_wrong_sources_and_folders_leave_everything_as_it_is(
    made: Path, repository: tuple[Path, str], tmp_path: Path
) -> None:
    source, commit = repository
    with pytest.raises(RecipeError, match="no git repository with commit 0123"):
        make_environment(made, source=str(source), commit="0123456789")
    with pytest.raises(RecipeError, match="neither a folder here nor what git can clone"):
        make_environment(made, source=str(tmp_path / "none"), commit="0" * 40)
    assert read_environment(made) is not None
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RecipeError, match="no environment of this command"):
        make_environment(tmp_path / "mine", source=str(source), commit=commit)
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "x"


def test_the_lock_file_has_names_and_versions_only() -> None:
    lines = Path(module.__file__).with_name("lock.txt").read_text().splitlines()
    packages = [line for line in lines if not line.startswith("#")]
    assert len(packages) > 100
    assert all(line.count("==") == 1 and "/" not in line and "@" not in line for line in packages)
