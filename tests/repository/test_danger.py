"""Calls that have made other fine-tuning tools vulnerable do not occur; there is no list of exceptions.

The rules are stated on the syntax tree, so that a comment or a message may name what the code may not do.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator

import pytest

from tests.repository.source import modules

FORBIDDEN_NAMES = {"eval", "exec", "compile", "__import__"}
FORBIDDEN_MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "marshal", "shelve", "joblib", "commands", "telnetlib", "ftplib"}
FORBIDDEN_CALLS = {
    "os.system": "start programs with a list of arguments",
    "os.popen": "start programs with a list of arguments",
    "subprocess.getoutput": "start programs with a list of arguments",
    "subprocess.getstatusoutput": "start programs with a list of arguments",
    "yaml.unsafe_load": "use our safe loader",
    "yaml.full_load": "use our safe loader",
    "torch.save": "weights go to safetensors, state to JSON",
    "tempfile.mktemp": "use mkstemp or TemporaryDirectory",
}
OPENERS = ("from_pretrained", "from_config", "pipeline")
"""How transformers is asked for something that a foreign directory describes: code of that directory runs if it may."""
FETCHERS = ("snapshot_download", "hf_hub_download", "list_repo_files", "dataset_snapshot_download", "hf_hub_url", "load_dataset")
"""How a hub is asked for files: those of which revision is said, so that the caller has thought of it."""
NETWORK_CALLS = {"requests.get", "requests.post", "requests.request", "requests.head", "requests.put", "urllib.request.urlopen",
                 "httpx.get", "httpx.post", "socket.create_connection"}


def problems(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, what is wrong) for each forbidden thing in `tree`."""
    assignments = [node for node in ast.walk(tree) if isinstance(node, ast.Assign) and "SafeLoader" in ast.unparse(node.value)]
    safe_loaders = {ast.unparse(target) for node in assignments for target in node.targets}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
            yield from ((node.lineno, f"import {name}") for name in names if name.split(".")[0] in FORBIDDEN_MODULES)
        elif isinstance(node, ast.Call):
            yield from ((node.lineno, problem) for problem in (*_call_problems(node), *_loader_problems(node, safe_loaders)))
        elif isinstance(node, ast.Constant) and node.value == "0.0.0.0":
            yield node.lineno, "listens on every interface"


def _call_problems(call: ast.Call) -> Iterator[str]:
    name = ast.unparse(call.func)
    given = {keyword.arg: keyword.value for keyword in call.keywords if keyword.arg}
    if isinstance(call.func, ast.Name) and name in FORBIDDEN_NAMES:
        yield f"{name}()"
    if name in FORBIDDEN_CALLS or name.replace("np.", "numpy.") in FORBIDDEN_CALLS:
        yield f"{name}(): {FORBIDDEN_CALLS[name.replace('np.', 'numpy.')]}"
    if name.endswith(("torch.load", "load_state_dict_from_url")) and not _is(given.get("weights_only"), True):
        yield "torch.load without a literal weights_only=True"
    if name in ("np.load", "numpy.load") and not _is(given.get("allow_pickle"), False):
        yield "numpy.load without a literal allow_pickle=False"
    if _is(given.get("weights_only"), False):
        yield "weights_only=False"
    yield from _foreign_problems(name.rpartition(".")[2], given)
    if "shell" in given and not _is(given["shell"], False):
        yield "shell=..."
    if name.endswith((".extractall", ".extract")) or name == "shutil.unpack_archive":
        yield "unpacks an archive to paths that the archive chooses"
    if name in NETWORK_CALLS and "timeout" not in given:
        yield f"{name}() without a timeout"


