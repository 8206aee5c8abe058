"""An encoder whose weights are frozen goes in; the same encoder, of which every rank keeps a part, comes out.

FSDP2 (`torch.distributed.fsdp.fully_shard`): before a layer computes, forward or backward, the ranks send each other their
parts of its matrices, and afterwards each lets go of the others'. What trains is left out: it is small, every rank has all
of it, and saving it needs nobody else.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import nn

from featherfit.models.mapped import files_hold
from featherfit.models.tables import LARGE_TABLE
from featherfit.models.text import TextEncoder


def shard(encoder: TextEncoder, place: torch.device) -> None:
    """Spreads the frozen matrices of the encoder's layers, and its large embedding tables, over the ranks, in place.

    Tables that lie in a file stay there: processes of one machine share their pages. Every rank has to compute equally
    often from here on, since all take part in each forward and backward.

    Args:
        encoder: In its final form, adapters in place; on the host, or on `place` already.
        place: This rank's device.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard

    mesh = init_device_mesh(place.type, (torch.distributed.get_world_size(),))
    tables = [module for module in encoder.modules() if isinstance(module, nn.Embedding) and _is_large(module.weight)]
    in_file = files_hold([table.weight for table in tables])
    units = [*encoder.layers().values(), *(table for table, held in zip(tables, in_file, strict=True) if not held)]
    for unit in _distinct(units):
        whole = {parameter for parameter in unit.parameters() if parameter.requires_grad or parameter.dim() < 2}
        fully_shard(unit, mesh=mesh, reshard_after_forward=True, ignored_params=whole)
    # The outermost unit owns nothing and orders the others' messages.
    fully_shard(encoder, mesh=mesh, ignored_params=set(encoder.parameters()))


def _is_large(weight: torch.Tensor) -> bool:
    return weight.numel() > LARGE_TABLE and not weight.requires_grad


def _distinct(modules: Iterable[nn.Module]) -> list[nn.Module]:
    return list(dict.fromkeys(modules))
