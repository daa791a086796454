"""The stages `import_benchmarks` and `benchmarks`: the paper's benchmarks in a study."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from frontload.data_tools.disk.files import read_object
from frontload.data_tools.text.tokenizer import TextTokenizer
from frontload.eval.protocol.answers import Answerer
from frontload.eval.protocol.data_root import MANIFEST, DataRoot
from frontload.eval.protocol.evaluation import SuiteRequest, evaluate_suite
from frontload.recipes.artifact import Inputs, Workspace, write_json
from frontload.recipes.errors import Stopped
from frontload.recipes.runs.suite import ENGINE, BenchmarkRows, SuiteRun

ROWS, PROOF = "rows.json", "proof.json"
EXPORTED = "model"  # folder of the stage `convert`


def import_benchmarks(recipe: BenchmarkRows, inputs: Inputs, work: Workspace) -> None:
    """Keeps the proof of the rows and where they lie; a row is read, and proved, when it is asked.

    Raises: RecipeError when there is no data root, ArtifactError when its manifest is damaged.
    """
    folder = Path(recipe.root).absolute()
    DataRoot.open(folder)
    shutil.copyfile(folder / MANIFEST, work.path / PROOF)
    write_json(work.path / ROWS, {"format": 1, "folder": str(folder)})


def ask_benchmarks(recipe: SuiteRun, inputs: Inputs, work: Workspace) -> None:
    """Asks one checkpoint a suite; what is answered stays in the workspace, however it ends."""
    request = SuiteRequest(
        suite=recipe.suite,
        name=recipe.suite.stage,
        size=recipe.size,
        seed=recipe.seed,
        root=_rows(inputs["rows"]),
        out=work.path,
        tokenizer=TextTokenizer.load(inputs["tokenizer"]),
    )
    with _answerer(recipe, inputs, work) as answerer:
        evaluate_suite(request, answerer, watch=_Progress(work))


def _rows(artifact: Path) -> DataRoot:
    folder = Path(read_object(artifact / ROWS, {"format": int, "folder": str})["folder"])
    return DataRoot.open(folder, proof=artifact / PROOF)


@contextmanager
def _answerer(recipe: SuiteRun, inputs: Inputs, work: Workspace) -> Iterator[Answerer]:
    """The checkpoint in this process, or vLLM on its exported copy."""
    if recipe.answerer == ENGINE:
        from frontload.eval.protocol.in_process import load_in_process

        yield load_in_process(inputs["checkpoint"], inputs["tokenizer"])
        return
    from frontload.eval.serving.vllm_process import VllmSettings, vllm_answerer

    settings = VllmSettings(model=inputs["exported"] / EXPORTED, log=work.scratch / "vllm.log")
    with vllm_answerer(settings) as answerer:
        yield answerer


class _Progress:
    """Tells how far a benchmark is, and ends the stage when it is asked to stop."""

    def __init__(self, work: Workspace) -> None:
        self.work = work

    def __call__(self, name: str, *, done: int, total: int) -> None:
        self.work.progress(done, total, note=name)
        if self.work.stop_asked():
            raise Stopped(
                f"benchmark {name}",
                found=f"{done} of {total} answers are on the disk",
                rule="a stage that is asked to stop saves what it has",
                do="run the same command again: it asks for the others",
            )
