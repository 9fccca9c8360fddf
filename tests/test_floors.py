"""Who may import whom (the floors of the house). Import statements are read with `ast`; nothing is imported.

Floors, from below: the words of core; nets, losses, diffusion, metrics; the rest of core (Lightning starts
here); families, continual, datamodules, tracking; evaluation; callbacks; cli.
"""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
WORDS = tuple(
    f"lit_gen.core.{name}"
    for name in ("types", "batch", "images", "schedules", "random", "files", "memory", "pictures")
)
NEEDED = {  # beside torch and the standard library
    "lit_gen.core.random": ("numpy",),  # its SeedSequence
    "lit_gen.core.pictures": ("numpy", "PIL"),
}
TENSORS = tuple(f"lit_gen.{name}" for name in ("nets", "losses", "diffusion", "metrics"))
MODELS = ("lit_gen.families", "lit_gen.continual")
BASES = tuple(f"lit_gen.families.{name}" for name in ("base", "density", "diffusion", "samplers"))
ABOVE_MODELS = ("callbacks", "lit_gen.evaluation", "lit_gen.tracking")
LIGHTNING = ("lightning", "pytorch_lightning", "lightning_fabric")
HYDRA = ("hydra", "omegaconf")


def is_in(module: str, *packages: str) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def forbidden(importer: str, imported: str) -> str | None:
    """Why `importer` may not import `imported`; None if it may."""
    if is_in(imported, *HYDRA) and not is_in(importer, "lit_gen.cli"):
        return "Hydra is imported in lit_gen.cli only"
    # lit_gen.load rebuilds a model in a notebook; tests of --help see that it imports nothing before.
    above = is_in(importer, "lit_gen.cli", "lit_gen.__main__") or importer == "lit_gen"
    if is_in(imported, "lit_gen.cli") and not above:
        return "nothing imports the command line"
    house = is_in(imported, "lit_gen", "callbacks", "datamodules")
    if is_in(importer, *WORDS):
        if house and not is_in(imported, *WORDS):
            return "the words of core stand below everything else"
        allowed = NEEDED.get(importer, ())
        if not house and not is_in(imported, "torch", "annotated_types", *allowed, *sys.stdlib_module_names):
            return "the words of core need torch and the standard library only"
    elif is_in(importer, *TENSORS):
        own = next(package for package in TENSORS if is_in(importer, package))
        if is_in(imported, *LIGHTNING):
            return "Lightning starts above nets, losses, diffusion and metrics"
        if house and not is_in(imported, *WORDS, own):
            return f"{own} imports itself and the words of core only"
    elif is_in(importer, "lit_gen.core"):
        if is_in(imported, *MODELS, *ABOVE_MODELS, "datamodules"):
            return "core stands below models, data and callbacks"
    elif is_in(importer, *MODELS):
        if is_in(imported, "lit_gen.families") and not is_in(imported, importer, *BASES):
            return "a model imports no family but their bases; continual takes a learner as an argument"
        if is_in(importer, "lit_gen.families") and is_in(imported, "lit_gen.continual"):
            return "a family does not know of continual methods"
        if is_in(imported, *ABOVE_MODELS, "datamodules"):
            return "models see neither data nor callbacks"
    elif is_in(importer, "datamodules"):
        if house and not is_in(imported, "datamodules", *WORDS, "lit_gen.core.progress"):
            return "datamodules import themselves, the words of core and its progress only"
    elif is_in(importer, *ABOVE_MODELS):
        if is_in(imported, *MODELS, "lit_gen.nets", "datamodules"):
            return "callbacks, scores and the record know promises, not families, nets or data"
        if is_in(importer, "lit_gen.evaluation", "lit_gen.tracking") and is_in(imported, "callbacks"):
            return "evaluation and tracking stand below callbacks"
        if is_in(importer, "lit_gen.tracking") and is_in(imported, "lit_gen.evaluation", "lit_gen.metrics"):
            return "tracking keeps what it is given"
    return None


