"""`frontload launch` of training recipes: each on each placement, printed; and run here."""

from pathlib import Path

import pytest

from frontload.launch import cli
from frontload.recipes.grammar.load import recipe_names
from tests.tiny_run import write_tiny_data

FULL = [
    name
    for name in recipe_names("training")
    if name.split("_")[0] in ("pretrain", "sft") and "tiny" not in name
]


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    code = cli.main(["launch", *words, "--dry-run"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, ""), err
    return out


ON_CPUS = (
    *("placement.gpus=null", "placement.kernels=torch", "placement.ranks_per_node=1"),
    *("placement.num_nodes=2", "placement.recompute=false"),
)
FITS_256 = ("pretrain_8b_cosine", "sft_8b", "sft_8b_2x")
"""Batches of 768 and 512; the paper's 736 does not divide by the copies of efficient_tp2."""


@pytest.mark.parametrize(
    ("recipe", "placement"),
    [
        *((recipe, "paper_tp8pp8") for recipe in FULL),
        *((recipe, "efficient_tp2") for recipe in FITS_256),
        ("pretrain_8b_lmq", "slurm"),
    ],
)
def test_every_run_of_the_paper_is_a_job(
    recipe: str, placement: str, capsys: pytest.CaptureFixture[str]
) -> None:
    kind = recipe.split("_")[0]
    more = ["placement.recompute=true"] if (kind, placement) == ("sft", "efficient_tp2") else []
    script = printed(capsys, recipe, "--placement", placement, *more)
    assert f"#SBATCH --job-name=frontload-{recipe}\n" in script
    assert "#SBATCH --requeue\n" in script
    assert f"    {'--blend' if kind == 'pretrain' else '--pack'}\n" in script
    assert "--rdzv-backend=c10d" in script


def test_a_job_whose_layers_need_gpus_says_which_it_asks_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["launch", "pretrain_8b_ldq", "--placement", "paper_tp8pp8", "--dry-run"]
    assert cli.main([*words, "placement.gpus=null"]) == 2
    assert "add e.g. gpus: {kind:" in capsys.readouterr().err
    script = printed(capsys, "pretrain_tiny", "--placement", "slurm", *ON_CPUS)
    assert "--gpus-per-node" not in script


def test_on_one_machine_it_is_one_command(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("pretrain_8b_ldq", "--placement", "one_node", "--blend", "a", "b", "--out", "runs/x")
    script = printed(capsys, *words, "seed=3", "placement.recompute=true")
    assert "export CUDA_DEVICE_MAX_CONNECTIONS=1\n" in script
    told = script.replace(" \\\n    ", " ")
    assert "python -m frontload.launch.torchrun torchrun --standalone --nproc-per-node=8 " in told
    assert told.endswith(
        "--module -- frontload.launch.cli train pretrain_8b_ldq --placement one_node --blend a b"
        " --out runs/x seed=3 placement.recompute=true\n"
    )
    assert "--nproc-per-node=1 " in printed(
        capsys, "pretrain_tiny", "--placement", "one_gpu"
    ).replace(" \\\n    ", " ")


def test_a_users_files_are_named_from_anywhere(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("pretrain_mine.yaml").write_text("extends: pretrain_8b_ldq\n")
    Path("ours.yaml").write_text("extends: slurm\nnum_nodes: 2\n")
    script = printed(capsys, "pretrain_mine.yaml", "--placement", "ours.yaml")
    for name in ("pretrain_mine.yaml", "ours.yaml"):
        assert f"    {tmp_path / name}\n" in script
    words = ("pretrain_mine.yaml", "--placement", "ours.yaml", "--blend", "a", "b", "--out", "run")
    script = printed(capsys, *words)
    assert f"#SBATCH --output={tmp_path}/run/logs/%j.out\n" in script
    told = script.replace("\n    ", " ")
    assert f" --blend {tmp_path}/a {tmp_path}/b --out {tmp_path}/run\n" in told


ON_512 = ("--placement", "paper_tp8pp8", "--dry-run")
TORCH = "placement.kernels=torch"


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("pretrain_8b_base", "--placement", "one_node", "--chain", "2"), "without a `slurm` sect"),
        (("pretrain_8b_base", "--placement", "slurm", "--chain", "0"), "below 1"),
        (("pretrain_8b_base", "--placement", "slurm", "placement.tensor_parallel=3"), "tensor_par"),
        (("pretrain_8b_base", "--placement", "slurm", "placement.num_nodes=5"), "multiple of 40"),
        (("pretrain_8b_base", "--placement", "efficient_tp2"), "use a multiple of 256"),
        (("pretrain_8b_base", "--placement", "slurm", "--until", "third"), "phases of this recipe"),
        (("pretrain_8b_base", "--placement", "one_node"), "is not there"),
        (("pretrain_8b_base", "--placement", "one_gpu"), "GiB; h100_sxm has 79.6 GiB; an estim"),
        (("sft_8b", "--placement", "efficient_tp2"), "write placement.recompute=true, or choose"),
        (("sft_8b", "--placement", "slurm"), "choose a layout that fits: `frontload estimate sft"),
        (("pretrain_8b_base", *ON_512, "precision=nano2_blockwise", TORCH), "write kernels: trans"),
        (("pretrain_8b_base", *ON_512, "placement.kernels=triton"), "kernels: 'triton' is not"),
        (("pretrain_8b_base", *ON_512, "placement.gpus.kind=h100"), "h100_sxm"),
        (("pretrain_8b_base", *ON_512, "--blend", "a"), "1 blends for the phases first, second"),
        (("pretrain_8b_base", *ON_512, "--pack", "a"), "reads --blend, --index, --start, --until"),
        (("sft_8b", *ON_512, "--blend", "a"), "a job of kind 'sft' reads --pack, --start;"),
        (("grpo_8b", "--placement", "slurm", "--blend", "a"), "reads --model, --prompts, --valid"),
        (("pretrain_8b_base", *ON_512, "--out", "/my runs/x"), "write it without blanks"),
    ],
)
def test_what_cannot_be_launched_is_refused(
    words: tuple[str, ...], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert cli.main(["launch", *words]) == 2
    assert told in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_on_this_machine_launch_runs_it(tmp_path: Path) -> None:
    data = write_tiny_data(tmp_path / "data")
    words = ["launch", "pretrain_tiny", "--placement", "cpu", *data.flags("first")]
    assert cli.main([*words, "--until", "first", "--out", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "first" / "weights").is_dir()
    assert (tmp_path / "run" / "finished").exists()
