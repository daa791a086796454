"""GRPO through veRL: by hand, and under kill, interrupt, resume, side by side, learning rate 0.

Ray takes most of a minute to start, so few runs answer all questions, two of them at once and
all in one test: tests of one file may be given to two processes, each of which would run them.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
import torch

from frontload.megatron_ext.inference.language_model import LanguageModel, read_weights
from frontload.recipes.grammar.load import find_recipe, load_recipe
from frontload.recipes.schema import Model
from frontload.rl.plugins.scan import Mixer, mixer_forward
from frontload.rl.trainer.local_run import RUN_MARK
from tests.fault.rl_run import ROWS_A_TIME, recipe_of
from tests.parity.plain_grpo import PlainGrpo
from tests.unit.megatron_ext.convert_inputs import write_checkpoint, write_tokenizer_file

pytestmark = pytest.mark.slow

STEPS = 3
RATE = 1e-3
SECONDS = 600.0  # for what takes one minute on an idle machine


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of random weights, and prompts whose answer it finds by chance: nothing."""
    folder = tmp_path_factory.mktemp("rl")
    path = find_recipe("models", "hybrid_138k")
    assert path is not None
    model = replace(load_recipe(path, Model).value, vocab_size=16, max_sequence_tokens=128)
    (folder / "start").mkdir()
    write_checkpoint(folder / "start", model, scale=0.1)  # nearly uniform over the words
    write_tokenizer_file(folder / "tokenizer.json")
    row = {"trace": "", "answer": "", "family": "own", "domain": "math"}
    lines = [
        json.dumps({"id": f"{place}", "question": "what is " + "3 + " * place + "4", **row})
        for place in range(1, 13)
    ]
    (folder / "prompts.jsonl").write_text("\n".join(lines) + "\n")
    (folder / "held.jsonl").write_text(lines[0] + "\n")
    return folder


class Run:
    """A stage in a process of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        self.work = folder / "store" / ".work" / "grpo" / f"lr{RATE:g}-{name}"
        self.made = self.work / "path"
        self.script = [
            sys.executable, str(Path(__file__).with_name("rl_run.py")),
            str(folder), str(RATE), str(STEPS), name,
        ]  # fmt: skip
        self.log = folder / f"{name}.log"
        self.start()

    def start(self) -> None:
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(
                self.script,
                env=environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                preexec_fn=hear_interrupts,
            )

    def finish(self) -> "Run":
        assert self.process.wait(SECONDS) == 0, self.log.read_text()[-4000:]
        return self

    def wait_for(self, what: str) -> None:
        deadline = time.monotonic() + SECONDS
        while not list((self.work / "scratch").glob(what)):
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            assert time.monotonic() < deadline, f"no {what}"
            time.sleep(0.1)

    def mark(self) -> str:
        return Path((self.work / "scratch" / "ray_folder").read_text()).name

    def weights(self) -> dict[str, torch.Tensor]:
        return read_weights(self.made / "weights", torch.device("cpu"))

    def counted_seconds(self) -> float:
        """CPU time that the system charged to the stage's process for those it started."""
        return float((self.work / "counted").read_text())

    def metrics(self) -> list[dict[str, float]]:
        text = (self.made / "metrics.jsonl").read_text()
        return [json.loads(line) for line in text.splitlines()]


class CommandRun(Run):
    """`frontload rl` of one step at learning rate 0, with only the groups that teach something."""

    def __init__(self, folder: Path, *, name: str = "run", more: tuple[str, ...] = ()) -> None:
        self.out = folder / name
        self.work, self.made = self.out / "work" / "grpo", self.out / "grpo"
        self.script = [
            *(sys.executable, "-m", "frontload.launch.cli", "rl", "grpo_tiny"),
            *("--model", str(folder / "start"), "--tokenizer", str(folder / "tokenizer.json")),
            *("--prompts", str(folder / "prompts.jsonl")),
            *("--validation", str(folder / "held.jsonl"), "--out", str(self.out)),
            *("steps=1", "optimizer.learning_rate=0.0", "response_tokens=24"),
            "grpo.filter_one_reward_groups=true",
            *("model.vocab_size=16", "model.max_sequence_tokens=128", *more),
        ]
        self.log = folder / f"{name}-command.log"
        self.start()


