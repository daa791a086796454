"""`frontload launch`: what is printed, what is given to sbatch, and what is refused before that."""

import subprocess
from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.launch.cluster.grpo_job import ray_job
from frontload.launch.cluster.rendered import run_folder_name
from frontload.launch.cluster.slurm import job_script
from frontload.recipes.errors import RecipeError
from frontload.recipes.runs.load import load_placement, load_training
from frontload.rl.cluster.files import answers_folder, checkpoints_folder, run_files

SBATCH = """#!/bin/bash
printf '%s\\n' "$@" > "$FAKE/arguments"
cat > "$FAKE/script"
[[ -z "${FAKE_REFUSES:-}" ]] || { echo "invalid partition" >&2; exit 1; }
echo "4711;cluster"
"""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with a fake sbatch on the PATH, and an empty queue."""
    (tmp_path / "bin").mkdir()
    for name, text in (("sbatch", SBATCH), ("squeue", "#!/bin/bash\n")):
        path = tmp_path / "bin" / name
        path.write_text(text)
        path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("FAKE", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files_under(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*"))


def launch(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    code = cli.main(["launch", *words])
    out, err = capsys.readouterr()
    return code, out, err


def refused(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The message of a refused command; it is one line in four parts."""
    code, out, err = launch(capsys, *words)
    assert (code, out) == (2, ""), err
    assert err.startswith("frontload: ")
    assert err.count("; ") >= 2
    return err


