"""`frontload serve`: the process that a person starts, and how it ends."""

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from frontload.launch.cli import main
from frontload.megatron_ext import cpu
from frontload.megatron_ext.checkpoints import save
from frontload.megatron_ext.inference.draws import Sampling
from frontload.recipes.machines.placement import Placement
from tests.parity.reference_model import draw_weights
from tests.unit.eval_serving.small_server import Small

HTTP = httpx.Client(timeout=60)


@pytest.fixture(scope="module")
def checkpoint(small: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model as a training run leaves it."""
    cpu.prepare()
    from frontload.megatron_ext.model.stack import build_model
    from frontload.megatron_ext.ranks import parallelism

    recipe = small.recipe
    groups = parallelism.join_groups(Placement())
    module = build_model(recipe, Placement(), groups, precision="fp32")
    module.load_state_dict(draw_weights(recipe, seed=4), strict=False)
    folder = tmp_path_factory.mktemp("checkpoint")
    parts = save.Parts(module=module, optimizer=None, groups=groups)
    save.save_weights(folder / save.WEIGHTS, parts, state={})
    save.write_model(folder, recipe)
    return folder


@contextmanager
def started(checkpoint: Path, small: Small, *flags: str) -> Iterator[tuple[subprocess.Popen, str]]:
    words = [sys.executable, "-m", "frontload.launch.cli", "serve", str(checkpoint), "--port", "0",
             "--tokenizer", str(small.corpus / "tokenizer.json"), *flags]  # fmt: skip
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"(http://127\.0\.0\.1:\d+/v1): (\S+), context 192 tokens", line)
        assert found, line + (process.stderr.read() if process.stderr else "")
        yield process, found[1]
    finally:
        process.kill()
        process.wait()


def test_sigterm_ends_the_server_and_what_it_has_under_way(checkpoint: Path, small: Small) -> None:
    with started(checkpoint, small) as (process, url), ThreadPoolExecutor() as pool:
        (model,) = HTTP.get(f"{url}/models").json()["data"]
        assert model["id"] == checkpoint.name
        short = {"prompt": "the box", "max_tokens": 3, "temperature": 0}
        answer = HTTP.post(f"{url}/completions", json=short).json()
        (tokens,) = small.model.generate(
            [small.tokenizer.encode("the box")], Sampling(max_new_tokens=3, temperature=0, seed=0,
            stop_token=1),
        )[0]  # fmt: skip
        assert answer["choices"][0]["text"] == small.tokenizer.decode(tokens)
        long = short | {"prompt": ["so"] * 16, "max_tokens": 180, "n": 128, "temperature": 1}
        waiting = pool.submit(HTTP.post, f"{url}/completions", json=long)
        while HTTP.get(url.replace("/v1", "/health")).json()["most_rows"] < 100:
            pass
        process.send_signal(signal.SIGTERM)
        answer = waiting.result()
        assert answer.status_code == 503
        assert "the server stops" in answer.json()["error"]["message"]
        out, err = process.communicate(timeout=20)
        assert (process.returncode, err) == (0, "")
        assert "1 requests answered" in out


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--host", "0.0.0.0"], "--api-key-env"),
        (["--api-key-env", "NO_SUCH_VARIABLE_HERE"], "not set"),
        (["--max-rows", "0"], "one answer or more"),
        (["--port", "99999"], "cannot be listened on"),
        (["--template", "none.jinja"], "no such file"),
    ],
)
def test_wrong_flags_are_refused(
    checkpoint: Path,
    small: Small,
    flags: list[str],
    named: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    tokenizer = str(small.corpus / "tokenizer.json")
    assert main(["serve", str(checkpoint), "--tokenizer", tokenizer, *flags]) == 2
    assert named in capsys.readouterr().err
