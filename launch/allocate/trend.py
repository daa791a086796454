"""`frontload allocate QUESTION --trend MORE...`: what several answers of a store say together."""

import json
from collections.abc import Sequence
from dataclasses import asdict

from frontload.data_tools.disk.files import read_json
from frontload.eval.allocation.answer import size_text
from frontload.eval.allocation.stages import ANSWER
from frontload.eval.allocation.trend import optimum_of, require_alike, trend_lines, trends
from frontload.launch.allocate.loop import Loop
from frontload.launch.allocate.plan import num_parameters
from frontload.launch.allocate.question import look_up
from frontload.launch.store import Store
from frontload.launch.study.crew import Crew
from frontload.recipes.errors import ArtifactError


def print_trend(
    names: Sequence[str], store: Store, *, overrides: Sequence[str], as_json: bool
) -> int:
    """Prints whether the best share moves with the model and with the budget.

    Raises: ArtifactError for a question that this store has no answer to.
    """
    answers, sizes = {}, {}
    for name in names:
        allocation = look_up(name, store, overrides=overrides)
        folder = Loop(allocation, store, crew=Crew(workers=1)).find_answer()
        if folder is None:
            raise ArtifactError(
                f"trend with {name}",
                found=f"{store.root} has no answer to it",
                rule="a trend is read from questions that were answered in one store",
                do=f"run `frontload allocate {name}` first; --plan prices it",
            )
        answers[name] = read_json(folder / ANSWER)
        sizes[name] = num_parameters(allocation)
    require_alike(answers)
    optima = [
        optimum_of(answer, name=name, num_parameters=sizes[name])
        for name, answer in answers.items()
    ]
    found = trends(optima)
    if as_json:
        print(json.dumps([asdict(one) | {"verdict": one.verdict} for one in found], indent=1))
        return 0
    print("\n".join(trend_lines(optima, found)))
    if size := size_text(max(sizes.values())):
        print(size)
    return 0
