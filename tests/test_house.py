"""The rules of CONTRIBUTING.md that a machine can check."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "featherfit"
MODULES = sorted(SOURCE.rglob("*.py"))
TREES = {module: ast.parse(module.read_text("utf-8")) for module in MODULES}
FUNCTION = (ast.FunctionDef, ast.AsyncFunctionDef)
FORBIDDEN_CALLS = {"print", "eval", "exec", "torch.load", "torch.save", "pd.read_pickle", "np.load"}
FORBIDDEN_MODULES = {"pickle", "dill", "joblib", "cloudpickle", "shelve"}

each_module = pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of the body without its docstring."""
    statements = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return statements[-1].end_lineno - statements[0].lineno + 1 if statements else 0


def is_stub(node: ast.AST) -> bool:
    """Whether this is a protocol's member: `def folder(self) -> Path: ...`."""
    only = node.body[0]
    return isinstance(only, ast.Expr) and isinstance(only.value, ast.Constant) and only.value.value is ...


def public_definitions(tree: ast.Module) -> list[ast.AST]:
    """Public functions and classes of a module, and public methods of its public classes."""
    found: list[ast.AST] = []
    for node in tree.body:
        if isinstance(node, (*FUNCTION, ast.ClassDef)) and not node.name.startswith("_"):
            found.append(node)
            if isinstance(node, ast.ClassDef):
                found += [item for item in node.body if isinstance(item, FUNCTION) and not item.name.startswith("_")]
    return found


@each_module
def test_sizes(module):
    lines = module.read_text("utf-8").count("\n")
    assert lines < 400, f"{lines} lines"
    long = {
        node.name: body_length(node)
        for node in ast.walk(TREES[module])
        if isinstance(node, FUNCTION) and body_length(node) >= 60
    }
    assert not long


@each_module
def test_docstrings(module):
    tree = TREES[module]
    if tree.body:
        assert ast.get_docstring(tree), "a module says first what comes in and what goes out"
    bare = [node.name for node in public_definitions(tree) if not ast.get_docstring(node) and not is_stub(node)]
    assert not bare


@each_module
def test_forbidden(module):
    faults = []
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in FORBIDDEN_CALLS and not reads_weights_alone(node):
            faults.append(f"line {node.lineno}: {ast.unparse(node.func)}")
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            faults.append(f"line {node.lineno}: bare except")
        if isinstance(node, ast.Import) and FORBIDDEN_MODULES & {alias.name.split(".")[0] for alias in node.names}:
            faults.append(f"line {node.lineno}: can run code from a file")
        if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in FORBIDDEN_MODULES:
            faults.append(f"line {node.lineno}: can run code from a file")
        if isinstance(node, ast.Global | ast.Nonlocal):
            faults.append(f"line {node.lineno}: {type(node).__name__.lower()}")
    assert not faults


def reads_weights_alone(call: ast.Call) -> bool:
    """Whether this is a `torch.load` that runs no code from the file."""
    asked = {word.arg: ast.unparse(word.value) for word in call.keywords}
    return ast.unparse(call.func) == "torch.load" and asked.get("weights_only") == "True"


def test_no_drawer_for_everything():
    names = {module.stem for module in MODULES}
    assert not names & {"utils", "util", "helpers", "misc", "common"}


def test_inheritance_is_one_level_deep():
    bases = {
        node.name: [ast.unparse(base).split("[")[0].split(".")[-1] for base in node.bases]
        for tree in TREES.values()
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    }
    deep = [
        f"{name} < {base} < {above}"
        for name, parents in bases.items()
        for base in parents
        for above in bases.get(base, [])
        if above in bases
    ]
    assert not deep


def test_nothing_heavy_at_the_top_of_the_light_layers():
    heavy = {"torch", "transformers", "pandas", "sklearn", "accelerate", "matplotlib", "datasets", "rich"}
    light = [path for path in MODULES if path.parent == SOURCE or path.is_relative_to(SOURCE / "config")]
    faults = {
        path.name: sorted(heavy & top_level_imports(TREES[path]))
        for path in light
        if heavy & top_level_imports(TREES[path])
    }
    assert not faults


def top_level_imports(tree: ast.Module) -> set[str]:
    """First words of what is imported when the module is."""
    names = [alias.name for node in tree.body if isinstance(node, ast.Import) for alias in node.names]
    names += [str(node.module) for node in tree.body if isinstance(node, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


def test_tests_are_no_packages():
    assert list((ROOT / "tests").rglob("__init__.py")) == []
