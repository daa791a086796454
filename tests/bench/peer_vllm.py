"""Generation by vLLM, in an environment of its own: MODEL PROMPTS OUT, greedy, timed by CPU.

Prints the CPU seconds of each round and writes the tokens of the last one.
"""

import json
import sys
import time
from pathlib import Path

from vllm import LLM, SamplingParams  # type: ignore[import-not-found]

NEW, ROUNDS, BATCH = 64, 4, 64


def main() -> None:
    model, prompts, out = sys.argv[1:]
    engine = LLM(
        model=model,
        skip_tokenizer_init=True,
        dtype="float32",
        enforce_eager=True,  # its compiled form was not tried: it needs a compiler
        max_model_len=256,
        max_num_seqs=BATCH,
        enable_prefix_caching=False,
    )
    asked = [{"prompt_token_ids": one} for one in json.loads(Path(prompts).read_text())]
    drawn = SamplingParams(temperature=0, max_tokens=NEW, ignore_eos=True, detokenize=False)
    for _ in range(ROUNDS):
        began = time.process_time()
        found = engine.generate(asked, drawn, use_tqdm=False)
        print(f"CPU {time.process_time() - began}", flush=True)
    tokens = [list(one.outputs[0].token_ids) for one in found]
    Path(out).write_text(json.dumps(tokens))


if __name__ == "__main__":
    main()
