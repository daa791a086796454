"""Stock tasks of lm-eval: it writes the prompts and scores the answers, we ask and keep them.

Importing this module imports lm_eval (about a CPU second).
"""

import logging
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import datasets
import lm_eval.tasks
from lm_eval.api.instance import Instance
from lm_eval.api.samplers import FirstNSampler
from lm_eval.api.task import ConfigurableTask
from lm_eval.tasks._yaml_loader import load_yaml  # an index of all tasks takes 7 CPU seconds

from frontload.eval.protocol.answers import Generated, Loglikelihood
from frontload.eval.protocol.data_root import DataRoot, SplitName
from frontload.eval.protocol.items import (
    BenchmarkItem,
    ChoiceTask,
    GradedAnswer,
    MissingBenchmark,
)
from frontload.eval.protocol.known_splits import KNOWN
from frontload.eval.statistics.floors import AskedItem, Floors, measure_floors
from frontload.eval.statistics.stats import clustered_mean
from frontload.recipes.errors import ArtifactError, RecipeError
from frontload.recipes.grammar.load import nearest
from frontload.recipes.runs.suite import SuiteBenchmark

TASKS = Path(lm_eval.tasks.__file__).parent
UNNAMED = "default"  # the hub's word for the only part of a data set
NO_FILTER = "none"
GOLD_SENTENCE = "The answer is {}."  # as the worked examples of gsm8k-cot and MMLU-Pro end
INVALID = "[invalid]"  # what lm-eval's regex filter returns where nothing matches


class StockPart:
    """One task of lm-eval: a subject of MMLU, or a benchmark that has no parts."""

    def __init__(self, part: str, task: ConfigurableTask, *, num_shots: int) -> None:
        self.part, self.task, self.num_shots = part, task, num_shots
        self.docs = cast("list[dict[str, Any]]", list(task.eval_docs))

    def instances(self, number: int) -> list[Instance]:
        """The requests of one row, as lm-eval builds them."""
        doc, metadata = self.docs[number], (self.task.config.task, number, 1)
        context = self.task.fewshot_context(
            doc, num_fewshot=self.num_shots, gen_prefix=self.task.doc_to_prefix(doc)
        )
        found = self.task.construct_requests(doc=doc, ctx=context, metadata=metadata)
        return found if isinstance(found, list) else [found]

    def examples(self) -> list[str]:
        """The questions of the rows that its prompts take worked examples from."""
        if not self.num_shots:
            return []
        sampler = self.task.sampler
        is_first = isinstance(sampler, FirstNSampler)
        pool = sampler.df[: self.num_shots] if is_first else sampler.df
        return [_question(cast("dict[str, Any]", row)) for row in pool]

    def metrics(self, number: int, results: Sequence[Any]) -> dict[str, float]:
        """`metric,filter` -> value of one row, through lm-eval's filters."""
        instances = self.instances(number)
        for instance, result in zip(instances, results, strict=True):
            instance.resps = [result]
        self.task._instances = instances
        self.task.apply_filters()
        doc, found = self.docs[number], {}
        for name in instances[0].filtered_resps:
            answers = [instance.filtered_resps[name] for instance in instances]
            for metric, value in self.task.process_results(doc, answers).items():
                found[metric if name == NO_FILTER else f"{metric},{name}"] = float(value)
        return found


