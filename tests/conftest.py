"""What every test runs under: no network, no bars, and one thread where several workers share the cores."""

from __future__ import annotations

import os
import signal

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what it puts in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported, so before any fixture
os.environ["FEATHERFIT_DISABLE_PROGRESS_BAR"] = "1"
os.environ.pop("FEATHERFIT_DEBUG", None)
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
