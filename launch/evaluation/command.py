"""`frontload eval`: the table of its commands."""

from collections.abc import Mapping

from frontload.recipes.command_line import Command

COMMANDS: Mapping[str, Command] = {
    "environment": Command(
        text="make the environment of a harness that stands apart: nemo-skills",
        adds="frontload.launch.evaluation.nemo_skills:add_environment",
    ),
    "nemo-skills": Command(
        text="ask NeMo-Skills to evaluate the model behind a server",
        adds="frontload.launch.evaluation.nemo_skills:add_nemo_skills",
    ),
}
