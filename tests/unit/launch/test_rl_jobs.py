"""GRPO of a study on a cluster: its Ray job, then the job that publishes what that one left.

sbatch and squeue are fakes that number what they get: no Ray with GPUs can run here.
"""

import subprocess
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.rl.cluster.files import RUN
from tests.unit.rl.job_folder import step_data, write_log

ONE = "grpo/base+shq-x1-seed1+rl"
SBATCH = """#!/bin/bash
number=$(($(cat "$FAKE/number" 2>/dev/null || echo 100) + 1))
echo "$number" > "$FAKE/number"
printf '%s\\n' "$@" > "$FAKE/$number.words"
cat > "$FAKE/$number.script"
echo "$number"
"""
SQUEUE = """#!/bin/bash
for file in "$FAKE"/*.alive; do
    [[ -e "$file" ]] || exit 0
    number=$(basename "$file" .alive)
    [[ " $* " == *" %i %T "* ]] && echo "$number PENDING" || echo "$number $(cat "$file")"
done
"""


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder where the fake Slurm keeps what it was given."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", SQUEUE)):
        (tmp_path / "bin" / name).write_text(text)
        (tmp_path / "bin" / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(tmp_path))
    return tmp_path


def run(fake: Path) -> None:
    words = ["run", "paper_8b", "--store", str(fake / "store"), "--only", ONE]
    assert cli.main(words) == 0


def jobs(fake: Path) -> dict[str, str]:
    """Number -> name of every job that was submitted."""
    found = {}
    for path in sorted(fake.glob("*.words")):
        (name,) = (word for word in path.read_text().splitlines() if word.startswith("--job-name="))
        found[path.stem] = name.removeprefix("--job-name=paper_8b/")
    return found


def hold(fake: Path) -> None:
    """Keeps every job in the queue."""
    for number in jobs(fake):
        lines = (fake / f"{number}.script").read_text().splitlines()
        (folder,) = (line for line in lines if line.startswith("folder="))
        (fake / f"{number}.alive").write_text(folder.removeprefix("folder="))


def waits_for(fake: Path, number: str) -> set[str]:
    """Names of the jobs that a job waits for."""
    words = (fake / f"{number}.words").read_text().splitlines()
    (after,) = (word for word in words if word.startswith("--dependency=afterok:"))
    named = jobs(fake)
    return {named[one] for one in after.removeprefix("--dependency=afterok:").split(":")}


def test_the_ray_job_waits_for_its_inputs_and_the_publishing_one_for_it(fake: Path) -> None:
    run(fake)
    named = {name: number for number, name in jobs(fake).items()}
    ray, own = named[f"{ONE}/ray"], named[ONE]
    kinds = {name.partition("/")[0] for name in waits_for(fake, ray)}
    assert kinds == {"sft", "crossthink", "import_tokenizer", "convert"}
    assert waits_for(fake, own) == {f"{ONE}/ray"}
    (work,) = (fake / "store" / ".work" / "grpo").iterdir()
    run_folder = work / "scratch" / RUN
    assert (run_folder / "logs").is_dir(), "Slurm drops the output of a job without it"
    script = (fake / f"{ray}.script").read_text()
    assert f"\nfolder={run_folder}\n" in script
    assert "#SBATCH --nodes=4\n" in script
    assert "prompts.validation.parquet" in script
    own_script = (fake / f"{own}.script").read_text()
    assert "#SBATCH --nodes=1\n" in own_script
    assert f"made={fake / 'store' / 'grpo' / work.name}\n" in own_script
    for text in (script, own_script):
        subprocess.run(["bash", "-n"], input=text, text=True, check=True)


def test_a_second_run_submits_nothing_and_a_living_ray_job_is_waited_for(fake: Path) -> None:
    run(fake)
    named = {name: number for number, name in jobs(fake).items()}
    hold(fake)
    run(fake)
    assert len(jobs(fake)) == len(named)
    (fake / f"{named[ONE]}.alive").unlink()  # the publishing job was cancelled
    run(fake)
    again = list(jobs(fake).items())[len(named) :]
    assert [name for _, name in again] == [ONE]
    assert waits_for(fake, again[0][0]) == {f"{ONE}/ray"}


def test_status_shows_the_step_of_the_ray_job(
    fake: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(fake)
    (work,) = (fake / "store" / ".work" / "grpo").iterdir()
    write_log(work / "scratch" / RUN, "metrics-7-0.jsonl", {0: {}, 12: step_data(0.5)})
    hold(fake)
    capsys.readouterr()
    assert cli.main(["status", "paper_8b", "--store", str(fake / "store")]) == 0
    assert "step 12 of 2,197" in capsys.readouterr().out


def test_a_ray_job_that_has_finished_is_not_submitted_again(fake: Path) -> None:
    run(fake)
    count = len(jobs(fake))
    (work,) = (fake / "store" / ".work" / "grpo").iterdir()
    (work / "scratch" / RUN / "finished").touch()
    run(fake)
    again = [name for number, name in jobs(fake).items() if int(number) > 100 + count]
    assert ONE in again
    assert f"{ONE}/ray" not in again
