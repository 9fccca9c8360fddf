"""Data, a model and an extractor for judges, which need no training."""

import torch
from lightning import LightningDataModule
from torch import nn
from torch.utils.data import DataLoader, Dataset

from lit_gen.core.images import to_uint8
from lit_gen.core.module import LitGenerator
from lit_gen.core.types import Batch, ImageSpec, Task
from lit_gen.evaluation.context import Context
from lit_gen.evaluation.judges.quality import SampleQuality
from lit_gen.metrics.features import FeatureExtractor, weights_hash
from lit_gen.metrics.frechet import FrechetDistance
from lit_gen.metrics.neighbours import Neighbours

SIZE, COUNTS = 4, {"train": (300, 300), "val": (40, 40), "test": (150, 130)}
SPEC = ImageSpec(channels=1, size=SIZE, num_classes=4)


class Flat(FeatureExtractor):
    """The first six pixels are the features, the first three the logits. Counts images."""

    name, trained_on, num_features, num_logits = "flat", "nothing", 6, 3

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
    spec = SPEC
    tasks = (Task(0, "0", (150, 150, 0, 0), 0, 300), Task(1, "1", (0, 0, 150, 150), 300, 300))

    def __init__(self, current_task=1):
        super().__init__()
        self.current_task = current_task
        self.num_asked = 0

    def dataset(self, split, tasks):
        self.num_asked += 1
        return Toy(split, tasks)

    def train_dataloader(self):
        return DataLoader(Toy("train", [0]), batch_size=2, collate_fn=lambda batch: batch)

    val_dataloader = test_dataloader = train_dataloader


class ToyModel(LitGenerator):
    """Draws the toy data's distribution, with a small error; remembers what it was asked for."""

    def __init__(self, conditions=frozenset()):
        super().__init__(SPEC, optimizer=lambda params: torch.optim.SGD(params, lr=0.1))
        self.conditions = frozenset(conditions)
        self.weight = nn.Parameter(torch.zeros(1))
        self.dropout = nn.Dropout()
        self.frozen = nn.Dropout().eval()
        self.asked, self.drawn = [], []

    def step(self, batch, progress):
        return {"loss": (self.weight - torch.rand(1)).square().sum()}

    def validation_step(self, batch, batch_idx):
        return None

    test_step = validation_step

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

    def log_likelihood(self, batch, draws):
        """The sum of the pixels, and noise."""
        return batch.image.flatten(1).sum(1) + torch.randn(draws, len(batch.image)).mean(0)

    def classify(self, image):
        """The first pixels are the logits."""
        return image.flatten(1)[:, :4]

    def evaluate(self, batch):
        """The mean over images of the first pixel is the loss; every odd label is found."""
        assert not self.training and not torch.is_grad_enabled() and batch.image.dtype == torch.float32
        noise = torch.randn(len(batch.image))
        right = (batch.label % 2).double()
        return {
            "loss": batch.image[:, 0, 0, 0].double().mean(),
            "accuracy": right.mean(),
            "noise": noise.mean(),
        }


def context_of(model, data=None, **options):
    data = data or ToyData()
    return Context(model.eval(), data, data.current_task + 1, **options)


def judged(module=None, data=None, metrics=(FrechetDistance, Neighbours), split="test", **options):
    """A judge of quality, and its rows of one pass."""
    judge = SampleQuality(Flat(), metrics, **{"batch_size": 64, **options})
    context = context_of(module or ToyModel({"task"}), data)
    judge.check(context)
    return judge, judge.rows(context, split)


def values(rows):
    return {(row.on_task, row.metric): row.value for row in rows}