class StockTask(ChoiceTask):
    """A benchmark that lm-eval asks and scores."""

    def __init__(
        self, name: str, benchmark: SuiteBenchmark, *, parts: Sequence[StockPart], is_tiny: bool
    ) -> None:
        self.benchmark = benchmark
        self._rows: dict[str, tuple[StockPart, int]] = {}
        items: list[BenchmarkItem] = []
        stop: set[str] = set()
        for part in parts:
            for number in _numbers(benchmark, part, is_tiny=is_tiny):
                where = "/".join(filter(None, (name, part.part, str(number))))
                self._rows[where] = (part, number)
                item, ends = self._item(where, part, number=number)
                items.append(item)
                stop |= set(ends)
        super().__init__(items, stop=sorted(stop))

    def _item(self, where: str, part: StockPart, *, number: int) -> tuple[BenchmarkItem, list[str]]:
        doc, instances = part.docs[number], part.instances(number)
        question = _question(doc)
        if instances[0].request_type == "loglikelihood":
            options = tuple(cast("tuple[str, str]", one.args) for one in instances)
            item = BenchmarkItem(
                id=where, question=question, gold="", options=options, shown=_shown(doc, options)
            )
            return item, []
        prompt, settings = cast("tuple[str, dict[str, Any]]", instances[0].args)
        gold = str(part.task.doc_to_target(doc))
        return BenchmarkItem(id=where, question=question, gold=gold, prompt=prompt), list(
            settings.get("until", [])
        )

    def grade(self, answers: Sequence[tuple[BenchmarkItem, Generated]]) -> list[GradedAnswer]:
        return [self._graded(item, generated.text) for item, generated in answers]

    def _graded(self, item: BenchmarkItem, text: str) -> GradedAnswer:
        part, number = self._rows[item.id]
        metric = self.benchmark.metric
        found = part.metrics(number, [text])
        if metric not in found:
            raise _no_metric(self.benchmark, found)
        name = metric.partition(",")[2]
        (instance,) = part.task.instances
        shown = str(instance.filtered_resps[name or NO_FILTER])
        if shown == INVALID:
            return GradedAnswer(correct=False, answer="", failure="no answer")
        return GradedAnswer(correct=found[metric] > 0, answer=shown)

    def examples(self) -> list[str]:
        parts = {id(part): part for part, _ in self._rows.values()}
        return [text for part in parts.values() for text in part.examples()]

    def gold_answers(self) -> list[tuple[BenchmarkItem, Generated]]:
        """The task's own target; where that is no whole answer, a sentence that ends in it."""
        return [
            (item, Generated(text=self._gold_text(item), num_tokens=0, finish="stop"))
            for item in self.items
            if not item.options
        ]

    def _gold_text(self, item: BenchmarkItem) -> str:
        is_whole = self._graded(item, item.gold).correct
        return item.gold if is_whole else GOLD_SENTENCE.format(item.gold)

    def floors(self) -> Floors | None:
        """Of options, one place always: no text chooses one. Of texts, as for every grader."""
        if self.benchmark.sampling is None:
            places = Counter(self.gold_place(item) for item in self.items)
            best = min(places, key=lambda place: (-places[place], place))
            chosen = [self.gold_place(item) == best for item in self.items]
            nothing = clustered_mean([False] * len(self.items))
            return Floors(
                empty=nothing,
                echoed=nothing,
                constant=clustered_mean(chosen),
                constant_answer=f"option {best + 1}",
            )
        items = {item.id: item for item in self.items}
        return measure_floors(
            [AskedItem(id=item.id, question=item.question, gold=item.gold) for item in self.items],
            is_right=lambda asked, text: self._graded(items[asked.id], text).correct,
            respond=GOLD_SENTENCE.format,
        )

    def scores(self, item: BenchmarkItem, options: Sequence[Loglikelihood]) -> tuple[float, ...]:
        """Log-likelihoods in nats; for acc_norm, as lm-eval has it, for each character."""
        totals = [one.total for one in options]
        if self.benchmark.metric != "acc_norm":
            return tuple(totals)
        part, number = self._rows[item.id]
        choices = part.task.doc_to_choice(part.docs[number])
        return tuple(total / len(text) for total, text in zip(totals, choices, strict=True))

    def metric_of(self, item: BenchmarkItem, options: Sequence[Loglikelihood]) -> float:
        """The suite's metric of one item, computed by lm-eval itself."""
        part, number = self._rows[item.id]
        found = part.metrics(number, [(one.total, one.is_greedy) for one in options])
        if self.benchmark.metric not in found:
            raise _no_metric(self.benchmark, found)
        return found[self.benchmark.metric]

    def gold_place(self, item: BenchmarkItem) -> int:
        part, number = self._rows[item.id]
        doc, task = part.docs[number], part.task
        gold = task.doc_to_text(doc) if task.multiple_input else task.doc_to_target(doc)
        return gold if isinstance(gold, int) else task.doc_to_choice(doc).index(str(gold))


def load_stock(
    name: str, benchmark: SuiteBenchmark, *, root: DataRoot, is_tiny: bool
) -> StockTask | MissingBenchmark:
    """A benchmark's stock tasks on the rows of a data root.

    Raises: RecipeError for a task that lm-eval does not have, ArtifactError for a damaged root.
    """
    files = task_files(benchmark)
    parts: list[StockPart] = []
    missing = ""
    with _quiet():
        for part, file in files.items():
            if is_tiny and benchmark.tiny_parts and part not in benchmark.tiny_parts:
                continue
            loaded = _load_part(part, file, benchmark=benchmark, root=root)
            if isinstance(loaded, str):
                missing = missing or loaded
            else:
                parts.append(loaded)
    if not parts or (missing and not root.is_made(benchmark.dataset)):
        return MissingBenchmark(reason=missing)
    return StockTask(name, benchmark, parts=parts, is_tiny=is_tiny)


