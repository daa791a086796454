"""The command line: exit codes, messages, speed of the commands that only look."""

import errno
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from frontload.launch import cli, commands
from frontload.launch.shown import reporting
from frontload.launch.store import Store, Ticket
from frontload.recipes.grammar.load import RECIPES
from frontload.recipes.study.expand import load_study

TP2 = ["placement.tensor_parallel=2"]

PREPROCESS = ["preprocess", "--input", "a.jsonl", "--output-prefix", "P", "--tokenizer", "T"]


def call(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = cli.main(arguments)
    out, err = capsys.readouterr()
    return code, out, err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["plam", "smoke"], "write 'plan'"),
        (["plan", "smok"], "write 'smoke'"),
        (["plan", "smoke", "--sedes", "3"], "write '--seeds'"),
        (["plan", "smoke", "--seed", "3"], "plan --seed: '--seed' is not understood"),
        (["plan", "smoke", "--seed=3"], "write '--seeds'"),
        (["run", "smoke", "--work", "1"], "write '--workers'"),
        (["estimate", "hybrid_8b", "--placemen", "slurm"], "write '--placement'"),
        (["estimate", "hybrid_8b", "--placement", "slurm", "--pre", "fp32"], "'--precision'"),
        (["launch", "grpo_8b", "--placement", "slurm", "--dry"], "write '--dry-run'"),
        (["train", "sft_tiny", "--ou", "x"], "write '--out'"),
        (["rl", "grpo_tiny", "--out", "x", "--p", "y"], "write '--placement' or '--prompts'"),
        (["convert", "to-hf", "x", "y", "--tok", "z"], "write '--tokenizer'"),
        (["doctor", "--bri"], "write '--brief'"),
        (["doctor", "--gpus", "-1"], "doctor --gpus: is -1; it is 0 or more"),
        (["doctor", "--probe-seconds", "nan", "--bisect", "a"], "is nan; it is above 0"),
        (["data", "pack", "x", "--seq", "8"], "write '--sequence-tokens'"),
        (["data", *PREPROCESS, "--append"], "write '--append-eod'"),
        (["plan", "smoke", "--seeds", "three"], "no list of numbers"),
        (["plan", "smoke", "sft.learnig_rate=1.0e-5"], "write 'learning_rate'"),
        (["plan", "smoke", "sft.tokens=1e5"], "write 100_000"),
        (["plan", "smoke", "--workers", "-3"], "write 1 or more"),
        (["plan", "smoke", "--workers", "0"], "--workers: is 0; --workers is 1 or more"),
        (["allocate", "laptop", "--plan", "--workers", "0"], "write 1 or more"),
        (["data", *PREPROCESS, "--chat", "--json-key", "text"], "leave one of the two out"),
        (["plan", "smoke", "placement.ranks_per_node=2", *TP2], "must divide mamba_num_groups"),
        (["plan", "smoke", *TP2, "model.mamba_num_groups=2"], "multiple of 2 ranks"),
        (["plan", "smoke", "placement.ranks_per_node=3"], "smoke.yaml:"),
        (["plan", "smoke", "placement.pipeline_parallel=64"], "pipeline stages hold the same"),
        (["plan", "smoke", "sft.tokens="], "no value after the equals sign"),
        (["run", "smoke", "--store", "/dev/null"], "it is not a folder"),
        (["status", "smoke", "--store", "/dev/null"], "it is not a folder"),
        (["run", "smoke", "--out", "/dev/null/out"], "not a folder"),
        (["run", "smoke", "--out", "/proc/out"], "no folder can be made there"),
        (["allocate", "smoke", "--out", "/proc/out"], "no folder can be made there"),
        (["plan", "laptp"], "it is one of controls, laptop"),
        (["data", "prepocess"], "write 'preprocess'"),
        (["data", "blend", "gsm8k", "--plan-onyl"], "write '--plan-only'"),
        (["data", *PREPROCESS, "--encoder", "gigatokn"], "--encoder: 'gigatokn'; it is one of"),
        (["plan"], "STUDY"),
        (["explain", "nothing"], "no such key or label"),
        (["explain", "sft", "--study", "smoke"], "write one of sft/base+ldq-x1-seed1-"),
        (["explain", "1185", "--study", "smoke"], "write one of synthesize/corpus-1185"),
        (["explain", "lmq-seed1", "--study", "smoke"], "4 are called so: blend/lmq-seed1-"),
        (["explain", "sft", "pretrain"], "2 names"),
        (["explain", "corpus", "seeds=[1, 2, 3]"], "an override without a study"),
        (["plan", "smoke", "seeds=[1, 2]", "--seeds", "3"], "seeds=[1, 2, 3]: set twice"),
        (["explain", "sample", "x", "--blend", "b"], "a sample is a number"),
        (["explain", "sample", "1", "--blend", "b"], "no such blend"),
        (["report", "smoke"], "stages are not built"),
        ([], "COMMAND"),
    ],
)
def test_wrong_input_is_one_message_in_four_parts_and_exit_2(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    said: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    code, out, err = call(capsys, *arguments)
    assert code == 2
    assert said.lower() in err.lower()
    assert err.count(";") >= 2
    assert err.count("\n") == 1, "one message, no traceback"
    assert not err.startswith("frontload: frontload"), "the program is named once"
    assert not out or arguments[0] == "run", "a run shows its price first"
    assert not list(tmp_path.iterdir()), "nothing was written"


def test_plan_reads_overrides_wherever_they_stand(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = str(tmp_path / "store")
    code, first, _ = call(capsys, "plan", "sft.tokens=10_240", "smoke", "--store", store)
    assert code == 0
    _, last, _ = call(capsys, "plan", "smoke", "--store", store, "sft.tokens=10_240")
    assert first == last
    _, plain, _ = call(capsys, "plan", "smoke", "--store", store)
    assert plain != last


@pytest.mark.parametrize(
    ("number", "code", "do"), [(errno.ENOSPC, 1, "free space"), (errno.EROFS, 2, "mend its rights")]
)
def test_a_disk_that_takes_nothing_is_told_without_a_traceback(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    code: int,
    do: str,
) -> None:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number), "out/report.html")

    monkeypatch.setattr(commands, "report", fail)
    found, _, err = call(capsys, "report", "smoke")
    assert found == code
    assert err.startswith("frontload: out/report.html: cannot be")
    assert do in err
    assert err.count(";") == 2


