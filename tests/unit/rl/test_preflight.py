"""A node is told everything that is wrong with it before Ray starts, and passes when nothing is."""

import inspect
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from frontload.rl.cluster import preflight
from frontload.rl.cluster.need import Need, arguments_of

GOOD = {"verl": "0.9.1", "transformers": "5.10.4", "vllm": "0.24.0", "megatron-bridge": "0.6.2"}
GOOD |= {"TransferQueue": "0.1.11", "transformer-engine": "2.20.2", "flash-attn": "2.8.3"}


@pytest.fixture
def model(tmp_path: Path) -> Path:
    folder = tmp_path / "model"
    folder.mkdir()
    config = {"model_type": "nemotron_h", "max_position_embeddings": 8192}
    (folder / "config.json").write_text(json.dumps(config))
    save_file({preflight.EMBEDDING: torch.zeros(2, 2)}, folder / "model.safetensors")
    return folder


@pytest.fixture
def need(model: Path) -> Need:
    return Need(
        actor="fsdp2",
        rollout="vllm",
        is_hybrid=True,
        gpus=0,
        context_tokens=8192,
        prompt_tokens=64,
        model=model,
        files=(),
    )


def told(need: Need, **versions: str | None) -> list[str]:
    found = {name: text for name, text in (GOOD | versions).items() if text is not None}
    return [problem.asked for problem in preflight.software_problems(need, found)]


def test_a_good_node_has_no_problem(need: Need) -> None:
    assert told(need) == []
    assert list(preflight.model_problems(need)) == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("verl", "0.9.0"),
        ("verl", None),
        ("transformers", "5.23.0"),
        ("transformers", "5.11.0"),
        ("transformers", "5.6.0"),
        ("transformers", "4.57.1"),
        ("transformers", None),
        ("vllm", "0.17.1"),
        ("vllm", None),
    ],
)
def test_versions_known_not_to_work_are_told(need: Need, name: str, text: str | None) -> None:
    assert told(need, **{name: text}) == [name]


@pytest.mark.parametrize("text", ["5.5.3", "5.6.1", "5.10.4.dev0", "5.10.0"])
def test_versions_inside_verls_bounds_pass(need: Need, text: str) -> None:
    assert told(need, transformers=text) == []


def test_a_bridge_is_needed_by_megatron_only(need: Need) -> None:
    assert told(need, **{"megatron-bridge": None}) == []
    megatron = replace(need, actor="megatron")
    assert told(megatron, **{"megatron-bridge": "0.5.2"}) == ["megatron-bridge"]


def test_each_actor_is_asked_for_what_it_imports(need: Need) -> None:
    """Megatron-Bridge stops at its import without Transformer Engine."""
    fsdp, megatron = replace(need, gpus=8), replace(need, gpus=8, actor="megatron")
    assert told(megatron, **{"transformer-engine": None}) == ["transformer-engine"]
    assert told(fsdp, **{"transformer-engine": None}) == []
    assert told(fsdp, **{"flash-attn": None}) == ["flash-attn"]
    assert told(megatron, **{"flash-attn": None}) == []
    assert told(need, TransferQueue=None) == ["TransferQueue"]


