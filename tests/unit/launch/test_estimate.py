"""`frontload estimate`: what it prints, what it refuses, and that its numbers add up."""

import json
from typing import Any

import pytest

from frontload.launch import cli
from frontload.recipes.grammar.load import recipe_names

PAPER, EFFICIENT = ("--placement", "paper_tp8pp8"), ("--placement", "efficient_tp2")
TRAININGS = [name for name in recipe_names("training") if name.startswith(("pretrain_8", "sft_8"))]


def answer(capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    assert cli.main(["estimate", *words, "--json"]) == 0, capsys.readouterr().err
    return json.loads(capsys.readouterr().out)


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert cli.main(["estimate", *words]) == 2
    return capsys.readouterr().err


@pytest.mark.parametrize("name", TRAININGS)
def test_every_8b_recipe_is_priced_on_the_papers_machines(
    capsys: pytest.CaptureFixture[str], name: str
) -> None:
    found = answer(capsys, name, *PAPER)
    assert found["parameters"] == 8_100_852_736
    asked = found["asked"]
    assert asked["fits"]
    assert asked["data_parallel"] * 8 * 8 == 512
    assert sum(len(stage["layers"]) for stage in asked["memory_bytes"]) == 52
    assert asked["time"]["gpu_hours"] > 0


def test_the_parts_add_up(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "pretrain_8b_base", *PAPER, "--gemms")
    assert sum(cost["parameters"] for cost in found["layers"]) == found["parameters"]
    for cost in found["layers"]:
        assert cost["training_flops"] == 3 * cost["forward_flops"]
    for one in (found["asked"], *found["layouts"]):
        time = one["time"]
        parts = ("compute", "recompute", "bubble", "tensor", "pipeline", "data")
        assert time["total"] == pytest.approx(sum(time[part] for part in parts))
        assert time["mfu"] < 0.45  # the stated share, less all waiting
        rate = time["tokens_per_second"] * time["gpu_hours"] * 3600 / 512
        assert rate == pytest.approx(found["tokens"])
        assert time["dollars"] == pytest.approx(2.5 * time["gpu_hours"])
    # 52 layers of two products each, and the output layer
    assert len(found["gemms"]) == 105


def test_the_known_sizes_of_the_8b_on_512_gpus(capsys: pytest.CaptureFixture[str]) -> None:
    """By hand: 8.1e9 / 64 or / 2 parameters a rank, 2 + 4 + 12 / DP bytes each, in GB."""
    paper = answer(capsys, "pretrain_8b_base", *PAPER)["asked"]
    static = [s["weights"] + s["gradients"] + s["optimizer"] for s in paper["memory_bytes"]]
    assert sum(static) / 8 == pytest.approx(8.1e9 / 64 * (6 + 12 / 8), rel=0.01)
    efficient = answer(
        capsys, "pretrain_8b_base", *EFFICIENT, "global_batch_sequences=768",
        "phases=[{name: all, tokens: 629145600000, sources: {base: 1.0}}]",
    )["asked"]  # fmt: skip
    (stage,) = efficient["memory_bytes"]
    assert stage["weights"] + stage["gradients"] + stage["optimizer"] == pytest.approx(
        8.1e9 / 2 * (6 + 12 / 256), rel=0.01
    )
    assert efficient["time"]["bubble"] == 0


def test_recomputation_is_shown_both_ways(capsys: pytest.CaptureFixture[str]) -> None:
    found = answer(capsys, "sft_8b", *PAPER)
    asked, switched = found["asked"], found["switched"]
    assert (asked["recompute"], switched["recompute"]) == (False, True)
    for one, other in zip(asked["memory_bytes"], switched["memory_bytes"], strict=True):
        assert other["activations"] < one["activations"]
    share = switched["time"]["compute"] / switched["time"]["recompute"]
    assert 3.0 < share < 3.5, "a forward pass again: a third of the products, 1 / 3.5 of the scan"
    assert cli.main(["estimate", "hybrid_15m", "--placement", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "with recomputation" in out
    assert "MFLOP training" in out


def test_layouts_are_ranked_and_the_others_have_reasons(
    capsys: pytest.CaptureFixture[str],
) -> None:
    found = answer(capsys, "pretrain_8b_base", *PAPER)
    ranks = [(not one["fits"], one["time"]["total"]) for one in found["layouts"]]
    assert ranks == sorted(ranks)
    assert len(ranks) > 5
    reasons = {tuple(shape): one["reason"] for one in found["refused"] for shape in one["layouts"]}
    assert "num_query_groups 8" in reasons[16, 1, 1]
    assert "736 with 256 data-parallel ranks" in reasons[2, 1, 1]
    assert "context_parallel" in reasons[1, 1, 2]


def test_memory_that_does_not_fit_comes_last(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("hybrid_8b", *PAPER, "--batch-sequences", "512", "--sequence-tokens", "32768")
    found = answer(capsys, *words)
    fits = [one["fits"] for one in found["layouts"]]
    assert {True, False} == set(fits)
    assert fits == sorted(fits, reverse=True)


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (("laptop",), "hybrid_138k"),
        (("laptop", "--part", "sft"), "hybrid_138k"),
        (("hybrid_15m",), "14,430,704"),
        (("sft_tiny",), "145,432"),
    ],
)
def test_models_studies_and_trainings_on_a_laptop(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], expected: str
) -> None:
    assert cli.main(["estimate", *words, "--placement", "cpu"]) == 0
    out = capsys.readouterr().out
    assert "the placement names no GPU" in out
    assert expected in out or "145,432" in out


def test_an_illegal_layout_is_refused_after_the_legal_ones(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["estimate", "pretrain_8b_base", *EFFICIENT]) == 2
    out, err = capsys.readouterr()
    assert "legal layouts, best first" in out
    assert "global_batch_sequences: is 736 with 256 data-parallel ranks" in err


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("hybrid_8b", *PAPER, "placement.pipeline_layers=[]"),
         ["52 layers", "pipeline_layers [5, 7, 7, 7, 7, 7, 7, 5]"]),
        (("hybrid_8b", *PAPER, "placement.tensor_parallel=16"), ["num_query_groups 8"]),
        (("hybrid_9b", *PAPER), ["no such recipe", "hybrid_8b"]),
        (("grpo_8b", *PAPER), ["kind 'grpo'", "pretrain, sft"]),
        (("hybrid_8b", "--placement", "moon"), ["no such placement"]),
        (("hybrid_8b", *PAPER, "placement.gpus.kind=h100"), ["'h100' is not known", "h100_sxm"]),
        (("hybrid_8b", *PAPER, "placement.gpus.kernel_mfu=1.5"), ["kernel_mfu: is 1.5"]),
        (("hybrid_8b", *PAPER, "placement.gpus.link_share=0.0"), ["gpus.link_share: is 0"]),
        (("hybrid_8b", *PAPER, "placement.gpus.network_gbyte_per_second=0.0"),
         ["gpus.network_gbyte_per_second: is 0"]),
        (("hybrid_8b", *PAPER, "placement.gpus.dollars_per_hour=-1.0"),
         ["gpus.dollars_per_hour: is -1"]),
        (("hybrid_8b", *PAPER, "placement.num_nodes=0"), ["num_nodes: is 0"]),
        (("hybrid_8b", *PAPER, "placement.ranks_per_node=-8"), ["ranks_per_node: is -8"]),
        (("hybrid_8b", *PAPER, "hidden_size=0"), ["model.hidden_size: is 0", "above 0"]),
        (("hybrid_8b", *PAPER, "kv_channels=-128"), ["model.kv_channels: is -128"]),
        (("hybrid_8b", *PAPER, "--precision", "fp8"), ["is 'fp8'", "never mixed"]),
        (("hybrid_8b", *PAPER, "--precision", "nano2_blockwise", "precision.scaling=tensor"),
         ["nano2_blockwise has block", "choose precision nemotron_h_current_scaling"]),
        (("hybrid_8b", *PAPER, "precision.scale=tensor"), ["'scale' is no part", "'scaling'"]),
        (("hybrid_8b", *PAPER, "--precision", "nano2_blockwise",
          "placement.gpus.kind=a100_sxm_80gb"), ["no FP8 product"]),
        (("hybrid_8b", *PAPER, "--batch-sequences", "0"), ["global_batch_sequences: is 0"]),
        (("hybrid_138k", "--placement", "cpu", "--sequence-tokens", "8192"),
         ["max_sequence_tokens is 128", "write at most 128"]),
        (("laptop", "--placement", "cpu", "rl.prompts.families.add=0.5"), ["sums to 1.34"]),
        (("laptop", "--placement", "cpu", "sft.step_tokens=5"), ["write 768"]),
        (("hybrid_8b", *PAPER, "ffn_hidden_size=64", "--precision", "nano2_blockwise"),
         ["linear_fc1 of layer 3 is 4096 x 8", "multiples of 16"]),
        (("hybrid_8b", *PAPER, "--precision", "nano2_blockwise", "--sequence-tokens", "1032"),
         ["1 sequences a micro-batch are 129 tokens on a rank", "multiple of 128", "write 1024"]),
    ],
)  # fmt: skip
def test_wrong_input_is_told_in_four_parts(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], parts: list[str]
) -> None:
    message = refusal(capsys, *words)
    assert message.count("; ") >= 2, message
    for part in parts:
        assert part in message


