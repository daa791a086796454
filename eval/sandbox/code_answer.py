"""Which part of an answer is its program: one written rule for every benchmark.

1. What stands in `<think>` is no answer; a text that never leaves it has none.
2. Of the closed fenced blocks, the last that defines the function asked for; else the last one.
3. Without a block: the whole text where it defines the function; or, where it begins indented, as a
   body does that goes on after the prompt, the prompt and the text.
4. Else there is no program. A program that reads its input must stand in a block.
"""

import re

FENCE = re.compile(r"^[ \t]*(```+|~~~+)[ \t]*([\w+#.-]*)[^\n]*$", re.MULTILINE)
END_OF_THINKING = "</think>"


def extract_program(text: str, *, entry: str | None, prompt: str = "") -> str | None:
    """The program of an answer, or None. `entry` is the function that the tests call."""
    answer = text.rpartition(END_OF_THINKING)[2]
    if END_OF_THINKING not in text and "<think>" in text:
        return None
    blocks = closed_blocks(answer)
    if blocks:
        defining = [block for block in blocks if entry is not None and defines(block, entry)]
        chosen = (defining or blocks)[-1]
        is_body = entry is not None and not defining and is_indented(chosen)
        return prompt + chosen if is_body else chosen
    if entry is None:
        return None
    if defines(answer, entry):
        return answer
    return prompt + answer if prompt and is_indented(answer) else None


def closed_blocks(text: str) -> list[str]:
    """The fenced blocks of a text, in order. A fence closes with its own kind, at least as long."""
    blocks: list[str] = []
    opened: re.Match[str] | None = None
    for fence in FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1].startswith(opened[1]) and not fence[2]:
            blocks.append(text[opened.end() + 1 : fence.start()])
            opened = None
    return blocks


def defines(code: str, entry: str) -> bool:
    """Whether a line of the code makes that function: at the top, or in a class."""
    name = re.escape(entry)
    return bool(re.search(rf"^\s*(async\s+)?def\s+{name}\b|^{name}\s*=", code, re.MULTILINE))


def is_indented(text: str) -> bool:
    """Whether the first line that holds something begins with a space or a tab."""
    first = next((line for line in text.splitlines() if line.strip()), "")
    return first[:1] in (" ", "\t")
