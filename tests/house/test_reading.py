"""Nothing that runs what it reads is used, but in the places named here, for bytes of their own."""

import ast
import re

import pytest

from tests.house.test_limits import MODULES, ROOT, parsed

RUNS = re.compile(
    r"""(
      ((c?pickle|cloudpickle|_pickle|dill|marshal|joblib|torch)\.(load|loads|Unpickler))
      | (yaml\.(load|load_all|full_load|unsafe_load))
      | (jinja2\.(Environment|Template)) | (jinja2\.environment\..*)
      | (torch\.jit\.load) | (torch\.hub\.load) | (runpy\.run_path) | eval | exec
    )$""",
    re.VERBOSE,
)
TRUSTING = {"allow_pickle", "trust_remote_code", "unsafe_load"}  # keywords that must not be true

PLACES = {
    "megatron_ext/checkpoints/table.py": "for strangers' files: an allow-list, weights_only",
    "launch/torchrun.py": "the job of this run's own ranks, and the error that one of them wrote",
    "rl/plugins/agent_loop.py": "the handle of an actor of this run, which Ray hands over as bytes",
    "eval/report/templates.py": "the templates are eval/*.jinja",
    "eval/sandbox/inside.py": "strangers' programs, behind bubblewrap's walls: that is its purpose",
}
"""Module -> why what it reads is its own."""


def running_reads(source: str) -> list[str]:
    """The calls and bases of a module that run what they read, as written."""
    found: list[str] = []
    for node in ast.walk(parsed(source)):
        names = []
        if isinstance(node, ast.Call):
            names.append(ast.unparse(node.func))
            found += [
                f"{word.arg}={ast.unparse(word.value)}"
                for word in node.keywords
                if word.arg in TRUSTING and ast.unparse(word.value) != "False"
            ]
        if isinstance(node, ast.ClassDef):
            names += [ast.unparse(base) for base in node.bases]
        if isinstance(node, ast.ImportFrom) and node.module:
            names += [f"{node.module}.{one.name}" for one in node.names]
        found += [name for name in names if RUNS.match(name)]
    return found


def test_only_the_places_named_here_run_what_they_read() -> None:
    found = {
        path.relative_to(ROOT).as_posix(): reads
        for path in MODULES
        if (reads := running_reads(path.read_text()))
    }
    assert found.keys() == PLACES.keys(), found


@pytest.mark.parametrize("place", PLACES)
def test_each_place_says_in_words_whose_bytes_it_reads(place: str) -> None:
    assert re.search(r"read back by|strangers?'|Our own template", (ROOT / place).read_text())


@pytest.mark.parametrize(
    "line",
    [
        "torch.load(path)",
        "torch.load(path, weights_only=True)",
        "pickle.load(file)",
        "class Mine(pickle.Unpickler): pass",
        "from pickle import loads",
        "from torch import load as read",
        "np.load(path, allow_pickle=True)",
        "np.load(path, allow_pickle=flag)",
        "yaml.load(text, Loader=yaml.Loader)",
        "jinja2.Template(text)",
        "AutoTokenizer.from_pretrained(name, trust_remote_code=True)",
        "eval(text)",
    ],
)
def test_a_new_one_is_seen(line: str) -> None:
    assert running_reads(line)


@pytest.mark.parametrize(
    "line",
    [
        "np.load(path)",
        "np.load(path, allow_pickle=False)",
        "pickle.dumps(value)",
        "model.eval()",
        "json.loads(text)",
        "jinja2.sandbox.ImmutableSandboxedEnvironment()",
        "yaml.safe_load(text)",
    ],
)
def test_what_runs_nothing_is_let_be(line: str) -> None:
    assert not running_reads(line)
