"""Data, a model and an extractor for SampleQuality that need no training."""

import torch
from lightning import LightningDataModule, LightningModule, Trainer
from torch import nn
from torch.utils.data import DataLoader, Dataset

from callbacks.sample_quality import SampleQuality
from lit_gen.core.images import to_uint8
from lit_gen.core.types import Batch
from lit_gen.metrics.features import FeatureExtractor, weights_hash
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.neighbours import Neighbours

SIZE, COUNTS = 4, {"train": (300, 300), "val": (40, 40), "test": (150, 130)}


class Flat(FeatureExtractor):
    """The first six pixels are the features, the first three the logits. Counts images."""

    name, num_features, num_logits = "flat", 6, 3

    def __init__(self):
        super().__init__()
        self.register_buffer("scale", torch.tensor(1 / 255))
        self.weights_hash = weights_hash(self)
        self.num_seen = 0

    def forward(self, image):
        assert image.dtype == torch.uint8 and not torch.is_inference_mode_enabled()
        self.num_seen += len(image)
        features = image.flatten(1)[:, :6] * self.scale
        return features, features[:, :3]


class Toy(Dataset):
    def __init__(self, split, tasks):
        parts = []
        for task in tasks:
            generator = torch.Generator().manual_seed(100 * task + len(split))
            image = torch.randn(COUNTS[split][task], 1, SIZE, SIZE, generator=generator) * 0.2 + task - 0.5
            label = torch.arange(len(image)) % 2 + 2 * task
            parts.append(
                Batch(to_uint8(image), label, torch.full_like(label, task), torch.arange(len(image)))
            )
        self.batch = Batch(*(torch.cat(part) for part in zip(*parts, strict=True)))

    def __len__(self):
        return len(self.batch.image)

    def __getitems__(self, places):
        return Batch(*(part[torch.tensor(places)] for part in self.batch))


class ToyData(LightningDataModule):
    def __init__(self, current_task=1):
        super().__init__()
        self.current_task = current_task
        self.num_asked = 0

    def dataset(self, split, tasks):
        self.num_asked += 1
        return Toy(split, tasks)

    def train_dataloader(self):
        return DataLoader(torch.zeros(4, 1))

    val_dataloader = test_dataloader = train_dataloader


class ToyModel(LightningModule):
    """Draws the toy data's distribution, with a small error; remembers what it was asked for."""

    def __init__(self, conditions=frozenset()):
        super().__init__()
        self.conditions = frozenset(conditions)
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout()
        self.frozen = nn.Dropout().eval()
        self.asked, self.drawn = [], []

    def training_step(self, batch, batch_idx):
        return (self.weight - torch.rand(1)).square().sum()

    def validation_step(self, batch, batch_idx):
        return None

    test_step = validation_step

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def sample(self, n, *, label=None, task=None):
        assert not self.training and not self.dropout.training and not torch.is_grad_enabled()
        self.asked.append((n, label, task))
        if task is None:
            task = torch.randint(0, 2, (n,)) if label is None else label // 2
        image = torch.randn(n, 1, SIZE, SIZE) * 0.21 + task[:, None, None, None] - 0.5
        self.drawn.append(image)
        return image

    def reconstruct(self, batch):
        assert batch.image.dtype == torch.float32
        return batch.image

    def encode(self, batch):
        return batch.image

    def decode(self, codes, *, label=None, task=None):
        return codes


def trainer_with(callback, **options):
    options = {"max_epochs": 1, "devices": 1, **options}
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback],
        **options,
    )


def run_test(module=None, data=None, metrics=(FrechetDistance, Neighbours), trainer_options=None, **options):
    callback = SampleQuality(Flat(), metrics, **{"batch_size": 64, **options})
    module, data = module or ToyModel({"task"}), data or ToyData()
    logged = trainer_with(callback, **(trainer_options or {})).test(module, data, verbose=False)[0]
    return callback, logged


def values(scores):
    return {(score.on_task, score.metric): score.value for score in scores}
