"""What `lit-gen check` starts on all devices: `python -m lit_gen.cli.collectives [trainer=NAME] ...`.

Sums, gathers and hands on known numbers, and prints what it found as one line of JSON.
"""

from __future__ import annotations

import json
import sys
import time

import torch

from lit_gen.cli.config import compose
from lit_gen.cli.devices import launched
from lit_gen.cli.parent import bound_to_first_process
from lit_gen.core.processes import gathered, summed
from lit_gen.core.types import InputError
from lit_gen.tracking.masking import without_secrets
from lit_gen.tracking.provenance import device_name

_MEGABYTES, _TIMES = 32, 5


def main(words: list[str]) -> int:
    try:
        fabric = launched(compose("train", words).config["trainer"])
    except InputError as mistake:
        sys.stderr.write(f"{without_secrets(str(mistake))}\n")
        return 2
    world, rank, device = fabric.world_size, fabric.global_rank, fabric.device
    wrong = []
    if summed(torch.tensor(rank + 1.0, device=device)).item() != world * (world + 1) / 2:
        wrong.append("all_reduce")
    expected = [number for number in range(world) for _ in range(number + 1)]
    if gathered(torch.full((rank + 1,), rank, device=device)).tolist() != expected:
        wrong.append("all_gather")
    if fabric.broadcast(rank, src=world - 1) != world - 1:
        wrong.append("broadcast")
    part, start = torch.ones(_MEGABYTES * 2**18, device=device), time.perf_counter()
    for _ in range(_TIMES if world > 1 else 0):
        summed(part)
    ended = part[0].item()  # waits for the device
    if world > 1 and ended != world**_TIMES:
        wrong.append("all_reduce of many numbers")
    seconds = time.perf_counter() - start
    if rank == 0:
        found = {"world": world, "device": device_name(device), "wrong": wrong}
        print(json.dumps(found | {"megabytes_per_second": _MEGABYTES * _TIMES / seconds}))
    if world > 1:
        torch.distributed.barrier()
        torch.distributed.destroy_process_group()
    return 0


if __name__ == "__main__":
    with bound_to_first_process():
        sys.exit(main(sys.argv[1:]))
