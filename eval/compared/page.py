"""report.html of one evaluation: its numbers, every gate, and the comparisons beside it."""

from collections.abc import Sequence
from pathlib import Path

from frontload.data_tools.disk.files import read_json, replacing
from frontload.eval.compared.evaluations import PairedEvaluations, comparison_lines
from frontload.eval.protocol.stored import read_summary
from frontload.eval.report.templates import resource, template
from frontload.eval.statistics.score import AVERAGING_RULES
from frontload.recipes.artifact import scores_file

PAGE = "report.html"


def write_page(folder: Path, comparisons: Sequence[PairedEvaluations]) -> Path:
    """Writes the page of the evaluation in a folder, and returns it.

    Raises: ArtifactError when the folder holds no evaluation.
    """
    text = template("evaluation.html.jinja").render(
        summary=read_summary(folder),
        scores=read_json(scores_file(folder)),
        rules=AVERAGING_RULES,
        comparisons=["\n".join(comparison_lines(one)) for one in comparisons],
        css=resource("report.css"),
    )
    with replacing(folder / PAGE, "w") as stream:
        stream.write(text)
    return folder / PAGE
