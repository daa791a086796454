"""A stand-in for the repository of NeMo-Skills: 1.3 GB of packages are not installed in each test.

It has the two modules that the environment is proved by, one benchmark, and an `ns` that answers as
the real one does. What the real one says is tests/unit/eval_nemo/test_real.py.
"""

import subprocess
from pathlib import Path

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
"""
BACKEND = '''
"""A build backend of standard modules, so that nothing is fetched."""
import base64, hashlib, pathlib, zipfile

def build_wheel(folder, config_settings=None, metadata_directory=None):
    name = "nemo_skills-0.7.0-py3-none-any.whl"
    files = {str(p): p.read_bytes() for p in pathlib.Path("nemo_skills").rglob("*.py")}
    info = "nemo_skills-0.7.0.dist-info/"
    files[info + "METADATA"] = b"Metadata-Version: 2.1\\nName: nemo-skills\\nVersion: 0.7.0\\n"
    tag = b"Root-Is-Purelib: true\\nTag: py3-none-any\\n"
    files[info + "WHEEL"] = b"Wheel-Version: 1.0\\nGenerator: x\\n" + tag
    files[info + "entry_points.txt"] = b"[console_scripts]\\nns = nemo_skills.pipeline.eval:main\\n"
    record = "".join(f"{one},,\\n" for one in files) + info + "RECORD,,\\n"
    with zipfile.ZipFile(pathlib.Path(folder) / name, "w") as wheel:
        for one, data in files.items():
            wheel.writestr(one, data)
        wheel.writestr(info + "RECORD", record)
    return name
'''
NS = """
import json, os, pathlib, sys

def main():
    words = dict(word.lstrip("-+").split("=", 1) for word in sys.argv[2:])
    name, _, samples = words["benchmarks"].partition(":")
    rows = (pathlib.Path(words["data_dir"]) / name / "test.jsonl").read_text().splitlines()
    if "9" in words["model"]:
        sys.exit("the server does not answer")
    found = {"argv": sys.argv[1:], "rows": len(rows), "offline": os.environ["HF_HUB_OFFLINE"],
             "python": os.environ.get("PYTHONPATH"), "first": json.loads(rows[0])}
    out = pathlib.Path(words["output_dir"]) / "eval-results" / name
    out.mkdir(parents=True, exist_ok=True)
    (out / "metrics.json").write_text(json.dumps({name: {"pass@1": found}}))
"""


def make_repository(folder: Path, *, is_broken: bool = False) -> str:
    """A repository with one commit; the commit."""
    files = {
        "pyproject.toml": PYPROJECT,
        "backend.py": BACKEND,
        "nemo_skills/__init__.py": "",
        "nemo_skills/inference/__init__.py": "",
        "nemo_skills/inference/generate.py": "import no_such_module" if is_broken else "",
        "nemo_skills/pipeline/__init__.py": "",
        "nemo_skills/pipeline/eval.py": NS,
        "nemo_skills/dataset/__init__.py": "",
        "nemo_skills/dataset/gsm8k/__init__.py": "DATASET_GROUP = 'math'\n",
    }
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    git = ["git", "-C", str(folder), "-c", "user.name=x", "-c", "user.email=x@y"]
    for words in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "one"]):
        subprocess.run([*git, *words], check=True)
    found = subprocess.run([*git, "rev-parse", "HEAD"], check=True, capture_output=True, text=True)
    return found.stdout.strip()
