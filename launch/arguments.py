"""Arguments of the commands whose modules are imported only when they run, so that help is fast."""

import argparse
import importlib
from collections.abc import Callable
from pathlib import Path

from frontload.launch.origins.named import FIRST_PHASE

STUDY = "a name under recipes/studies, or a path ending in .yaml"
TRAINING = "a name under recipes/training, or a path ending in .yaml"
PLACEMENT = "a name under recipes/placements, or a path ending in .yaml"


def add_plan(one: argparse.ArgumentParser) -> None:
    """Those of `plan`."""
    _add_study(one)
    _add_json(one)
    one.add_argument("-v", "--verbose", action="store_true", help="list the stages, and why")
    one.set_defaults(run=_later("frontload.launch.commands", "plan"))


def add_run(one: argparse.ArgumentParser) -> None:
    """Those of `run`."""
    _add_study(one)
    _add_report(one)
    one.add_argument(
        "--only",
        nargs="+",
        default=[],
        metavar="STAGE",
        help="these stages with what they need: kind, label or key",
    )
    one.add_argument(
        "--dry-run", action="store_true", help="print what would be started, start nothing"
    )
    one.set_defaults(run=_later("frontload.launch.commands", "run"))


def add_status(one: argparse.ArgumentParser) -> None:
    """Those of `status`."""
    _add_study(one)
    _add_json(one)
    one.add_argument("--verify", action="store_true", help="read and compare every byte")
    one.set_defaults(run=_later("frontload.launch.commands", "status"))


def add_report(one: argparse.ArgumentParser) -> None:
    """Those of `report`."""
    _add_study(one)
    _add_report(one)
    one.set_defaults(run=_later("frontload.launch.commands", "report"))


def add_explain(one: argparse.ArgumentParser) -> None:
    """Those of `explain`."""
    one.add_argument(
        "what", nargs="+", metavar="KEY-OR-LABEL", help="of a stage; or `sample N` of a blend"
    )
    one.add_argument(
        "--blend", help=f"key or label of the blend of `sample N` (default {FIRST_PHASE})"
    )
    one.add_argument("--study", help="the study that a label belongs to; " + STUDY)
    one.add_argument("--json", action="store_true", help="print the explanation as JSON")
    _add_store(one)
    one.set_defaults(run=_later("frontload.launch.shown.explain", "explain"))


def add_launch(one: argparse.ArgumentParser) -> None:
    """Those of `launch`."""
    one.add_argument("recipe", metavar="RECIPE", help=TRAINING)
    one.add_argument("--placement", required=True, help=PLACEMENT)
    one.add_argument("--dry-run", action="store_true", help="print the job, start nothing")
    one.add_argument("--model", type=Path, help="Hugging Face folder to start from")
    one.add_argument("--prompts", type=Path, help="parquet of training prompts")
    one.add_argument("--validation", type=Path, help="parquet of validation prompts")
    _add_training_data(one)
    one.add_argument("--chain", type=int, default=1, metavar="N", help="N jobs, one after another")
    one.add_argument("--out", type=Path, help="folder of the run (default runs/RECIPE-KEY)")
    one.set_defaults(run=_later("frontload.launch.cluster.submit", "launch"))


def add_stage(one: argparse.ArgumentParser) -> None:
    """Those of `stage`."""
    one.add_argument("file", type=Path, metavar="FILE", help="stage.json in a job's folder")
    one.set_defaults(run=_later("frontload.launch.cluster.stage_job", "make_stage"))


def add_train(one: argparse.ArgumentParser) -> None:
    """Those of `train`."""
    _add_training_run(one)
    _add_training_data(one)
    one.set_defaults(run=_later("frontload.launch.run.train", "train"))


def add_rl(one: argparse.ArgumentParser) -> None:
    """Those of `rl`."""
    _add_training_run(one)
    one.add_argument(
        "--model", required=True, help="Hugging Face folder, or a checkpoint: folder, key or label"
    )
    one.add_argument("--tokenizer", type=Path, help="of a checkpoint (default its study's)")
    for name, text in (("prompts", "to train on"), ("validation", "to validate on")):
        one.add_argument(
            f"--{name}", type=Path, required=True, help=f"parquet or JSON lines {text}"
        )
    _add_store(one)
    one.set_defaults(run=_later("frontload.launch.run.rl", "reinforce"))


def _add_study(one: argparse.ArgumentParser) -> None:
    one.add_argument("study", metavar="STUDY", help=STUDY)
    one.add_argument(
        "--store",
        type=Path,
        help="folder of artifacts (default store; of jobs: store in the cluster's shared folder)",
    )
    one.add_argument("--seeds", help="how many (3: seeds 1 to 3), or which (4,5,6)")
    one.add_argument("--workers", type=int, help="worker processes (default one per core)")


def _add_json(one: argparse.ArgumentParser) -> None:
    one.add_argument("--json", action="store_true", help="print JSON")


def _add_report(one: argparse.ArgumentParser) -> None:
    one.add_argument("--out", type=Path, help="folder of the report (default results/STUDY)")


def _add_training_run(one: argparse.ArgumentParser) -> None:
    """One run of a training recipe in a folder of its own."""
    one.add_argument("recipe", metavar="RECIPE", help=TRAINING)
    one.add_argument("--placement", default="cpu", help=PLACEMENT + " (default cpu)")
    one.add_argument("--out", type=Path, required=True, help="folder of the run")
    one.add_argument(
        "--say-every", type=float, default=10.0, help="seconds between progress lines (default 10)"
    )


def _add_training_data(one: argparse.ArgumentParser) -> None:
    one.add_argument(
        "--blend", type=Path, nargs="+", default=[], help="blend of each phase, in order"
    )
    one.add_argument(
        "--index", type=Path, nargs="+", default=[], help="indexes that the blends were planned on"
    )
    one.add_argument("--pack", type=Path, help="pack of a fine-tuning")
    one.add_argument("--start", type=Path, help="checkpoint to go on from")
    one.add_argument("--until", default="", metavar="PHASE", help="last phase to train")


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, default=Path("store"), help="folder of artifacts (default store)"
    )


def _later(module: str, function: str) -> Callable[[argparse.Namespace], int]:
    """A command whose module is imported when it runs: the others start faster."""
    return lambda options: getattr(importlib.import_module(module), function)(options)
