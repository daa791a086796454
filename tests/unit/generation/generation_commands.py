"""`frontload data ...` with the commands that ask a model, in this process."""

from frontload.launch.generation.commands import COMMANDS
from frontload.recipes.command_line import family_parser, read_command


def run_data(*words: object) -> int:
    """Reads the words of a command and carries it out; errors are raised."""
    prog = "frontload data"
    family = family_parser(COMMANDS, prog=prog, description="data")
    options = read_command([str(word) for word in words], COMMANDS, prog=prog, help_parser=family)
    return options.run(options)
