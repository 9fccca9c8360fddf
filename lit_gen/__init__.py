"""Deep generative models and continual generative learning on PyTorch Lightning.

In a notebook, without a configuration:

    import lit_gen

    data = lit_gen.Digits()
    run = lit_gen.fit(lit_gen.VAE(data.spec), data, tasks=5, max_epochs=20)
    lit_gen.score(run.model, data, ["fid", "recall"])  # a pandas frame
    lit_gen.open_run(run.path).scores

And without a Trainer:

    from torch.utils.data import DataLoader
    from lit_gen import VAE, Batch, Digits

    data = Digits()
    model = VAE(data.spec)
    optimizer = model.make_optimizer(model.parameters())
    for batch in DataLoader(data.dataset("train"), 64, shuffle=True, collate_fn=Batch.ready):
        optimizer.zero_grad()
        model.step(batch, 0.0)["loss"].backward()
        optimizer.step()
    images = model.sample(64)  # float32 [64, 1, 8, 8] in [-1, 1]

Every name below is imported when it is first asked for.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_gen.core.module import LitModel

__version__ = "0.2.0"

_WHERE = {
    # Models
    "AAE": "lit_gen.families.aae",
    "Autoencoder": "lit_gen.families.autoencoder",
    "Classifier": "lit_gen.families.classifier",
    "CycleGAN": "lit_gen.families.cyclegan",
    "DAED": "lit_gen.families.daed",
    "Diffusion": "lit_gen.families.diffusion",
    "GAN": "lit_gen.families.gan",
    "JointDiffusion": "lit_gen.families.joint_diffusion",
    "ProGAN": "lit_gen.families.progan",
    "SinkhornAE": "lit_gen.families.sinkhorn_ae",
    "VAE": "lit_gen.families.vae",
    "WAE": "lit_gen.families.wae",
    # Continual methods
    "AlignedSolver": "lit_gen.continual.aligned",
    "BinPlay": "lit_gen.continual.binplay",
    "GenerativeReplay": "lit_gen.continual.replay",
    "Guide": "lit_gen.continual.guide",
    "JointReplay": "lit_gen.continual.joint_replay",
    "MultibandGAN": "lit_gen.continual.multiband_gan",
    "MultibandLocal": "lit_gen.continual.multiband_local",
    "MultibandVAE": "lit_gen.continual.multiband",
    "SeparateModels": "lit_gen.continual.separate",
    "Solver": "lit_gen.continual.solver",
    # Data
    "CIFAR10": "datamodules.cifar",
    "CIFAR100": "datamodules.cifar",
    "CelebA": "datamodules.celeba",
    "Digits": "datamodules.digits",
    "FashionMNIST": "datamodules.mnist",
    "ImageFolder": "datamodules.image_folder",
    "MNIST": "datamodules.mnist",
    "ClassSplit": "datamodules.tasks",
    "DirichletSplit": "datamodules.tasks",
    "Omniglot": "datamodules.omniglot",
    "SVHN": "datamodules.svhn",
    "SyntheticData": "datamodules.synthetic",
    # Metrics and what gives them features
    "ClassHistogram": "lit_gen.metrics.classes",
    "FrechetDistance": "lit_gen.metrics.frechet",
    "InceptionScore": "lit_gen.metrics.kernel",
    "KernelDistance": "lit_gen.metrics.kernel",
    "LeNet": "lit_gen.nets.lenet",
    "LeNetExtractor": "lit_gen.metrics.features",
    "Neighbours": "lit_gen.metrics.neighbours",
    "PRD": "lit_gen.metrics.prd",
    "TorchFidelityInception": "lit_gen.metrics.features",
    # Runs
    "Run": "lit_gen.cli.notebook",
    "fit": "lit_gen.cli.notebook",
    "open_run": "lit_gen.cli.notebook",
    "score": "lit_gen.cli.notebook",
    # Callbacks
    "AveragedWeights": "callbacks.ema",
    "BestCheckpoint": "callbacks.best",
    "ExportExtractor": "callbacks.export_extractor",
    "Grid": "callbacks.grid",
    "LatentMap": "callbacks.latent_map",
    "Stability": "callbacks.stability",
    # Images
    "Batch": "lit_gen.core.types",
    "ImageSpec": "lit_gen.core.types",
    "to_float": "lit_gen.core.images",
    "to_uint8": "lit_gen.core.images",
}

__all__ = [*_WHERE, "load"]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'lit_gen' has no attribute {name!r}")
    found = getattr(importlib.import_module(_WHERE[name]), name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return [*__all__, "__version__"]


def load(path: str | Path, trust: Sequence[str] = (), model: LitModel | None = None) -> LitModel:
    """The model of a checkpoint or of a run folder, ready to use: `lit_gen.load("runs/...").sample(64)`.

    It is rebuilt from the configuration inside the checkpoint, on the CPU and in evaluation mode.

    Args:
        trust: names of packages of your own whose classes and functions the configuration may build.
        model: made again, into which the weights go, where the configuration cannot hold what it is made of.

    Raises:
        InputError: the file is missing, damaged or not a checkpoint of this program, or asks for what it may
            not build.
    """
    # Not at the top: the command line's --help must not wait for torch.
    from lit_gen.cli.allowed import trusting
    from lit_gen.cli.open_run import read_own, rebuild

    with trusting(trust):
        return rebuild(read_own(path), module=model).module
