"""The page's five commands, typed as they stand there, on rows of GSM8K's form."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
TITLE = "## From a JSONL to a verified blend, in five commands"


def block() -> str:
    page = (ROOT / "data_tools" / "README.md").read_text()
    found = re.search(r"^```\n(.*?)^```", page[page.index(TITLE) :], re.DOTALL | re.MULTILINE)
    assert found is not None
    return found[1]


def write(file: Path, rows: list[dict[str, str]]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def question(number: int) -> dict[str, str]:
    first, second = 3 + number * 7 % 89, 2 + number * 5 % 61
    return {
        "question": f"Shelf {number} holds {first} atlases. {second} more come. How many now?",
        "answer": f"{first}+{second}=<<{first}+{second}={first + second}>>{first + second}\n"
        f"#### {first + second}",
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write(tmp_path / "gsm8k_train.jsonl", [question(number) for number in range(400)])
    write(tmp_path / "gsm8k_test.jsonl", [question(number) for number in range(390, 420)])
    words = ("the", "ship", "of", "that", "day", "sailed", "with", "no", "wind", "under", "moon")
    texts = [
        " ".join(words[(at * at + 3 * number) % len(words)] for at in range(200)) + f" {number}"
        for number in range(2000)
    ]
    write(tmp_path / "base.jsonl", [{"text": text} for text in texts])
    return tmp_path


def test_the_page_goes_from_rows_to_a_verified_blend(folder: Path) -> None:
    command = f'"{sys.executable}" -W ignore -m frontload.launch.cli'
    script = "set -eu\nfrontload() { " + command + ' "$@"; }\n' + block()
    ended = subprocess.run(
        ["bash", "-c", script],
        cwd=folder,
        env={"PYTHONPATH": str(ROOT / ".imports"), "PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    assert re.search(r"dropped +10  holds an item of gsm8k", ended.stdout)
    assert "all statements hold" in ended.stdout
    assert "WRONG" not in ended.stdout
    ledger = json.loads((folder / "data" / "blend" / "ledger.json").read_text())
    assert ledger
