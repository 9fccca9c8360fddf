"""A Multiband VAE for 8 x 8 images."""

from __future__ import annotations

import functools

import torch
from toys import SPEC

from lit_gen.continual.multiband import Epochs, MultibandVAE
from lit_gen.core.images import to_float
from lit_gen.core.types import Batch, Task
from lit_gen.nets.binary import BinaryEncoder
from lit_gen.nets.multiband import DenseFeatures, DenseImages
from lit_gen.nets.translator import Band, Translator

SHORT = Epochs(first=2, local_warmup=1, local=2, band_warmup=1, band=2)


def make_parts(num_tasks=3):
    torch.manual_seed(11)
    encoder = BinaryEncoder(DenseFeatures(1, 8, hidden=(16, 8)), latent_size=3, num_bits=2)
    band = Band(Translator(3, 2, num_tasks, out_size=8), DenseImages(1, 8, 8, hidden=(16,)))
    optimizer = functools.partial(torch.optim.Adam, lr=1e-3, weight_decay=1e-5)
    return {"encoder": encoder, "band": band, "num_tasks": num_tasks, "spec": SPEC, "optimizer": optimizer}


def make_multiband(num_tasks=3, batch_size=16, epochs=SHORT, **options) -> MultibandVAE:
    return MultibandVAE(**make_parts(num_tasks), batch_size=batch_size, epochs=epochs, **options)


def task(index):
    return Task(index, str(index), (10, 10, 10, 10), 0, 40)


def batch_of(data, number, size=16) -> Batch:
    batch = data.dataset("train", [number]).__getitems__(list(range(size)))
    return batch._replace(image=to_float(batch.image))


def snapshot(model):
    return {name: value.clone() for name, value in model.state_dict().items()}


def ready(num_past, num_tasks=6, **options) -> MultibandVAE:
    model = make_multiband(num_tasks, **options)
    with torch.no_grad():
        model.prior.code_means.copy_(torch.rand_like(model.prior.code_means))
    model.tasks_seen.fill_(num_past)
    return model.eval()
