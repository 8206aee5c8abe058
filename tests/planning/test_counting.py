"""The running sum of allocations, and the most it reaches."""

from __future__ import annotations

import torch

from featherfit.planning.counting import peak_of

CPU = torch.device("cpu")


def test_temporaries_count_while_they_are_there():
    def call() -> None:
        first = torch.empty(1_000_000, dtype=torch.float32)  # 4 MB
        second = torch.empty(500_000, dtype=torch.float32)  # 2 MB
        del first
        third = torch.empty(100_000, dtype=torch.float32)
        del second, third

    assert peak_of(call, CPU) == 6_000_000


def test_what_is_kept_for_backward_counts():
    x = torch.ones(1000, 100, requires_grad=True)

    def forward() -> torch.Tensor:
        return x.exp().exp().sum()  # both results are kept

    def forward_and_backward() -> None:
        forward().backward()
        x.grad = None

    with torch.no_grad():
        forward()
    forward_and_backward()
    kept = 2 * x.nbytes
    assert kept <= peak_of(forward_and_backward, CPU) <= 2 * kept + 1000
