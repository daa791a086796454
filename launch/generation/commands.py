"""The commands of `frontload data` for which a model is asked."""

from collections.abc import Mapping

from frontload.data_tools.cli import COMMANDS as FILE_COMMANDS
from frontload.recipes.command_line import Command

HERE = "frontload.launch.generation"
COMMANDS: Mapping[str, Command] = {
    **FILE_COMMANDS,
    "augment": Command(
        text="documents with the thinking of a model behind them",
        adds=f"{HERE}.augment:add_arguments",
    ),
    "questions": Command(
        text="documents to questions with short answers, as the prompts that GRPO reads",
        adds=f"{HERE}.questions:add_arguments",
    ),
}
"""All commands of `frontload data`; those of files alone are the data tools' own."""
