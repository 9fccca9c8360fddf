"""Images per second of our MNIST loader against torchvision's MNIST + ToTensor in the same DataLoader.

Both end in float32 batches of 64, one process, no workers; ours in [-1, 1], torchvision's in [0, 1]. Usage:
    OMP_NUM_THREADS=1 python benchmarks/data_path.py data.root=DIR [data.batch_size=64] [epochs=5]
"""

from __future__ import annotations

import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from datamodules.files import contents
from datamodules.mnist import MNIST as OurMNIST


def main(arguments: list[str]) -> None:
    options = {"data.root": "data", "data.batch_size": "64", "epochs": "5"}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in options:
            sys.exit(f"unknown option {key!r}; there are {', '.join(options)}")
        options[key] = value
    root, batch_size = options["data.root"], int(options["data.batch_size"])

    data = OurMNIST(root, download=False, batch_size=batch_size)
    data.read_once()
    ours = data.train_dataloader()
    with tempfile.TemporaryDirectory() as folder:
        theirs = DataLoader(
            MNIST(_unpacked(Path(root), Path(folder)), transform=ToTensor()), batch_size, shuffle=True
        )
        # Alternating, so that a busy machine hurts both alike.
        rates = {"lit-gen": [], "torchvision": []}
        for epoch in range(int(options["epochs"])):
            ours.sampler.set_epoch(epoch)
            rates["lit-gen"].append(_rate(batch.ready().image for batch in ours))
            rates["torchvision"].append(_rate(image for image, _ in theirs))
    medians = {name: statistics.median(values) for name, values in rates.items()}
    for name, values in rates.items():
        print(f"{name:12} {medians[name]:12,.0f} images/s   ({min(values):,.0f} to {max(values):,.0f})")
    factor = medians["lit-gen"] / medians["torchvision"]
    print(f"{'factor':12} {factor:12.1f}   ({torch.get_num_threads()} thread(s))")


def _unpacked(root: Path, target: Path) -> Path:
    """torchvision reads only plain files, or gzipped ones with the checksum that it knows."""
    folder = target / "MNIST" / "raw"
    folder.mkdir(parents=True)
    for path in (root / "MNIST" / "raw").iterdir():
        (folder / path.name.removesuffix(".gz")).write_bytes(contents(path))
    return target


def _rate(images: Iterable[Tensor]) -> float:
    start, count = time.perf_counter(), 0
    for image in images:
        count += len(image)
    return count / (time.perf_counter() - start)


if __name__ == "__main__":
    main(sys.argv[1:])
