"""An environment in which AutoMM runs on the CPU: a folder goes in, its Python comes out.

AutoMM 1.6.3 wants torch below 2.14, transformers below 5.15 and pandas below 2.4, so it cannot share featherfit's. It
imports torchvision and timm whatever the data, though nothing of either runs for text.

torch is installed first and alone, so that an index or folder with a CPU build can serve it: where pip's own choice
is a CUDA build of several gigabytes (Linux on x86_64), name one in PIP_EXTRA_INDEX_URL or PIP_FIND_LINKS. torchvision
then has to be of the same build, or its compiled operators do not load and `import torchvision` fails while declaring
their shapes. In that case, and only then, the file of these declarations is emptied in this environment. AutoMM's text
path calls none of the operators, so no figure depends on it.
"""

from __future__ import annotations

import subprocess
import sys
import venv
from pathlib import Path

AUTOMM = "1.6.3"

TORCH, TORCHVISION = ("2.10.0", "0.25.0") if sys.platform == "darwin" else ("2.13.0", "0.28.0")
"""The newest pair AutoMM accepts."""

CHECK = f"import importlib.metadata as m; assert m.version('autogluon.multimodal') == '{AUTOMM}'; import autogluon.multimodal"
"""Succeeds in a working environment."""


def automm_python(folder: Path) -> Path:
    """The Python of an environment with AutoMM, made first where there is none; that takes 2.3 GB and minutes.

    Raises:
        RuntimeError: AutoMM does not import there.
    """
    python = folder / "bin" / "python"
    if runs(python, CHECK):
        return python
    print(f"Making an environment for AutoMM {AUTOMM} in {folder} ...", flush=True)
    venv.create(folder, with_pip=True)
    pip_install(python, f"torch=={TORCH}")
    pip_install(python, f"torch=={TORCH}", f"torchvision=={TORCHVISION}", f"autogluon.multimodal=={AUTOMM}")
    if not runs(python, "import torchvision"):
        empty_operator_declarations(python)
    if not runs(python, CHECK):
        raise RuntimeError(
            f"AutoMM {AUTOMM} does not import: {python} -c '{CHECK}' says why. Delete {folder} to retry."
        )
    return python


def runs(python: Path, code: str) -> bool:
    """Whether the code runs there without an error."""
    return python.exists() and subprocess.run([python, "-c", code], capture_output=True, check=False).returncode == 0


def pip_install(python: Path, *requirements: str) -> None:
    """Installs; pip shows its progress on a terminal, and its errors anywhere."""
    quiet = [] if sys.stdout.isatty() else ["--quiet"]
    subprocess.run([python, "-m", "pip", "install", *quiet, *requirements], check=True)


def empty_operator_declarations(python: Path) -> None:
    """Empties `torchvision/_meta_registrations.py`."""
    find = "import importlib.util; print(importlib.util.find_spec('torchvision').origin)"
    origin = subprocess.run([python, "-c", find], capture_output=True, text=True, check=True).stdout.strip()
    declarations = Path(origin).with_name("_meta_registrations.py")
    declarations.write_text("", encoding="utf-8")
    print(f"torchvision's operators do not load beside this torch; emptied {declarations}", flush=True)
