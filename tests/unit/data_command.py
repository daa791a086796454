"""`frontload data ...` in this process, with its errors raised instead of printed."""

from frontload.data_tools.cli import COMMANDS
from frontload.recipes.command_line import family_parser, read_command


def run_data_command(*words: object) -> int:
    """Reads the words of a data command and carries it out."""
    prog = "frontload data"
    family = family_parser(COMMANDS, prog=prog, description="data")
    options = read_command([str(word) for word in words], COMMANDS, prog=prog, help_parser=family)
    return options.run(options)