def task_files(benchmark: SuiteBenchmark) -> dict[str, Path]:
    """Part -> the stock YAML of a benchmark's tasks; one part without a name, or those of a star.

    Raises: RecipeError when lm-eval has no such file.
    """
    before, star, after = benchmark.task.partition("*")
    if not star:
        files = {"": TASKS / f"{benchmark.task}.yaml"}
    else:
        found = sorted(TASKS.glob(f"{before}*{after}.yaml"))
        files = {path.stem.removeprefix(Path(before).name): path for path in found}
    if not files or not all(path.is_file() for path in files.values()):
        folder = (TASKS / benchmark.task).parent
        names = [f"{folder.relative_to(TASKS)}/{one.stem}" for one in folder.glob("[!_]*.yaml")]
        raise RecipeError(
            f"task {benchmark.task}",
            found=f"lm-eval {lm_eval.__version__} has no such file",
            rule="a stock task is a YAML file under lm_eval/tasks, named without .yaml",
            do=nearest(benchmark.task, names),
        )
    return files


def _load_part(
    part: str, file: Path, *, benchmark: SuiteBenchmark, root: DataRoot
) -> StockPart | str:
    config = load_yaml(file)
    for key in ("tag", "group", "task_list"):
        config.pop(key, None)
    wanted = [config.get("test_split") or config["validation_split"]]
    if benchmark.num_shots and not _fixed_examples(config):
        wanted.append(config.get("fewshot_split") or config["training_split"])
    names = [
        SplitName(
            dataset=str(config["dataset_path"]),
            part=str(config.get("dataset_name") or UNNAMED),
            split=split,
        )
        for split in wanted
    ]
    for one in names:
        if not root.has(one):
            return f"no rows of {one.dataset}, {one.part}, {one.split} in {root.folder}"
    rows = {one.split: _table(one, root) for one in names}
    config |= {"custom_dataset": lambda **_: rows, "num_fewshot": benchmark.num_shots}
    if len(wanted) == 1:  # lm-eval would read the others for examples
        config |= {"training_split": None, "fewshot_split": None}
    if config.get("test_split"):
        config["validation_split"] = None
    task = ConfigurableTask(config=config)
    if not len(task.eval_docs):
        return f"no rows of {part or benchmark.task} in {root.folder}"
    return StockPart(part, task, num_shots=benchmark.num_shots)


def _fixed_examples(config: Mapping[str, Any]) -> bool:
    return (config.get("fewshot_config") or {}).get("samples") is not None


def _table(name: SplitName, root: DataRoot) -> datasets.Dataset:
    """The rows of a split as lm-eval takes them.

    Raises: ArtifactError for a row without a field.
    """
    rows = root.read(name)
    known = next((one for one in KNOWN if one.is_of(name)), None)
    for number, row in enumerate(rows):
        if known is not None and (missing := known.missing_field(row)):
            raise ArtifactError(
                f"{root.folder / name.file}:{number + 1}",
                found=f"no field '{missing}', but {', '.join(row)}",
                rule=f"a row has {known.required}",
                do="make the data root again with `frontload eval data`",
            )
    return datasets.Dataset.from_list(rows)


def _numbers(benchmark: SuiteBenchmark, part: StockPart, *, is_tiny: bool) -> list[int]:
    """The rows of a part that are asked.

    Raises: ArtifactError for a tiny row that the part does not have.
    """
    if not is_tiny:
        return list(range(len(part.docs)))
    for number in benchmark.tiny_rows:
        if number >= len(part.docs):
            raise ArtifactError(
                f"{benchmark.dataset} {part.part}".strip(),
                found=f"{len(part.docs)} rows, none of number {number}",
                rule=f"size tiny asks the rows {', '.join(map(str, benchmark.tiny_rows))}",
                do="make the data root again with `frontload eval data`",
            )
    return list(benchmark.tiny_rows)


def _question(doc: Mapping[str, Any]) -> str:
    """The text of a row that people know it by."""
    for name in ("question", "query", "sentence", "article", "problem"):
        if isinstance(doc.get(name), str):
            return doc[name]
    return ""


def _shown(doc: Mapping[str, Any], options: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    """The options as people read them: those of the row where the prompt has letters for them."""
    listed = doc.get("choices")
    if isinstance(listed, list) and len(listed) == len(options):
        return tuple(map(str, listed))
    is_placed = len({context for context, _ in options}) > 1  # the options end the contexts
    return tuple(context if is_placed else text.strip() for context, text in options)


def _no_metric(benchmark: SuiteBenchmark, found: Mapping[str, float]) -> RecipeError:
    return RecipeError(
        f"metric {benchmark.metric!r} of task {benchmark.task}",
        found="no such metric of this task",
        rule=f"its metrics are {', '.join(found)}",
        do=nearest(benchmark.metric, list(found)),
    )


@contextmanager
def _quiet() -> Iterator[None]:
    """Holds back lm-eval's notes about its own options, not its errors."""
    logger = logging.getLogger("lm_eval")
    level = logger.level
    logger.setLevel(logging.ERROR)
    bars = datasets.are_progress_bars_disabled()
    datasets.disable_progress_bars()
    try:
        yield
    finally:
        logger.setLevel(level)
        if not bars:
            datasets.enable_progress_bars()
