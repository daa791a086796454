"""The tokenizer files of a Hugging Face folder: the study's own tokenizer and chat template."""

import json
import shutil
from pathlib import Path
from typing import Any

import frontload.recipes.schema
from frontload.megatron_ext.checkpoints.files import first_line
from frontload.recipes.artifact import tokenizer_file, write_json
from frontload.recipes.errors import ArtifactError

TOKENS = ("<|pad|>", "<|end|>", "<|user|>", "<|assistant|>", "<|answer|>", "<|unk|>")
"""The study's own tokens, by id."""
ROLES = {"pad": 0, "eos": 1}
"""Role -> id of the token. A token with a role is special in every tool: servers leave it out of
the text. The others stay visible: `<|answer|>` is the mark that a grader looks for, and an answer
beside a hidden `<|unk|>` would look right."""


def token_ids() -> dict[str, int | None]:
    """The ids that configurations name. There is no token before a text."""
    return {"bos_token_id": None, **{f"{role}_token_id": ROLES[role] for role in ("eos", "pad")}}


def write_tokenizer(tokenizer: Path, folder: Path, *, max_sequence_tokens: int) -> None:
    """Writes what `AutoTokenizer` reads: the trained tokens, their roles, the chat template.

    The file is the trained one but for `special`, which only a token with a role is.

    `tokenizer` is a tokenizer.json or a folder that holds one.

    Raises: ArtifactError if it is missing or lacks the study's special tokens.
    """
    file = tokenizer_file(tokenizer) if tokenizer.is_dir() else tokenizer
    try:
        content = json.loads(file.read_text())
        found = {token["content"]: token["id"] for token in content["added_tokens"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"tokenizer {file}",
            found=f"no tokenizer file ({first_line(error)})",
            rule="a tokenizer is a tokenizer.json written by the stage `tokenizer`",
            do="name it with --tokenizer",
        ) from error
    for number, text in enumerate(TOKENS):
        if found.get(text) != number:
            raise ArtifactError(
                f"tokenizer {file}",
                found=f"the id of {text} is {found.get(text)}",
                rule=f"it is {number}, which the model was trained with",
                do="name the tokenizer of the checkpoint's own study",
            )
    for token in content["added_tokens"]:
        token["special"] = token["id"] in ROLES.values()
    (folder / "tokenizer.json").write_text(
        json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    config: dict[str, Any] = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "clean_up_tokenization_spaces": False,
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": max_sequence_tokens,
    }
    config |= {f"{role}_token": TOKENS[number] for role, number in ROLES.items()}
    write_json(folder / "tokenizer_config.json", config)
    template = Path(frontload.recipes.schema.__file__).with_name("chat.jinja")
    shutil.copyfile(template, folder / "chat_template.jinja")