def hear_interrupts() -> None:
    """As from a terminal: what a shell starts with `&` ignores Ctrl-C, and so do its children."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def processes_of(mark: str) -> list[psutil.Process]:
    """Living processes that inherited a run's mark, whoever their parent is now."""
    found = []
    for process in psutil.process_iter():
        try:
            is_alive = process.status() != psutil.STATUS_ZOMBIE
            if is_alive and process.environ().get(RUN_MARK) == mark:
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def wait_until_gone(mark: str) -> list[str]:
    """What of a run still lives after a minute, each with its command."""
    deadline = time.monotonic() + 60
    while (left := processes_of(mark)) and time.monotonic() < deadline:
        time.sleep(0.5)
    return [told for process in left if (told := described(process))]


def described(process: psutil.Process) -> str:
    """Status and command of a process; nothing if it ended meanwhile."""
    try:
        with process.oneshot():
            command = " ".join(process.cmdline())
            parent = process.ppid()
            return f"{process.pid} of {parent}, {process.status()}: {command[:300]}"
    except psutil.NoSuchProcess:
        return ""


def listening_beyond_loopback(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(RUN_MARK) == mark:
                found += [
                    f"{process.name()} {one.laddr.ip}:{one.laddr.port}"
                    for one in process.net_connections("inet")
                    if one.status == psutil.CONN_LISTEN
                    and one.laddr.ip.removeprefix("::ffff:") not in ("127.0.0.1", "::1")
                ]
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


class Sampler(threading.Thread):
    """CPU seconds of a run's processes, seen from outside while they live."""

    def __init__(self, run: Run) -> None:
        super().__init__(daemon=True)
        self.run_, self.seen = run, dict[int, float]()
        self.start()

    def run(self) -> None:
        while self.run_.process.poll() is None:
            try:
                mark = self.run_.mark()
            except FileNotFoundError:  # before its folder is there, and after
                mark = ""
            for process in processes_of(mark) if mark else ():
                with contextlib.suppress(psutil.NoSuchProcess):
                    times = process.cpu_times()
                    self.seen[process.pid] = times.user + times.system
            time.sleep(1.0)


def check_trained(whole: Run, folder: Path) -> None:
    LanguageModel.load(whole.work / "path")
    start = read_weights(folder / "start" / "weights", torch.device("cpu"))
    assert any(not torch.equal(start[name], tensor) for name, tensor in whole.weights().items())
    steps = [line for line in whole.metrics() if line["step"] > 0]
    assert [line["step"] for line in steps] == [1, 2, 3]
    assert sum(line["train/reward"] for line in steps) > 0
    for line in steps:
        assert line["train/rollout_probability_difference"] < 1e-5
        assert 0 <= line["train/degenerate_group_share"] <= 1
        assert {"train/reward", "train/kl", "train/entropy", "train/clip_share"} <= line.keys()
        assert line["train/cut_share"] * line["train/response_tokens"] < 24
    check_validated(whole)
    assert not (whole.work / "scratch" / "ray_folder").exists()


def check_validated(whole: Run) -> None:
    """At the start and at the end, and the answers of both are there to be read."""
    names = [f"train/validation_{name}_family_mean" for name in ("accuracy", "reward")]
    lines = [line for line in whole.metrics() if names[0] in line]
    assert [line["step"] for line in lines] == [0, STEPS]
    answers = [json.loads(line) for line in (whole.made / "validation.jsonl").open()]
    for line in lines:
        told = [one for one in answers if one["step"] == line["step"]]
        assert [one["prompt"] for one in told] == ["12"]  # the last of twelve prompts
        assert line[names[0]] == told[0]["accuracy"]
        assert line[names[1]] == told[0]["reward"]
        assert told[0]["answer"]


def check_counted(whole: Run, sampler: Sampler) -> None:
    """What the stage's process is charged with is what its processes took."""
    sampler.join()
    seen = sum(sampler.seen.values())
    assert len(sampler.seen) > 5
    # the last second of each process and those between two looks are seen by the count only
    assert 0.98 * seen < whole.counted_seconds() < 1.5 * seen + 10.0


def check_equal(whole: Run, killed: Run) -> None:
    other = killed.weights()
    for name, tensor in whole.weights().items():
        assert torch.equal(tensor, other[name]), name  # one thread, one order: the same bits
    for name in ("metrics.jsonl", "validation.jsonl"):
        assert (whole.made / name).read_bytes() == (killed.made / name).read_bytes()


def check_parity(whole: Run, folder: Path) -> None:
    """A loop without veRL has its numbers to the last bit, step by step, and ends at its weights.

    Two updates a step, each of two micro-batches, over three passes through the prompts.
    """
    recipe = recipe_of(folder, RATE, STEPS)
    logged = {line["step"]: line for line in whole.metrics()}
    with pytest.MonkeyPatch.context() as patch:  # other tests of this process want the stock scan
        patch.setattr(Mixer, "torch_forward", mixer_forward)
        plain = PlainGrpo(recipe, whole.work / "scratch", rows_a_time=ROWS_A_TIME)
        for number in range(1, STEPS + 1):
            for name, value in plain.step(number).items():
                assert value == logged[number][name], f"{name} of step {number}"
        made = plain.weights()
    weights = whole.weights()
    for name, tensor in made.items():
        assert torch.equal(tensor, weights[name]), name
    last = logged[STEPS]
    assert last["train/kl"] > 0
    assert last["train/degenerate_group_share"] < 1


def check_command(still: CommandRun, folder: Path) -> None:
    """`frontload rl` stopped by Ctrl-C went on in its folder and left the artifact."""
    check_unmoved(still, folder)
    last = still.metrics()[-1]
    assert last["train/degenerate_group_share"] == 0
    assert last["train/filtered_groups"] > 0
    assert last["train/reward"] >= 1 / 8  # each of its groups has a right answer
    names = {path.name for path in still.out.iterdir()} - {".locks", ".work"}
    assert names == {"grpo", "finished", "logs", "provenance", "run.json", "starts", "work"}
    assert len(list((still.out / "starts").iterdir())) == 2
    manifest = json.loads((still.made / "manifest.json").read_text())
    assert set(manifest["inputs"]) == {"start", "tokenizer", "prompts", "validation"}
    text = still.log.read_text()
    assert "grpo_tiny: step 1 of 1, reward" in text
    assert "the same command goes on from here" in text
    begin = time.monotonic()
    still.start()
    still.finish()
    assert time.monotonic() - begin < 30, "a finished run starts nothing"


def check_unmoved(still: Run, folder: Path) -> None:
    start = read_weights(folder / "start" / "weights", torch.device("cpu"))
    for name, tensor in still.weights().items():
        assert torch.equal(start[name], tensor), name
    for name in ("accuracy", "reward"):
        scores = [line[f"train/validation_{name}_family_mean"] for line in still.metrics()]
        assert len(scores) == 2
        assert scores[0] == scores[1]


def interrupt(run: Run) -> None:
    """Ctrl-C while Ray and veRL start."""
    run.wait_for("ray_folder")
    mark = run.mark()
    time.sleep(10)
    run.process.send_signal(signal.SIGINT)
    assert run.process.wait(60) == 130
    assert wait_until_gone(mark) == []


def kill_after_a_step(run: Run) -> None:
    run.wait_for("checkpoints/global_step_1/data.pt")
    run.wait_for("checkpoints/latest_checkpointed_iteration.txt")
    mark = run.mark()
    assert len(processes_of(mark)) > 3
    assert listening_beyond_loopback(mark) == []
    run.process.send_signal(signal.SIGKILL)
    run.process.wait()
    assert wait_until_gone(mark) == []


def test_runs_killed_interrupted_resumed_and_side_by_side(folder: Path) -> None:
    """Whole run; the same killed, then resumed beside an interrupted one of rate 0."""
    whole = Run(folder, "whole")
    runs = [whole]
    try:
        sampler = Sampler(whole)
        runs.append(still := CommandRun(folder))
        interrupt(still)
        runs.append(killed := Run(folder, "killed"))
        kill_after_a_step(killed)
        whole.finish()
        killed.start()
        still.start()
        killed.finish()
        still.finish()
    finally:
        for run in runs:
            if run.process.poll() is None:
                run.process.kill()
    check_trained(whole, folder)
    check_parity(whole, folder)
    check_counted(whole, sampler)
    check_equal(whole, killed)
    check_command(still, folder)
    for run in runs:
        assert not list((run.work / "scratch").glob("ray_folder"))
    shutil.rmtree(folder / "store")


def test_a_run_that_makes_no_step_in_time_is_ended(folder: Path) -> None:
    """Here it is told to make the first one in a second, in which Ray does not even start."""
    run = CommandRun(folder, name="hung", more=("placement.rl.hang_seconds=1.0",))
    assert run.process.wait(SECONDS) == 1
    said = run.log.read_text()
    assert "veRL's trainer: no step ended for 1 s, since the start" in said
    assert "at most placement.rl.hang_seconds, 1 s; read the stage's log" in said
    left = [one for one in psutil.process_iter() if str(run.out) in " ".join(_words(one))]
    assert left == []
    assert not (run.work / "scratch" / "ray_folder").exists()


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except (psutil.NoSuchProcess, psutil.AccessDenied):
        return []
