"""Rates of GPUs: those of the data sheet that is named beside them."""

import re

import pytest

from frontload.recipes.machines.gpus import KINDS, find_gpu


def stated(name: str, pattern: str) -> float:
    """The number in a kind's source, in that of the H100 for what an H200 has alike."""
    found = re.search(pattern, KINDS[name].source)
    if found is None and "as H100 SXM" in KINDS[name].source:
        found = re.search(pattern, KINDS["h100_sxm"].source)
    assert found is not None, (name, pattern)
    return float(found[1])


@pytest.mark.parametrize("name", ["a100_sxm_80gb", "h100_sxm", "h200_sxm"])
def test_a_kind_has_the_rates_of_its_data_sheet(name: str) -> None:
    kind = find_gpu(name)
    assert kind.bf16_tflops == stated(name, r"([\d.]+) TFLOPS BF16")
    memory = 1000 * stated(name, r"memory ([\d.]+) TB/s")
    assert kind.memory_gbyte_per_second == pytest.approx(memory)
    assert kind.link_gbyte_per_second == stated(name, r"NVLink (\d+) GB/s both ways") / 2
    assert 0.99 <= kind.memory_gib / stated(name, r"(\d+) GB(?!/s)") <= 1.0
    assert kind.fp8_tflops == (0.0 if name.startswith("a100") else stated(name, r"([\d.]+) FP8"))


def test_a_kind_that_is_stated_by_the_node_has_an_eighth_of_it() -> None:
    kind = find_gpu("b200")
    assert kind.fp8_tflops == 1000 * stated("b200", r"(\d+) PFLOPS dense FP8") / 8
    assert kind.bf16_tflops == kind.fp8_tflops / 2, "half of it"
    assert kind.link_gbyte_per_second == 1000 * stated("b200", r"NVLink ([\d.]+) TB/s") / 2
    assert kind.memory_gbyte_per_second == 1000 * stated("b200", r"memory ([\d.]+) TB/s") / 8
    assert 0.99 <= 8 * kind.memory_gib / stated("b200", r"(\d+) GB,") <= 1.0
