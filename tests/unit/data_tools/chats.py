"""Tokenizers and templates of the kinds that packs meet, and long-tailed conversations."""

import json
import random
from pathlib import Path

from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

CHATML = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content | trim }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
"""Turns as ChatML writes them; the end of a turn is also the token that pads."""

FORGETFUL = """{%- for message in messages -%}
<|im_start|>{{ message.role }}
{% if message.reasoning_content and loop.last %}<think>
{{- message.reasoning_content }}</think>{% endif %}
{{- message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}"""
"""Drops the reasoning of earlier turns, as templates made for chatting do."""


def chatml_tokenizer(folder: Path, *, template: str = CHATML) -> Path:
    """A byte-level tokenizer with ChatML's markers, pad == eos, and its template beside it."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate(alphabet)}
    library = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    library.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    library.decoder = decoders.ByteLevel()
    library.add_special_tokens(
        [AddedToken(token, special=True) for token in ("<|im_start|>", "<|im_end|>")]
    )
    library.add_tokens([AddedToken("<think>"), AddedToken("</think>")])
    folder.mkdir(parents=True, exist_ok=True)
    library.save(str(folder / "tokenizer.json"))
    config = {"eos_token": "<|im_end|>", "pad_token": "<|im_end|>", "chat_template": template}
    (folder / "tokenizer_config.json").write_text(json.dumps(config))
    return folder


def dialogue(*turns: str, system: str = "") -> dict:
    """A row of `messages`: turns of user and assistant by turns."""
    messages = [{"role": "system", "content": system}] if system else []
    messages += [
        {"role": ("user", "assistant")[number % 2], "content": text}
        for number, text in enumerate(turns)
    ]
    return {"messages": messages}


def long_tailed(count: int, *, mean: float, seed: int) -> list[dict]:
    """Questions with answers of lognormal length in characters."""
    rng = random.Random(seed)
    rows = []
    for number in range(count):
        size = max(1, int(rng.lognormvariate(0, 0.8) * mean))
        row = dialogue(f"question {number}?", "".join(rng.choices("abcdefgh ", k=size)) + ".")
        rows.append(row | {"source": rng.choice(["code", "math"])})
    return rows