def test_the_installed_verl_asks_for_the_same(need: Need) -> None:
    """Its own extras name them, and its model's configuration asks for flash attention."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement
    from verl.workers.config.model import HFModelConfig

    asked = {
        one.name: str(one.marker) for one in map(Requirement, requires("verl") or []) if one.marker
    }
    assert "megatron" in asked["transformer-engine"]
    assert '"attn_implementation", "flash_attention_2"' in inspect.getsource(HFModelConfig)


def test_vllm_names_the_torch_that_it_was_built_for(
    need: Need, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read of its package's own metadata, made here as the wheel of 0.24.0 has it."""
    package = tmp_path / "site" / "vllm-0.24.0.dist-info"
    package.mkdir(parents=True)
    lines = ["Metadata-Version: 2.1", "Name: vllm", "Version: 0.24.0"]
    lines += ["Requires-Dist: torch==2.11.0", 'Requires-Dist: torch==1.0; extra == "old"']
    (package / "METADATA").write_text("\n".join(lines) + "\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert preflight.installed()["vllm"] == "0.24.0"
    for version, is_good in (("2.11.0", True), ("2.11.0+cu130", True), ("2.13.0+cpu", False)):
        problems = list(preflight.torch_problems(need, {"vllm": "0.24.0", "torch": version}))
        assert [problem.asked for problem in problems] == ([] if is_good else ["torch"]), version
    (problem,) = preflight.torch_problems(need, {"vllm": "0.24.0"})
    assert (problem.found, problem.do) == (
        "not installed",
        "install torch==2.11.0, or another vLLM",
    )
    own = replace(need, rollout="frontload")
    assert list(preflight.torch_problems(own, {"vllm": "0.24.0", "torch": "1.0"})) == []


def test_the_transformers_bounds_are_those_of_the_installed_verl(need: Need) -> None:
    """What veRL's own metadata asks for, so that a new veRL cannot leave the check behind."""
    from importlib.metadata import requires

    from packaging.requirements import Requirement

    (spec,) = {
        str(requirement.specifier)
        for requirement in map(Requirement, requires("verl") or [])
        if requirement.name == "transformers" and requirement.marker is None
    }
    allowed = Requirement(f"transformers{spec}").specifier
    for text in ("5.5.2", "5.5.3", "5.6.0", "5.6.1", "5.10.9", "5.11.0", "6.0.0"):
        assert (told(need, transformers=text) == []) == (text in allowed), text


def test_missing_kernels_are_told_on_gpus_only(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    from transformers.integrations import hub_kernels

    monkeypatch.setattr(hub_kernels, "lazy_load_kernel", lambda name: None)
    assert list(preflight.kernel_problems(need)) == []
    (problem,) = preflight.kernel_problems(replace(need, gpus=8))
    assert "mamba-ssm and causal-conv1d cannot be loaded" in problem.found
    assert list(preflight.kernel_problems(replace(need, gpus=8, actor="megatron"))) == []
    assert list(preflight.kernel_problems(replace(need, gpus=8, is_hybrid=False))) == []
    monkeypatch.setattr(hub_kernels, "lazy_load_kernel", lambda name: hub_kernels)
    assert list(preflight.kernel_problems(replace(need, gpus=8))) == []


def test_gpus_are_counted(need: Need, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 7)
    (problem,) = preflight.gpu_problems(replace(need, gpus=8))
    assert "torch sees 7" in problem.found
    assert list(preflight.gpu_problems(replace(need, gpus=7))) == []


def test_an_embedding_under_transformers_own_name_is_told(need: Need) -> None:
    """transformers 5.10 writes `backbone.embedding.weight`; others then draw a random one."""
    path = need.model / "model.safetensors"
    save_file({"backbone.embedding.weight": torch.zeros(2, 2)}, path)
    (problem,) = preflight.model_problems(need)
    assert "backbone.embeddings.weight is not among" in problem.found


def test_an_index_of_shards_is_read(need: Need) -> None:
    (need.model / "model.safetensors").unlink()
    index = {"weight_map": {preflight.EMBEDDING: "a.safetensors", "lm_head.weight": "b"}}
    (need.model / "model.safetensors.index.json").write_text(json.dumps(index))
    assert preflight.tensor_names(need.model) == {preflight.EMBEDDING, "lm_head.weight"}
    assert list(preflight.model_problems(need)) == []


def test_a_model_too_short_for_vllm_is_told(need: Need) -> None:
    (problem,) = preflight.model_problems(replace(need, context_tokens=8193))
    assert "max_position_embeddings is 8192" in problem.found
    assert (
        list(preflight.model_problems(replace(need, context_tokens=8193, rollout="frontload")))
        == []
    )


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
@pytest.mark.parametrize("text", [None, "", "not one"])
def test_a_torn_model_folder_is_told(need: Need, name: str, text: str | None) -> None:
    path = need.model / name
    path.unlink()
    if text is not None:
        path.write_text(text)
    (problem,) = preflight.model_problems(need)
    assert "is not a Hugging Face model folder" in problem.found


def test_another_model_is_told(need: Need) -> None:
    (need.model / "config.json").write_text('{"model_type": "llama"}')
    assert "model_type is llama" in next(preflight.model_problems(need)).found


def test_the_command_line_asks_for_what_was_meant(need: Need) -> None:
    files = (Path("a.parquet"), Path("b.parquet"))
    for one in (need, replace(need, is_hybrid=False, files=files, gpus=8, actor="megatron")):
        assert preflight._parse(arguments_of(one)) == one


def test_every_problem_of_a_node_is_said_and_it_fails(
    need: Need, capsys: pytest.CaptureFixture[str]
) -> None:
    missing = replace(need, files=(Path("none.parquet"),), context_tokens=9_000)
    code = preflight.main(arguments_of(missing))
    said = capsys.readouterr().err.splitlines()
    assert code == 2
    assert all(line.startswith("frontload: ") for line in said)
    names = ("vllm", "max_position_embeddings", "none.parquet")
    assert all(any(name in line for line in said) for name in names), said