def test_a_part_of_a_precision_may_be_stated_as_it_is(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ("hybrid_8b", *PAPER, "--precision", "nano2_blockwise", "precision.scaling=block")
    assert answer(capsys, *words)["precision"]["gradient"] == "e4m3"


# ---------------------------------------------------------------- what a price assumes


def test_a_price_stands_beside_what_it_assumes(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["estimate", "pretrain_8b_base", *PAPER]) == 0
    out = " ".join(capsys.readouterr().out.split())
    for said in (
        "dollars at 2.5 per GPU-hour",
        "53% of 989 TFLOP/s in bf16, 43% of 1,979 in FP8, Mamba's scan at 12% of 3,350 GB/s",
        "(public runs of Megatron-Core",
        "of 50 GB/s per GPU between nodes (a guess)",
        "no communication is overlapped",
        "hours leave out saves, restarts, queueing and loading of data",
        "Luciole-8B took 8% more",
    ):
        assert said in out, said
    found = answer(capsys, "pretrain_8b_base", *PAPER)
    assert len(found["assumptions"]) == 4


def test_a_share_without_a_source_is_called_a_guess(capsys: pytest.CaptureFixture[str]) -> None:
    for words in (
        (*PAPER, "placement.gpus.source=''"),
        ("--placement", "one_gpu", "placement.gpus.memory_share=0.0"),
    ):
        assert cli.main(["estimate", "hybrid_8b", *words]) == 0
        assert "(a guess: placement.gpus.source names no run)" in " ".join(
            capsys.readouterr().out.split()
        )


@pytest.mark.parametrize("share", ["1.5", "-0.1"])
@pytest.mark.parametrize("knob", ["fp8_mfu", "memory_share"])
def test_a_share_is_one(capsys: pytest.CaptureFixture[str], knob: str, share: str) -> None:
    message = refusal(capsys, "hybrid_8b", *PAPER, f"placement.gpus.{knob}={share}")
    assert f"gpus.{knob}: is {share}" in message