@pytest.mark.parametrize(
    ("asked", "made"),
    [
        (["report", "smoke", "--seeds", "2", "sft.learning_rate=4.0e-4"], "sft/base+shq-x1-seed2-"),
        (["report", "mine.yaml", "--store", "a store"], "pretrain/ldq-seed1-"),
        (["convert", "to-hf", "sft/lmq+shq-x1-seed3", "out"], "sft/lmq+shq-x1-seed3-"),
        (["convert", "to-hf", "lmq+shq-x1-seed2+rl", "out"], "grpo/lmq+shq-x1-seed2+rl-"),
        (["explain", "sample", "1", "--blend", "lmq-seed2"], "blend/lmq-seed2-"),
        (["explain", "sample", "1", "--study", "smoke", "seeds=[1, 2]"], "blend/trunk-seed2-"),
        (["explain", "pretrain/ldq-seed4"], "pretrain/ldq-seed4-"),
    ],
)
def test_a_hint_is_a_command_that_makes_what_is_missing(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    asked: list[str],
    made: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("extends: smoke\nsft: {learning_rate: 2.0e-3}\n")
    code, _, err = call(capsys, *asked)
    assert code == 2
    (hint,) = re.findall(r"`frontload run ([^`]*)`", err)
    code, plan, _ = call(capsys, "plan", "-v", *shlex.split(hint))
    assert code == 0
    assert made in plan
    code, wanted, _ = (
        call(capsys, "plan", "-v", *asked[1:]) if asked[0] == "report" else (0, plan, "")
    )
    assert plan == wanted, "the same store, seeds and overrides"


def test_other_faults_keep_their_traceback(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> int:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(commands, "report", fail)
    with pytest.raises(OSError, match="broken"):
        call(capsys, "report", "smoke")


def test_seeds_flag_is_the_override(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    store = str(tmp_path)
    _, flag, _ = call(capsys, "plan", "smoke", "-v", "--seeds", "2", "--store", store)
    _, override, _ = call(capsys, "plan", "smoke", "-v", "seeds=[1, 2]", "--store", store)
    assert flag == override
    assert "trunk-seed2" in flag


def test_looking_imports_no_torch(tmp_path: Path) -> None:
    script = (
        "import sys; from frontload.launch import cli;"
        f"code = cli.main(['plan', 'laptop', '--store', {str(tmp_path)!r}]);"
        "names = ('torch', 'megatron', 'transformers', 'numpy');"
        "heavy = [name for name in names if name in sys.modules];"
        "sys.exit(f'{heavy}' if heavy else code)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_finished_study_is_not_run_and_not_reported_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    store, study = Store(tmp_path / "store"), load_study("smoke")
    for stage in study.stages:
        path = store.workspace(Ticket.of(stage)) / "path"
        path.mkdir(parents=True)
        store.publish(Ticket.of(stage))
    out = tmp_path / "out"
    out.mkdir()
    (out / reporting.PAGE).write_text(f"page of {study.tabulate.key}")

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("nothing should be made")

    monkeypatch.setattr(commands, "run_stages", forbidden)
    monkeypatch.setattr(commands.reporting, "write_report", forbidden)
    arguments = ("run", "smoke", "--store", str(store.root), "--out", str(out))
    code, text, _ = call(capsys, *arguments)
    assert code == 0
    assert "nothing to do, all 74 stages are built" in text
    assert str(out / reporting.PAGE) in text


def test_the_recipe_in_the_report_runs_again_with_the_same_keys(tmp_path: Path) -> None:
    study = load_study("smoke", overrides=["sft.learning_rate=1.0e-5"])
    path = tmp_path / "again.yaml"
    path.write_text(reporting.recipe_text(study))
    again = load_study(str(path))
    assert [stage.key for stage in again.stages] == [stage.key for stage in study.stages]


# ---------------------------------------------------------------- a user's own files


def write_own_study(folder: Path) -> Path:
    (folder / "base.txt").write_text("some base text\n" * 10_000)
    (folder / "train.jsonl").write_text('{"question": "q", "answer": "a #### 1"}\n' * 1_000)
    rows = [f'{{"question": "r{n}", "answer": "a #### 2"}}\n' for n in range(200)]
    (folder / "test.jsonl").write_text("".join(rows))
    text = (RECIPES / "studies" / "own_data.yaml").read_text()
    text = text.replace("data/base/*.txt", "base.txt").replace("data/reasoning/", "")
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_an_edited_file_moves_the_keys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_study(tmp_path)
    plans = []
    for text in ("some base text\n", "some base text\n", "another base text\n"):
        (tmp_path / "base.txt").write_text(text * 10_000)
        plans.append(call(capsys, "plan", "-v", "mine.yaml")[1])
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_a_file_that_is_not_there_is_told_with_line_and_pattern(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_own_study(tmp_path)
    (tmp_path / "train.jsonl").unlink()
    code, _, err = call(capsys, "plan", "mine.yaml")
    assert code == 2
    assert err.count("own.reasoning_files") == 1
    assert "mine.yaml:" in err
    assert "train.jsonl" in err


def test_a_field_that_no_row_has_is_refused_at_its_own_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = write_own_study(tmp_path).read_text().splitlines()
    (line,) = [number for number, text in enumerate(lines, 1) if "  reasoning_files:" in text]
    code, _, err = call(capsys, "plan", "mine.yaml", "own.question_field=task")
    assert code == 2
    assert f"mine.yaml:{line}: own.reasoning_files: first row of train.jsonl: " in err


def test_letters_that_a_terminal_lacks_are_escaped(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text('{"text": "caf\u00e9 \u65e5"}\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "frontload.launch.cli", "data", "peek", str(file)],
        env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert rb"caf\xe9 \u65e5" in done.stdout
