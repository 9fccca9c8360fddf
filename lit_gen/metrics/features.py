"""Networks that turn images into features: torch-fidelity's Inception, and small ones trained with this
package.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from abc import abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, Self

import torch
from torch import Tensor, nn

from lit_gen.core.files import check_archive, replaced
from lit_gen.core.images import to_float
from lit_gen.core.types import InputError

WEIGHTS = Path(__file__).parent / "weights"
"""Where the weights that ship with the package lie."""

_HEADER = ("dataset", "test_accuracy", "num_classes", "channels")
_HASH = "weights_hash"  # also in the header, of what `save_extractor` wrote

_AUTHORS = {
    "conv1": "convolutions.0",
    "conv2": "convolutions.3",
    "fc1": "features.0",
    "fc2": "features.2",
    "fc3": "classes.1",
}
"""Layers of the LeNet that Multiband VAE was scored with (Deja et al. 2022), and what `LeNet` calls them."""


class NoWeights(InputError):
    """The file of an extractor's weights is not there."""


class FeatureExtractor(nn.Module):
    """Frozen, and never out of evaluation mode.

    Attributes:
        name: part of the names of metrics: "fid/inception".
        trained_on: the data set.
        num_logits: classes it tells apart; 0 if it does not classify.
        weights_hash: first 12 hexadecimal digits of the SHA-256 over all weights.
    """

    name: str
    trained_on = "what nobody has said"
    num_features: int
    num_logits: int
    weights_hash: str

    @abstractmethod
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        """uint8 [B, C, H, W] in [0, 255] -> features, float32 [B, D], and logits [B, K] if it classifies.

        Resizes, and repeats or averages channels, by itself.
        """

    def train(self, mode: bool = True) -> Self:
        """Stays in evaluation mode, whatever a parent module is told."""
        return super().train(False)

    def _freeze(self, net: nn.Module, known: bool) -> None:
        """Weights that are not known by the extractor's name add six digits of their hash to it, so that
        scores of two extractors never share a name."""
        self.weights_hash = weights_hash(net)
        if not known:
            self.name = f"{self.name}-{self.weights_hash[:6]}"
        self.requires_grad_(False)
        self.train(False)


class LeNetExtractor(FeatureExtractor):
    """A small classifier and its weights; "fid/lenet_mnist" is a number of its own, not comparable with
    Inception's, nor with that of other weights.

        >>> from lit_gen import LeNet
        >>> extract = LeNetExtractor(LeNet(1, 10), "lenet_digits")
        >>> features, logits = extract(torch.zeros(5, 1, 8, 8, dtype=torch.uint8))
        >>> list(features.shape), list(logits.shape)
        ([5, 84], [5, 10])

    Args:
        net: image in [-1, 1] -> (features, logits).
        weights: the name of those that ship with the package, a .safetensors file written by
            `save_extractor`, or a file of `torch.save` with a state dict, which may have the names of the
            authors of Multiband VAE (conv1, conv2, fc1, fc2, fc3); images are then shown in [0, 1].
        name: None is that of the file. Six digits of the hash follow where no weights of that name ship.

    Attributes:
        header: what the weights' file says of itself: data set, test accuracy, classes, channels.
    """

    def __init__(self, net: ClassifyingNet, weights: str | Path, name: str | None = None) -> None:
        super().__init__()
        path, self.net = _weights_path(weights), net
        self.num_features, self.num_logits = net.num_features, net.num_classes
        state, self.header = _read(path)
        self.trained_on = self.header.get("dataset", self.trained_on)
        self._in_unit_range = {key.rpartition(".")[0] for key in state} == _AUTHORS.keys()
        if self._in_unit_range:
            parts = {key: key.rpartition(".") for key in state}
            state = {_AUTHORS[layer] + dot + end: state[key] for key, (layer, dot, end) in parts.items()}
        _load(net, state, path)
        given = weights_hash(net)
        if self.header.get(_HASH, given) != given:
            raise InputError(
                f"extractor.weights={path}: is damaged; its weights have the hash {given}, its header says "
                f"{self.header[_HASH]}. Get it again"
            )
        self.name = name or path.stem
        self._freeze(self.net, known=path == WEIGHTS / f"{self.name}.safetensors")

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        shown = with_channels(to_float(_is_uint8(image)), self.net.channels)
        features, logits = self.net((shown + 1) / 2 if self._in_unit_range else shown)
        return features.float(), logits.float()


