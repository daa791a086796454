"""Lines of veRL, Ray and their queue that our shims name: each still holds what it is named for.

A pin that moves makes these fail before a run does. What a shim computes is compared with the code
it stands for in test_lean_queue, test_log_probabilities, test_scan and tests/fault/test_rl_run.
"""

import re
from importlib.metadata import version
from pathlib import Path

import pytest
import ray
import transfer_queue
import transformers
import verl

ROOM = Path(__file__).resolve().parents[3] / "rl"
PACKAGES = {
    one.__name__: Path(str(one.__file__)).parent
    for one in (ray, transfer_queue, transformers, verl)
}
V1, CHECKPOINTS = "verl/trainer/ppo/v1", "verl/utils/checkpoint"
LINES = {
    f"{V1}/trainer_base.py:1022": "latest_checkpointed_iteration.txt",
    f"{V1}/trainer_base.py:1091": 'rsplit("_", 2)',
    f"{V1}/trainer_base.py:1115": '"num_turns", "reward_model", "data_source", "extra_fields"',
    f"{V1}/trainer_base.py:1300": '"reward_model"]',
    f"{V1}/trainer_base.py:1745": '"uid"',
    f"{V1}/trainer_base.py:1871": "fields = [",
    f"{V1}/agent_loop_tq.py:150": "_agent_loop_postprocess",
    f"{CHECKPOINTS}/checkpoint_manager.py:59": "previous_saved_paths = []",
    f"{CHECKPOINTS}/fsdp_checkpoint_manager.py:347": "torch.save(model_state_dict",
    f"{CHECKPOINTS}/megatron_checkpoint_manager.py:505": "huggingface",
    "verl/experimental/reward_loop/reward_manager/naive.py:55": "skip_special_tokens=True",
    "verl/single_controller/ray/base.py:230": 'node_info.get("GPU", 0)',
    "verl/single_controller/ray/base.py:523": "ray.get(",
    "verl/utils/distributed.py:89": "cpu:gloo,{get_device_name()}",
    "verl/utils/import_utils.py:28": "is_megatron_core_available",
    "verl/utils/seqlen_balancing.py:49": "def karmarkar_karp",
    "verl/utils/torch_functional.py:197": "torch.logsumexp(logit, dim=-1) for logit in logits",
    "verl/workers/config/model.py:185": "flash_attention_2",
    "verl/workers/engine/fsdp/transformer_impl.py:462": "CPUOffloadPolicy(pin_memory=True)",
    "verl/workers/engine/fsdp/transformer_impl.py:1552": "to(get_device_id())",
    "transfer_queue/metadata.py:420": "copy.deepcopy(",
    "transfer_queue/metadata.py:499": "copy.deepcopy(",
    "transfer_queue/metadata.py:504": "copy.deepcopy(",
    "transfer_queue/metadata.py:909": "copy.deepcopy(",
    "transformers/generation/candidate_generator.py:30": "is_sklearn_available",
    "ray/_private/node.py:1291": "def start_log_monitor",
    "ray/_private/node.py:1312": "def start_api_server",
    "ray/_private/node.py:1540": "def start_monitor",
    "ray/_private/ray_constants.py:657": "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER",
    "ray/_private/services.py:1322": "get_dashboard_dependency_error()",
    "ray/_private/services.py:1863": "_build_python_executable_command_memory_profileable(",
    "ray/_private/services.py:1909": "get_dashboard_dependency_error()",
    "ray/_private/utils.py:1128": "def get_dashboard_dependency_error",
}
"""Line -> what stands in it."""
NOT_INSTALLED = {"lora_layers.py:20"}  # of Megatron-Bridge, which a CPU machine does not have
CITED = re.compile(r"(\w+\.py):(\d+)((?:(?:,| and) :\d+)*)")


@pytest.mark.parametrize(("line", "text"), LINES.items(), ids=LINES)
def test_a_line_holds_what_it_is_named_for(line: str, text: str) -> None:
    path, number = line.split(":")
    package, rest = path.split("/", 1)
    found = (PACKAGES[package] / rest).read_text(encoding="utf-8").splitlines()[int(number) - 1]
    assert text in found, f"{package} {version(package.replace('_queue', 'queue'))}: {found}"


def test_every_line_that_the_room_names_is_checked() -> None:
    known = {line.rpartition("/")[2] for line in LINES} | NOT_INSTALLED
    for source in sorted(ROOM.rglob("*.py")):
        for name, number, more in CITED.findall(source.read_text(encoding="utf-8")):
            numbers = [number, *re.findall(r"\d+", more)]
            missing = {f"{name}:{one}" for one in numbers} - known
            assert not missing, f"{source.name} names {missing}: add it to LINES with its text"
