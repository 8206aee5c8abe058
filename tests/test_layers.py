"""Imports point one way, and the README's tree is the tree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCE = ROOT / "src" / "featherfit"
LAYERS = (
    ("errors", "registry", "types", "startup", "memory", "storage"),
    ("config",),
    ("checkpoints",),
    ("data",),
    ("models",),
    ("adapters",),
    ("training",),
    ("evaluation",),
    ("artifact",),
    ("inference", "report"),
    ("planning",),
    ("preparing",),
    ("resuming",),
    ("steps",),
    ("starting",),
    ("fitting",),
    ("serving",),
    ("predictor",),
    ("__init__",),
    ("demo",),
    ("cli",),
    ("__main__",),
)
HEIGHT = {name: height for height, names in enumerate(LAYERS) for name in names}
MODULES = sorted(SOURCE.rglob("*.py"))


def layer_of(module: Path) -> str:
    return module.relative_to(SOURCE).with_suffix("").parts[0]


def imported_layers(tree: ast.AST) -> set[str]:
    """Layers of our own that a module imports from, inside functions and for type checking too."""
    layers = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names = [
                f"{node.module}.{alias.name}" if node.module == "featherfit" else node.module for alias in node.names
            ]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        else:
            continue
        for name in names:
            package, *rest = str(name).split(".")
            if package == "featherfit":
                layers.add(rest[0] if rest and rest[0] in HEIGHT else "__init__")
    return layers


@pytest.mark.parametrize("module", MODULES, ids=lambda module: str(module.relative_to(SOURCE)))
def test_imports_go_down(module):
    layer = layer_of(module)
    assert layer in HEIGHT, f"{layer} has no place in LAYERS"
    above = [name for name in imported_layers(ast.parse(module.read_text("utf-8"))) if HEIGHT[name] > HEIGHT[layer]]
    assert not above, f"{module.name} is in layer {layer} and imports from above: {above}"


def test_every_kind_of_import_is_seen():
    code = """
import featherfit.cli
from featherfit import MultiModalPredictor
from featherfit import report
def later():
    from featherfit.data.load import load_table
if TYPE_CHECKING:
    from featherfit.models.text import TextEncoder
import torch
"""
    assert imported_layers(ast.parse(code)) == {"cli", "__init__", "report", "data", "models"}


def listed_modules(readme: str) -> set[str]:
    """Paths of the Python files in the README's tree, relative to the package."""
    tree = re.search(r"```\nsrc/featherfit/\n(.*?)```", readme, re.DOTALL)
    assert tree, "README.md has no tree that begins with src/featherfit/"
    paths: set[str] = set()
    outer = ""
    for line in tree[1].splitlines():
        deeper = re.match(r"[| ]   [|`]-- (\w+)/", line)
        folder = re.match(r"[|`]-- (\w+)/", line)
        if folder:
            outer = f"{folder[1]}/"
        prefix = f"{outer}{deeper[1]}/" if deeper else outer if folder else ""
        paths |= {prefix + name for name in re.findall(r"\b\w+\.py\b", line)}
    return paths


def test_readme_lists_every_module():
    there = {module.relative_to(SOURCE).as_posix() for module in MODULES if module.name != "__init__.py"}
    listed = listed_modules((ROOT / "README.md").read_text("utf-8"))
    assert listed == there, f"not in the README: {sorted(there - listed)}; not there: {sorted(listed - there)}"
