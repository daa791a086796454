"""`frontload precision`: the table of formats, the emulation, and what is refused."""

import json

import pytest

from frontload.launch import cli


def test_every_layer_is_listed_with_its_format(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["precision", "hybrid_8b"]) == 0
    lines = capsys.readouterr().out.splitlines()
    layers = [line.split() for line in lines if "out_proj" in line or "linear_fc2" in line]
    assert len(layers) == 48
    assert layers[1][-2:] == ["bf16", "bf16"]
    assert layers[2][-2:] == ["e4m3/e5m2", "e4m3/e4m3"]
    assert "in_proj 4096 x 18560" in "\n".join(lines)
    # 104 GEMMs of layers less the 8 of both edges; their share, by hand: 6.454e9 of 7.562e9 weights
    assert "96 of 105 GEMMs are FP8, 85% of their operations" in "\n".join(lines)


def test_the_emulation_names_every_kind(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("hybrid_15m", "pattern=M-M*-M-", "vocab_size=512", "--emulate", "--json")
    asked = ("--precision", "bf16", "--precision", "nano2_blockwise", "--sequence-tokens", "32")
    assert cli.main(["precision", *words, *asked]) == 0
    found = json.loads(capsys.readouterr().out)["errors"]
    assert [one["precision"] for one in found] == ["bf16", "nano2_blockwise"]
    assert {layer["kind"] for layer in found[0]["layers"]} == {"mamba", "mlp", "attention"}
    assert [layer["is_fp8"] for layer in found[1]["layers"]] == [False] * 2 + [True] * 3 + [
        False
    ] * 2


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (("hybrid_9b",), ["no such model", "hybrid_8b"]),
        (("hybrid_8b", "--precision", "e4m3"), ["is 'e4m3'", "never mixed"]),
        (("hybrid_8b", "--emulate"), ["8_100_852_736 parameters", "hybrid_15m"]),
        (("hybrid_15m", "--rows", "0"), ["--rows", "1 or more"]),
        (("hybrid_138k", "--precision", "nano2_blockwise"), ["in_proj of layer 3", "multiples of"]),
        (("hybrid_15m", "hidden_sise=8"), ["'hidden_sise'", "hidden_size"]),
    ],
)
def test_wrong_input_is_told_in_four_parts(
    capsys: pytest.CaptureFixture[str], words: tuple[str, ...], parts: list[str]
) -> None:
    assert cli.main(["precision", *words]) == 2
    message = capsys.readouterr().err
    assert message.count("; ") >= 2, message
    for part in parts:
        assert part in message
