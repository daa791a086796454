"""Generation at batch 64 against vLLM on the CPU, from the exported folder: same tokens, CPU time.

vLLM lives in an environment of its own, made once where there is a package index:

    uv venv .vllm --python 3.12
    uv pip install --python .vllm/bin/python --no-deps -r tests/bench/vllm_lock.txt

Its attention on a CPU wants heads of 32, so the model is a hybrid of that width with drawn weights.
The two sides are processes, so they run one after the other: best CPU time of four rounds each.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path

import numpy as np
from paired import measure

from frontload.megatron_ext.hf.convert import export_hf
from frontload.megatron_ext.inference.draws import Sampling
from frontload.megatron_ext.inference.language_model import LanguageModel
from frontload.recipes.schema import Model
from tests.parity.conftest import save_drawn

BATCH, PROMPT, NEW, ROUNDS = 64, 32, 64, 4  # the last two as in peer_vllm.py
MODEL = Model(
    pattern="M*-M*-", hidden_size=128, ffn_hidden_size=384, num_attention_heads=4,
    num_query_groups=4, kv_channels=32, mamba_num_heads=4, mamba_head_dim=32,
    mamba_state_dim=16, mamba_num_groups=1, mamba_chunk_tokens=32, vocab_size=2048,
    max_sequence_tokens=256, tie_embeddings=False, norm_epsilon=1e-5, init_std=0.02,
    embedding_init_std=0.02,
)  # fmt: skip


def run_peer(python: Path, model: Path, prompts: list[list[int]]) -> tuple[list[list[int]], float]:
    """Tokens that vLLM writes, and the best CPU seconds of a round."""
    with tempfile.TemporaryDirectory() as name:
        asked, out = Path(name) / "prompts.json", Path(name) / "tokens.json"
        asked.write_text(json.dumps(prompts))
        script = Path(__file__).with_name("peer_vllm.py")
        settings = {
            "PATH": "/usr/bin:/bin", "HOME": name, "OMP_NUM_THREADS": "1",
            "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        }  # fmt: skip
        command = [str(python.absolute()), str(script), str(model), str(asked), str(out)]
        ended = subprocess.run(command, env=settings, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr[-2000:]
        seconds = [
            float(line.split()[1]) for line in ended.stdout.splitlines() if line[:4] == "CPU "
        ]
        return json.loads(out.read_text()), min(seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, default=Path(".vllm/bin/python"))
    python = parser.parse_args().python
    if not python.is_file():
        print(
            f"not run: no {python}; the first lines of tests/bench/bench_vllm.py say how to make it"
        )
        return
    rng = np.random.default_rng(0)
    prompts = rng.integers(2, MODEL.vocab_size, (BATCH, PROMPT)).tolist()
    with tempfile.TemporaryDirectory() as name:
        checkpoint, exported = Path(name) / "checkpoint", Path(name) / "hf"
        save_drawn(MODEL, checkpoint)
        export_hf(checkpoint, exported)
        theirs, their_seconds = run_peer(python, exported, prompts)
        ours = LanguageModel.load(checkpoint)

        def run_ours() -> list[list[int]]:
            made = ours.generate(
                prompts, Sampling(max_new_tokens=NEW, temperature=0.0, seed=0, stop_token=-1)
            )
            return [row for (row,) in made]

        same = np.mean([one == other for one, other in zip(run_ours(), theirs, strict=True)])
        print(f"rows with the same {NEW} greedy tokens: {same:.0%} of {BATCH}")
        assert same == 1, "vLLM does not read the exported folder as we do"
        seconds = measure({"ours": run_ours}, rounds=ROUNDS)["ours"].best
    tokens = BATCH * NEW
    print(f"tokens a CPU second: vLLM {tokens / their_seconds:.0f}, ours {tokens / seconds:.0f}")
    print(f"ours is {their_seconds / seconds:.2f} x vLLM (goal 1.0)")


if __name__ == "__main__":
    main()