def _foreign_problems(function: str, given: dict[str, ast.expr]) -> Iterator[str]:
    """What opens a foreign directory says whether its code may run; what fetches one says its revision."""
    if _is(given.get("trust_remote_code"), True):
        yield "trust_remote_code=True: only the user may say so"
    elif function in OPENERS and not _is_users_choice(given.get("trust_remote_code")):
        yield f"{function}() without trust_remote_code=False or the user's own choice, ....trust_remote_code"
    if function == "from_pretrained" and "dtype" in given and not (_is(given.get("use_safetensors"), True) or "gguf_file" in given):
        yield "weights opened without a literal use_safetensors=True: a pickle would do"
    if function in FETCHERS and "revision" not in given:
        yield f"{function}() without a revision"


def _is_users_choice(node: ast.expr | None) -> bool:
    """False written out, or the attribute of a configuration."""
    return _is(node, False) or (isinstance(node, ast.Attribute) and node.attr == "trust_remote_code")


def _loader_problems(call: ast.Call, safe: set[str]) -> Iterator[str]:
    """yaml.load is fine with a loader whose name, or the value assigned to it, says SafeLoader."""
    if ast.unparse(call.func) in ("yaml.load", "yaml.load_all"):
        loader = next((ast.unparse(keyword.value) for keyword in call.keywords if keyword.arg == "Loader"), "")
        if "SafeLoader" not in loader and loader not in safe:
            yield "yaml.load with a loader that is not a safe one"


def _is(node: ast.expr | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def test_nothing_dangerous_is_called() -> None:
    """Over the whole package; the list of exceptions is empty and stays so."""
    found = [f"{module.path}:{line} {problem}" for module in modules() for line, problem in problems(module.tree)]
    assert found == []


HARMFUL = [
    "eval('1')", "exec(code)", "compile(text, 'x', 'exec')", "import pickle", "from marshal import loads", "import os\nos.system('ls')",
    "subprocess.run(line, shell=True)", "subprocess.run(line, shell=flag)", "yaml.load(stream)", "yaml.load(stream, Loader=Full)",
    "torch.load(path)", "torch.load(path, weights_only=flag)", "torch.load(path, weights_only=False)", "load(path, weights_only=False)",
    "from_pretrained(name, trust_remote_code=True)", "tar.extractall(path)", "requests.get(url)", "server.bind(('0.0.0.0', 80))",
    "torch.save(state, path)", "np.load(path)", "loader = yaml.Loader\nyaml.load(stream, Loader=loader)",
    "AutoModel.from_pretrained(path)", "AutoModel.from_config(config, dtype=kind)", "pipeline('text-generation', path)",
    "transformers.pipeline(task, path)", "AutoTokenizer.from_pretrained(path, trust_remote_code=choice)",
    "AutoTokenizer.from_pretrained(path, **{'trust_remote_code': False})", "snapshot_download(name)",
    "AutoModelForCausalLM.from_pretrained(path, dtype=kind, trust_remote_code=False)",
    "HfApi().list_repo_files(name, repo_type='dataset')",
]
HARMLESS = [
    "model.eval()", "re.compile('x')", "torch.load(path, weights_only=True)",
    "from_pretrained(name, trust_remote_code=run.model.trust_remote_code)",
    "AutoModel.from_config(config, trust_remote_code=False)", "snapshot_download(name, revision=model.model_revision)",
    "requests.get(url, timeout=5)", "subprocess.run(['ls'], shell=False)", "yaml.load(stream, Loader=SafeLoader)",
    "loader = yaml.CSafeLoader\nyaml.load(stream, Loader=loader)",
    "np.load(path, allow_pickle=False)", "'never use eval()'", "torch.compile(model)",
]


@pytest.mark.parametrize(("code", "expected"), [*((one, 1) for one in HARMFUL), *((one, 0) for one in HARMLESS)])
def test_each_rule_finds_its_example_and_nothing_else(code: str, expected: int) -> None:
    """Examples written by hand, so that a rule that stopped working does not pass unnoticed."""
    count: Callable[[str], int] = lambda text: len({problem for _, problem in problems(ast.parse(text))})  # noqa: E731
    assert min(count(code), 1) == expected
