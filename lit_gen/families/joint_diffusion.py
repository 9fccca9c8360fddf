"""Joint diffusion: one U-Net that takes noise away and, through a head on its features, classifies.

Source: Deja et al. 2023, "Learning data representations with joint diffusion models", arXiv:2301.13622.
"""

from __future__ import annotations

from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from annotated_types import Ge
from torch import Tensor

from lit_gen.core.module import OptimizerFactory, ScheduleFactor
from lit_gen.core.types import Batch, Fraction, ImageSpec, InputError, Phase, Positive, Task, Terms
from lit_gen.diffusion.outputs import Output, noised, scaled_input
from lit_gen.diffusion.path import Path
from lit_gen.diffusion.times import TimeSampler, Uniform
from lit_gen.diffusion.weights import Simple, Weight
from lit_gen.families.base import ADAM
from lit_gen.families.diffusion import Diffusion
from lit_gen.nets.augmentation import Augmentation
from lit_gen.nets.feature_head import FeatureHead
from lit_gen.nets.unet import Features, UNet

Plan = Literal["joint", "probe", "fine_tune", "classifier"]
_UNIFORM, _SIMPLE = Uniform(), Simple()


class JointDiffusion(Diffusion):
    """The error of the noise and, with a small weight, the cross-entropy of a head on the pooled features of
    the U-Net's first half. Images without a label (-1) have no part in the latter.

        >>> model = JointDiffusion(ImageSpec(channels=1, size=8, num_classes=10))
        >>> list(model.classify(torch.zeros(3, 1, 8, 8)).shape)
        [3, 10]

    Without a sampler that guides, its samples are those of a model without labels.

    Args:
        net: None is a small U-Net.
        plan: "joint" trains both losses together; "probe" the diffusion model first and then the head alone;
            "fine_tune" the diffusion model first and then head and first half; "classifier" these two only,
            without a diffusion model.
        pretraining_epochs: of the diffusion model in "probe" and "fine_tune"; None is the Trainer's length,
            as that of every other phase.
        classifier_weight: of the cross-entropy beside the error of the noise.
        late_classifier: part of a joint training after which the cross-entropy sets in.
        classifies_noised: the head learns from noised images, at times as of the diffusion model, instead of
            clean ones.
        attributes: labels are several attributes of 0 or 1 each, as data.label=attributes of CelebA.
        augmentation: of the images that the head learns from.
        head_dropout, legacy_head: see `FeatureHead`.

    The other arguments are those of `Diffusion`.
    """

    net: UNet

    def __init__(
        self,
        spec: ImageSpec,
        net: UNet | None = None,
        path: Path | None = None,
        output: Output = "eps",
        space: Output | None = None,
        times: TimeSampler = _UNIFORM,
        weight: Weight = _SIMPLE,
        plan: Plan = "joint",
        pretraining_epochs: Positive | None = None,
        classifier_weight: Annotated[float, Ge(0)] = 1e-3,
        late_classifier: Fraction = 0.0,
        classifies_noised: bool = False,
        attributes: bool = False,
        augmentation: Augmentation | None = None,
        head_dropout: Fraction = 0.7,
        legacy_head: bool = False,
        optimizer: OptimizerFactory = ADAM,
        schedule: ScheduleFactor | None = None,
    ) -> None:
        super().__init__(
            spec, net, path, output, space, times, weight, optimizer=optimizer, schedule=schedule
        )
        if spec.num_classes == 0:
            raise ValueError("JointDiffusion: the data has no labels (data.spec.num_classes=0); use ddpm")
        self.plan, self.pretraining_epochs = plan, pretraining_epochs
        self.classifier_weight, self.late_classifier = classifier_weight, late_classifier
        self.classifies_noised, self.attributes = classifies_noised, attributes
        self.augmentation = augmentation
        self.head = FeatureHead(self.net.num_features, spec.num_classes, head_dropout, legacy_head)

    @property
    def conditions(self) -> frozenset[str]:
        """The label, where the sampler guides towards one."""
        return getattr(self.sampler, "asks", frozenset())

    # --- training

    def phases(self, task: Task) -> tuple[Phase, ...]:
        if not any(task.label_counts):
            raise InputError(
                f"data.labelled_share: none of the {task.num_images} training images of task {task.name} has "
                "a label that a classifier could learn from. Take a larger share, or model=ddpm"
            )
        if self.plan == "joint":
            return (Phase.single("train", self.step, (self,)),)
        whole = (*self.net.first_half, self.head)
        trains = {"probe": (self.head,), "fine_tune": whole, "classifier": whole}[self.plan]
        classifier = Phase.single(self.plan, self.classifier_step, trains)
        if self.plan == "classifier":
            return (classifier,)
        pretraining = Phase.single("diffusion", super().step, (self.net,), self.pretraining_epochs)
        return (pretraining, classifier)

    def step(self, batch: Batch, progress: float) -> Terms:
        terms, found = super().step(batch, progress), self.classifier_step(batch, progress)
        weight = self.classifier_weight if progress >= self.late_classifier else 0.0
        return terms | found | {"loss": terms["loss"] + weight * found["cross_entropy"]}

    def classifier_step(self, batch: Batch, progress: float) -> Terms:
        """Cross-entropy and accuracy, means over the images with a label; 0 where there is none."""
        image, wanted = self.lesson(batch)
        t = torch.zeros(len(image), device=image.device)
        if self.head.training and self.classifies_noised:
            t = self.times.draw(len(image), self.path, image.device).t
            image = noised(self.path, t, image, torch.randn_like(image))
        known, features = (wanted >= 0).any(1), self.features_of(image, t).together()
        # Images without a label count in the batch norms' statistics only, which have no gradient for them.
        logits = self.head(torch.where(known[:, None], features, features.detach()), self._told(t))
        count = known.sum().clamp(min=1)
        cross_entropy = self.miss(logits, wanted).sum() / count
        right = torch.where(known, self._right(logits, wanted), 0).sum() / count
        return {"loss": cross_entropy, "cross_entropy": cross_entropy, "accuracy": right}

    def lesson(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Images and what is `wanted` of them, in training after the augmentation."""
        image, wanted = batch.image, self.wanted(batch.label)
        if self.head.training and self.augmentation is not None:
            return self.augmentation(image, wanted)
        return image, wanted

    def wanted(self, label: Tensor) -> Tensor:
        """What the head is to say: float32 [B, K], one-hot rows or attributes; -1 where it is not known.

        Raises:
            InputError: classes where attributes were to come, or the reverse.
        """
        if self.attributes != (label.ndim > 1) and not (label < 0).all():
            came, takes = ("attributes", "false") if label.ndim > 1 else ("one class each", "true")
            raise InputError(
                f"model.attributes={takes}: the images' labels are {came}. For attributes set "
                "model.attributes=true and, with data=celeba, data.label=attributes; for classes neither"
            )
        if label.ndim > 1:
            return label.float()
        known = F.one_hot(label.clamp(min=0), self.spec.num_classes).float()
        return torch.where((label >= 0)[:, None], known, -1.0)

    def miss(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """Cross-entropy of logits [B, K], of attributes the mean over those known: [B]; 0 for rows of -1."""
        logits, asked = logits.float(), wanted.clamp(min=0)
        if not self.attributes:
            return -(asked * logits.log_softmax(1)).sum(1)
        each = F.binary_cross_entropy_with_logits(logits, asked, reduction="none")
        known = wanted >= 0
        return torch.where(known, each, 0).sum(1) / known.sum(1).clamp(min=1)

    def _right(self, logits: Tensor, wanted: Tensor) -> Tensor:
        """1 where the largest logit is that of the class; of attributes the share that is right: [B]."""
        if self.attributes:
            return ((logits > 0) == (wanted > 0.5)).float().mean(1)
        return (logits.argmax(1) == wanted.argmax(1)).float()

    # --- classifying

    def classify(self, image: Tensor) -> Tensor:
        return self.logits(image, torch.zeros(len(image), device=image.device))

    def logits(self, x: Tensor, t: Tensor) -> Tensor:
        """What the head says of x_t [B, C, S, S] at times [B]: [B, K]."""
        return self.head_of(self.features_of(x, t), t)

    def features_of(self, x: Tensor, t: Tensor) -> Features:
        """What the first half of the network makes of x_t."""
        return self.net.features(scaled_input(x, self.output, self.path, t), self._told(t))

    def head_of(self, features: Features, t: Tensor) -> Tensor:
        return self.head(features.together(), self._told(t))

    def _told(self, t: Tensor) -> Tensor:
        return self.path.told(t.clamp(min=self.path.first))