@pytest.mark.parametrize(
    "words",
    [
        ("grpo_8b", "--placement", "slurm"),
        ("grpo_8b", "--placement", "slurm_megatron", "actor=megatron"),
        ("grpo_8b", "--placement", "slurm", "placement.num_nodes=1"),
    ],
)
def test_a_dry_run_prints_a_whole_job_and_writes_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    before = files_under(home)
    code, out, err = launch(capsys, *words, "--dry-run")
    assert (code, err) == (0, "")
    assert out.startswith("#!/bin/bash\n#SBATCH --job-name=frontload-grpo_8b\n")
    for part in (
        "ray start --head",
        "verl.trainer.main_ppo",
        "rl.cluster.preflight",
        "scontrol requeue",
    ):
        assert part in out, part
    checked = subprocess.run(["bash", "-n"], input=out, text=True, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr
    assert files_under(home) == before


def test_a_job_of_a_cluster_names_its_files_from_the_root(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("--model", "m", "--prompts", "p.parquet", "--out", "here")
    _, out, _ = launch(capsys, "grpo_8b", "--placement", "slurm", *words, "--dry-run")
    assert f"data.train_files={Path.cwd()}/p.parquet" in out
    assert f"#SBATCH --output={Path.cwd()}/here/logs/%j.out" in out


def test_the_trainer_is_kept_as_the_placement_says(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = ("placement.rl.hang_seconds=900", "placement.rl.checkpoints_kept=3")
    words = ("--out", "here", *overrides, "--dry-run")
    _, out, _ = launch(capsys, "grpo_8b", "--placement", "slurm", *words)
    keeper = out.partition("keeper=(")[2].partition(")")[0].split()
    assert keeper == [
        *("python", "-m", "frontload.rl.cluster.run", "--checkpoints"),
        f"{Path.cwd()}/here/checkpoints",
        *("--kept", "3", "--ranks", "32", "--hang-seconds", "900"),
        *("--answers", f"{Path.cwd()}/here/validation"),
    ]
    assert "max_failures=3\n" in out


def test_the_header_asks_for_the_placement(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, out, _ = launch(
        capsys,
        *("grpo_8b", "--placement", "slurm", "--dry-run"),
        *("placement.slurm.partition=h100", "placement.slurm.account=us"),
        *("placement.slurm.cpus_per_node=64", 'placement.slurm.time_limit="1-02:00:00"'),
        "placement.slurm.header=[--constraint=nvlink]",
    )
    header = [line for line in out.splitlines() if line.startswith("#SBATCH ")]
    options = [line.removeprefix("#SBATCH ") for line in header]
    assert options[1:6] == [
        "--nodes=4",
        "--ntasks-per-node=1",
        "--gpus-per-node=8",
        "--cpus-per-task=64",
        "--mem=0",
    ]
    assert {"--partition=h100", "--account=us", "--time=1-02:00:00"} <= set(options)
    assert {"--requeue", "--open-mode=append", "--signal=B:USR1@600"} <= set(options)
    assert options[-1] == "--constraint=nvlink"


def test_on_this_machine_the_job_is_frontload_rl(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["grpo_tiny", "--placement", "cpu", *inputs(home), "steps=3"]
    code, out, _ = launch(capsys, *words, "--dry-run")
    assert code == 0
    assert out.replace(" \\\n    ", " ") == (
        "python -m frontload.launch.cli rl grpo_tiny --placement cpu --model model --prompts "
        f"train.parquet --validation validation.parquet --out {home}/run steps=3\n"
    )


def test_on_this_machine_the_job_is_run_and_its_exit_code_kept(
    home: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """The model is an empty folder: `frontload rl` in its own process says so."""
    assert cli.main(["launch", "grpo_tiny", "--placement", "cpu", *inputs(home)]) == 2
    assert "rl --model model: no manifest leads" in capfd.readouterr().err


def inputs(home: Path) -> list[str]:
    (home / "model").mkdir()
    for name in ("train.parquet", "validation.parquet"):
        (home / name).touch()
    found = ["--model", "model", "--prompts", "train.parquet", "--validation", "validation.parquet"]
    return [*found, "--out", str(home / "run")]


def test_what_is_submitted_is_what_was_printed(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["grpo_8b", "--placement", "slurm", *inputs(home)]
    _, printed, _ = launch(capsys, *words, "--dry-run")
    code, out, err = launch(capsys, *words)
    assert code == 0, err
    assert (home / "script").read_text() == printed
    assert (home / "arguments").read_text() == "--parsable\n"
    assert out == f"job 4711 submitted; its lines go to {home}/run/logs/4711.out\n"
    assert (home / "run" / "logs").is_dir(), "Slurm drops the output of a job without it"


@pytest.mark.parametrize(("name", "actor"), [("slurm", "fsdp2"), ("slurm_megatron", "megatron")])
def test_the_job_of_a_studys_stage_is_the_one_that_launch_prints(
    home: Path, capsys: pytest.CaptureFixture[str], name: str, actor: str
) -> None:
    words = ["grpo_8b", "--placement", name, *inputs(home), f"actor={actor}", "--dry-run"]
    _, printed, _ = launch(capsys, *words)
    recipe = load_training("grpo_8b", [f"actor={actor}"]).value
    placement = load_placement(name, []).value
    files = run_files(
        home / "run",
        model=home / "model",
        train_prompts=home / "train.parquet",
        validation_prompts=home / "validation.parquet",
    )
    job = ray_job(recipe, placement, name="grpo_8b", folder=home / "run", files=files)
    assert job_script(job, placement) == printed
    assert f"trainer.default_local_dir={checkpoints_folder(home / 'run')}" in printed
    assert f"trainer.validation_data_dir={answers_folder(home / 'run')}" in printed


def test_slurms_refusal_is_told(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FAKE_REFUSES", "yes")
    code, _, err = launch(capsys, "grpo_8b", "--placement", "slurm", *inputs(home))
    assert code == 1
    assert "invalid partition" in err


def test_without_sbatch_the_cure_is_named(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "bin" / "sbatch").unlink()
    words = inputs(home)
    before = files_under(home)
    err = refused(capsys, "grpo_8b", "--placement", "slurm", *words)
    assert "no sbatch on the PATH" in err
    assert "--dry-run" in err
    assert files_under(home) == before


def test_a_missing_input_is_found_before_the_job_is(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = inputs(home)
    (home / "train.parquet").unlink()
    before = files_under(home)
    assert "train.parquet: is not there" in refused(
        capsys, "grpo_8b", "--placement", "slurm", *words
    )
    assert files_under(home) == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("grpo_8", "--placement", "slurm"), "write 'grpo_8b'"),
        (("grpo_8b", "--placement", "slrm"), "write 'slurm'"),
        (("grpo_tiny", "--placement", "cpu"), "store/models/grpo_tiny: is not there"),
        (("grpo_8b", "--placement", "one_gpu"), "without a `slurm` section, for rollout vllm"),
        (("grpo_tiny", "--placement", "slurm"), "CPU plug-in generates in one process"),
        (("grpo_8b", "--placement", "slurm_megatron"), "slurm_megatron.yaml:4: tensor_parallel"),
        (("grpo_8b", "--placement", "slurm", "grpo.klcoef=1"), "write 'kl_coefficient'"),
        (("grpo_8b", "--placement", "slurm", "placement.nodes=1"), "num_nodes"),
        (("grpo_8b", "--placement", "slurm", "placement.num_nodes=3"), "copies of the model"),
        (("grpo_8b", "--placement", "slurm", "optimizer.adam_beta2=1.0"), "adam_beta2"),
        (("grpo_8b", "--placement", "slurm", "reward_layout=box"), "'box' is not known"),
        (("grpo_8b", "--placement", "slurm", "placement.rl.hang_seconds=-1"), "hang_seconds"),
        (
            ("grpo_8b", "--placement", "slurm", "placement.rl.loggers=[console]"),
            "add file",
        ),
        (
            (
                "grpo_8b",
                "--placement",
                "slurm",
                "placement.rl.loggers=[console]",
                "placement.rl.hang_seconds=0",
            ),
            "the checkpoint's metrics are read from it",
        ),
        (("grpo_8b", "--placement", "slurm", "placement.gpus=null"), "add e.g. gpus: {kind:"),
        (("mine.yaml", "--placement", "slurm"), "no such recipe"),
        (("grpo_8b",), "--placement"),
    ],
)
def test_wrong_input_is_refused_in_four_parts(
    home: Path, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], told: str
) -> None:
    before = files_under(home)
    assert told in refused(capsys, *words)
    assert files_under(home) == before


@pytest.mark.parametrize(
    ("override", "told"),
    [
        ('slurm.time_limit="30"', "hours, minutes and seconds"),
        ('slurm.time_limit="00:10:00"', "240 seconds or more"),
        ("slurm.requeue_seconds=100", "240 seconds or more"),
        ("slurm.first_port=80", "between 1024 and 65535"),
        ("slurm.num_ports=50000", "between 1024 and 65535"),
        ("slurm.stop_seconds=0", "slurm.stop_seconds: is 0; it is 1 or more"),
        ("slurm.max_failures=0", "slurm.max_failures: is 0; it is 1 or more"),
        ("slurm.max_requeues=-1", "slurm.max_requeues: is -1; it is 0 or more"),
        ("slurm.cpus_per_node=-1", "slurm.cpus_per_node: is -1; it is 0 or more"),
        ("slurm.environment={WANDB_API_KEY: abc}", "export it in your shell"),
        ('slurm.environment={"A B": abc}', "not a name of a variable"),
        ('slurm.header=["constraint=h100"]', "one option of sbatch"),
        ('slurm.partition="a b"', "without blanks"),
    ],
)
def test_a_placement_that_slurm_would_misread_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str], override: str, told: str
) -> None:
    words = ("grpo_8b", "--placement", "slurm", "--dry-run", f"placement.{override}")
    assert told in refused(capsys, *words)


def test_a_refusal_names_the_file_and_line_that_set_the_value(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "ours.yaml").write_text("extends: slurm\nslurm:\n  time_limit: 30 minutes\n")
    err = refused(capsys, "grpo_8b", "--placement", "ours.yaml", "--dry-run")
    assert err.startswith("frontload: ours.yaml:3: slurm.time_limit: is '30 minutes'; ")
    (home / "grpo_mine.yaml").write_text("extends: grpo_8b\nactor: megatron\nprecision: fp32\n")
    err = refused(capsys, "grpo_mine.yaml", "--placement", "slurm", "--dry-run")
    assert err.startswith("frontload: grpo_mine.yaml:3: precision: is fp32 with actor megatron; ")


def test_the_secret_itself_is_not_told(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    override = "placement.slurm.environment={HF_TOKEN: verysecret}"
    assert "verysecret" not in refused(capsys, "grpo_8b", "--placement", "slurm", override)


def test_a_recipe_of_another_kind_is_refused(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "ppo_mine.yaml").write_text("extends: grpo_8b\n")
    assert "grpo_mine.yaml" in refused(capsys, "ppo_mine.yaml", "--placement", "slurm")


def test_a_users_own_files_are_found_by_path(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (home / "training").mkdir()
    (home / "placements").mkdir()
    (home / "training" / "grpo_mine.yaml").write_text("extends: grpo_8b\nsteps: 7\n")
    (home / "placements" / "ours.yaml").write_text("extends: slurm\nnum_nodes: 2\n")
    words = ("training/grpo_mine.yaml", "--placement", "placements/ours.yaml", "--dry-run")
    code, out, err = launch(capsys, *words)
    assert code == 0, err
    assert "trainer.total_training_steps=7\n" in out
    assert "#SBATCH --nodes=2\n" in out


def test_another_recipe_or_model_never_resumes_a_run() -> None:
    def key(*overrides: str, model: str = "a") -> str:
        recipe = load_training("grpo_8b", overrides).value
        return run_folder_name("mine", "grpo", {"grpo": recipe}, [Path(model)])

    assert key() == key()
    assert key().startswith("mine-")
    assert len({key(), key("optimizer.learning_rate=2.0e-6"), key(model="b")}) == 3


def test_every_placement_that_ships_loads() -> None:
    for name in ("cpu", "slurm", "slurm_megatron"):
        assert load_placement(name, []).value.name == name
    with pytest.raises(RecipeError, match="no such placement"):
        load_placement("none.yaml", [])