class TorchFidelityInception(FeatureExtractor):
    """Inception v3 with the weights of the original TensorFlow graph, as published figures use; 2048
    features.

    Images are resized to 299 pixels as TensorFlow 1 did; grey ones are repeated to three channels.

    Args:
        weights: the file (see `URL`); None is torch.hub's cache, where torch-fidelity keeps it. Nothing is
            downloaded. Six digits of the hash follow the name where the file has another one.
    """

    # Version 0.2.0 is that of the weights, not of the package.
    URL = "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth"
    _FILE = URL.rpartition("/")[2]

    name = "inception"
    trained_on = "ImageNet"
    num_features = 2048
    num_logits = 1008

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        # Imported here: it loads torchvision, and only who asks for Inception should wait for that.
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

        path = self._found(weights)
        try:
            if path.name == self._FILE:
                self._check_hash(path)
            # torch-fidelity unpickles without asking; a file that passes here holds tensors only.
            torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            self.net = FeatureExtractorInceptionV3(
                "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=str(path)
            )
        except Exception as error:
            # Whatever torch raises for a truncated archive, a pickle of objects or another network's weights.
            raise InputError(
                f"extractor.weights={path}: these are not the weights of {type(self).__name__} "
                f"({str(error).strip().splitlines()[0]}). Take them from {self.URL}"
            ) from error
        self._freeze(self.net, known=path.name == self._FILE)

    def _check_hash(self, path: Path) -> None:
        """The name ends in the first digits of the file's SHA-256, as those of torch.hub do."""
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if not self._FILE.endswith(f"-{found[:8]}.pth"):
            raise ValueError(f"its SHA-256 begins with {found[:8]}, not as its name says")

    @torch.no_grad()
    def forward(self, image: Tensor) -> tuple[Tensor, Tensor | None]:
        features, logits = self.net(with_channels(_is_uint8(image), 3))
        return features.float(), logits.float()

    def _found(self, weights: str | Path | None) -> Path:
        cached = Path(torch.hub.get_dir()) / "checkpoints" / self._FILE
        path = cached if weights is None else Path(weights).expanduser()
        if not path.is_file():
            raise NoWeights(
                f"extractor=inception: no weights at {path}. Fetch {self.URL} (95 MB), put it at {cached}, "
                "name the file by extractor.weights=FILE, or choose a small network whose scores are on a "
                "scale of their own, such as extractor=lenet_mnist"
            )
        return path


class ClassifyingNet(Protocol):
    """What `LeNetExtractor` asks of its network."""

    channels: int
    num_features: int
    num_classes: int

    def __call__(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, S, S] in [-1, 1] -> features [B, D] and logits [B, K]."""


def save_extractor(net: nn.Module, path: str | Path, metadata: Mapping[str, str]) -> None:
    """Writes a network's weights for `LeNetExtractor`; an existing file is replaced whole or not at all.

    Args:
        metadata: "dataset", "test_accuracy", "num_classes", "channels" and whatever else, all strings.
    """
    from safetensors.torch import save_file

    missing = [key for key in _HEADER if key not in metadata]
    if missing or not all(isinstance(value, str) for value in metadata.values()):
        raise ValueError(f"metadata must map {', '.join(_HEADER)} to strings, got {dict(metadata)}")
    weights = {name: value.cpu().contiguous() for name, value in net.state_dict().items()}
    with replaced(Path(path)) as aside:
        save_file(weights, aside, {**metadata, _HASH: weights_hash(net)})


def weights_hash(module: nn.Module) -> str:
    """First 12 hexadecimal digits of the SHA-256 over names, types, shapes and values of the state dict, by
    name.
    """
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(f"{name} {value.dtype} {list(value.shape)};".encode())
        digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:12]


def with_channels(image: Tensor, channels: int) -> Tensor:
    """[B, C, H, W] -> [B, channels, H, W]: one channel is repeated, several become one by their mean."""
    present = image.shape[1]
    if present == channels:
        return image
    if present == 1:
        return image.expand(-1, channels, -1, -1)
    if channels == 1:
        return image.float().mean(dim=1, keepdim=True)
    raise ValueError(
        f"images have {present} channels, the extractor takes {channels}; 1 on either side can be adapted"
    )


def _is_uint8(image: Tensor) -> Tensor:
    if image.dtype != torch.uint8 or image.ndim != 4:
        raise TypeError(f"an extractor takes uint8 [B, C, H, W], got {image.dtype} {list(image.shape)}")
    return image


def _weights_path(weights: str | Path) -> Path:
    path = Path(weights).expanduser()
    if path.is_file():
        return path
    packaged = WEIGHTS / f"{path.name.removesuffix('.safetensors')}.safetensors"
    if path.parent == Path() and packaged.is_file():
        return packaged
    shipped = ", ".join(sorted(file.stem for file in WEIGHTS.glob("*.safetensors"))) or "none"
    raise InputError(
        f"extractor.weights={weights}: there is no such file, and no such weights in the package "
        f"(there: {shipped}). Name a .safetensors file, a state dict of torch.save, or one of those"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Weights by name, and what the file says of itself. No code of a file is run.

    Raises:
        InputError: it holds something else, or weights that are not finite.
    """
    from safetensors import SafetensorError, safe_open

    try:
        if path.suffix == ".safetensors":
            with safe_open(path, framework="pt") as file:
                state = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
                header = file.metadata() or {}
        else:
            with path.open("rb") as file:
                is_archive = file.read(2) == b"PK"
            if is_archive:  # torch does not look at the checksums
                check_archive(path)
            state, header = torch.load(path, map_location="cpu", weights_only=True), {}
    except pickle.UnpicklingError as error:  # torch's own words are about switching this check off
        raise InputError(
            f"extractor.weights={path}: not weights of LeNet: no file of torch.save, or of more than tensors"
        ) from error
    except (SafetensorError, RuntimeError, EOFError, OSError, ValueError, zipfile.BadZipFile) as error:
        reason = str(error).strip().partition("\n")[0]
        raise InputError(f"extractor.weights={path}: not weights of LeNet: unreadable ({reason})") from error
    if not isinstance(state, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in state.items()
    ):
        raise InputError(
            f"extractor.weights={path}: not weights of LeNet: holds no state dict, which has a tensor by "
            "name for every layer; save net.state_dict()"
        )
    if not all(value.isfinite().all() for value in state.values()):
        raise InputError(f"extractor.weights={path}: holds weights that are not finite")
    return dict(state), header


def _load(net: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        net.load_state_dict(state)
    except RuntimeError as error:
        raise InputError(
            f"extractor.weights={path}: these are not weights of {type(net).__name__} "
            f"({' '.join(str(error).split())}). Channels and num_classes must be those it was trained with"
        ) from error