def imports(source: str, importer: str, is_package: bool = False) -> Iterator[tuple[int, str]]:
    """(line, module) of every import, wherever it stands; `from a import b` gives a and a.b."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = importer.split(".")
            base = parts[: len(parts) - node.level + is_package] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            found = [module, *(f"{module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for module in found:
            yield node.lineno, module


def violations(source: str, importer: str, is_package: bool = False) -> list[str]:
    lines, found = source.splitlines(), {}
    for line, module in imports(source, importer, is_package):
        if reason := forbidden(importer, module):
            found[line] = f"{importer}, line {line}: {lines[line - 1].strip()}: {reason}"
    return list(found.values())


def source_files() -> list[Path]:
    return sorted(
        file for top in ("lit_gen", "datamodules", "callbacks") for file in (ROOT / top).rglob("*.py")
    )


def module_name(file: Path) -> str:
    parts = file.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def test_every_import_stays_within_its_floor():
    found = []
    for file in source_files():
        source = file.read_text(encoding="utf-8")
        found += violations(source, module_name(file), file.name == "__init__.py")
    assert found == []


@pytest.mark.parametrize(
    ("importer", "line", "allowed"),
    [
        ("lit_gen.core.types", "from torch import nn", True),
        ("lit_gen.core.types", "import numpy as np", False),
        ("lit_gen.core.images", "from lit_gen.core.frozen import FrozenCopy", False),
        ("lit_gen.nets.conv", "from lit_gen.nets.layers import act", True),
        ("lit_gen.nets.conv", "from .layers import act", True),
        ("lit_gen.nets.conv", "from ..losses import divergence", False),
        ("lit_gen.nets.conv", "from lit_gen import losses", False),
        ("lit_gen.losses.kl", "import lightning.pytorch as pl", False),
        ("lit_gen.metrics.prd", "from sklearn.cluster import KMeans", True),
        ("lit_gen.metrics.prd", "from lit_gen.nets.lenet import LeNet", False),
        ("lit_gen.core.module", "import lightning", True),
        ("lit_gen.core.module", "from lit_gen.families.vae import VAE", False),
        ("lit_gen.families.vae", "from lit_gen.losses.divergence import gaussian_kl", True),
        ("lit_gen.families.vae", "from lit_gen.families.gan import GAN", False),
        ("lit_gen.families.vae", "from lit_gen.families.base import CodedGenerator", True),
        ("lit_gen.evaluation.board", "from callbacks.ema import Averaging", False),
        ("callbacks.scoring", "from lit_gen.evaluation.board import Board", True),
        ("lit_gen.tracking.mlflow", "from lit_gen.evaluation.board import Board", False),
        ("lit_gen.families.vae", "def f():\n    from lit_gen.families import gan", False),
        ("lit_gen.families.vae", "from datamodules.base import ImageDataModule", False),
        ("lit_gen.families.vae", "from omegaconf import DictConfig", False),
        ("lit_gen.continual.replay", "from lit_gen.families.vae import VAE", False),
        ("lit_gen.continual.replay", "from lit_gen.core.frozen import FrozenCopy", True),
        ("datamodules.mnist", "from lit_gen.core.types import Batch", True),
        ("datamodules.mnist", "from lit_gen.core.module import LitModel", False),
        ("callbacks.grid", "from lit_gen.metrics.frechet import FrechetDistance", True),
        ("callbacks.grid", "from lit_gen.nets.conv import ConvEncoder", False),
        ("callbacks.grid", "import datamodules.mnist", False),
        ("callbacks.grid", "from lit_gen.cli.config import compose", False),
        ("lit_gen", "def load(path):\n    from lit_gen.cli.config import recompose", True),
        ("lit_gen.cli.train", "from hydra.utils import instantiate", True),
        ("lit_gen.__main__", "from lit_gen.cli import CONF, help", True),
    ],
)
def test_the_rules_tell_right_from_wrong(importer, line, allowed):
    assert (violations(line, importer) == []) is allowed


def test_no_file_is_a_drawer_for_everything():
    assert [str(f) for f in source_files() if f.stem in ("utils", "util", "helpers", "common", "misc")] == []
