"""Feature extractors: weights, ranges, channels, and what they say when something is missing."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_gen.cli.config import compose
from lit_gen.core.types import InputError
from lit_gen.metrics.features import (
    WEIGHTS,
    LeNetExtractor,
    TorchFidelityInception,
    save_extractor,
    weights_hash,
    with_channels,
)
from lit_gen.nets.lenet import LeNet

HEADER = {"dataset": "toy", "test_accuracy": "0.5", "num_classes": "10", "channels": "1"}


@pytest.fixture
def saved(tmp_path):
    net = LeNet(1, 10)
    save_extractor(net, tmp_path / "toy.safetensors", HEADER)
    return net, tmp_path / "toy.safetensors"


def images(channels=1, size=28):
    return torch.randint(0, 256, (6, channels, size, size), generator=torch.Generator().manual_seed(0)).byte()


def test_saved_weights_come_back_with_their_header(saved):
    net, path = saved
    extractor = LeNetExtractor(LeNet(1, 10), path, "toy")
    features, logits = extractor(images())
    expected = net(images().float() / 127.5 - 1)  # the range that families train in
    torch.testing.assert_close((features, logits), expected, rtol=1e-5, atol=1e-5)
    assert extractor.header == HEADER | {"weights_hash": extractor.weights_hash}
    assert (extractor.num_features, extractor.num_logits) == (84, 10)
    assert [*path.parent.iterdir()] == [path]


def test_it_never_trains(saved):
    extractor = LeNetExtractor(LeNet(1, 10), saved[1], "toy")
    nn.ModuleList([extractor]).train()
    assert not any(module.training for module in extractor.modules())
    assert not any(parameter.requires_grad for parameter in extractor.parameters())
    assert not extractor(images())[0].requires_grad
    with pytest.raises(TypeError, match="uint8"):
        extractor(torch.zeros(2, 1, 28, 28))


def test_hash_depends_on_the_weights_and_nothing_else(saved):
    net, path = saved
    first, second = (LeNetExtractor(LeNet(1, 10), path, name) for name in ("a", "b"))
    assert first.weights_hash == second.weights_hash and len(first.weights_hash) == 12
    with torch.no_grad():
        net.features[0].bias[0] += 1e-3
    assert weights_hash(net) != weights_hash(first.net) == first.weights_hash


def test_channels_are_repeated_or_averaged():
    grey, colour = images(1), images(3)
    assert torch.equal(with_channels(grey, 3)[:, 2], grey[:, 0])
    assert torch.equal(with_channels(colour, 1)[:, 0], colour.float().mean(1))
    assert with_channels(colour, 3) is colour
    with pytest.raises(ValueError, match="2 channels"):
        with_channels(images(2), 3)


def test_missing_weights_name_the_key_and_what_there_is():
    with pytest.raises(InputError, match=r"extractor.weights=nowhere.*in the package"):
        LeNetExtractor(LeNet(1, 10), "nowhere", "toy")


AUTHORS = {
    "conv1": nn.Conv2d(1, 6, 5),
    "conv2": nn.Conv2d(6, 16, 5),
    "fc1": nn.Linear(256, 120),
    "fc2": nn.Linear(120, 84),
    "fc3": nn.Linear(84, 10),
}


def authors_state():
    return {f"{layer}.{name}": v for layer, part in AUTHORS.items() for name, v in part.state_dict().items()}


def test_the_authors_layout_is_shown_images_in_the_unit_range(tmp_path):
    """Against their network written out: features are the second linear layer's output before its ReLU."""
    torch.save(authors_state(), tmp_path / "their.pt")
    extractor = LeNetExtractor(LeNet(1, 10), tmp_path / "their.pt")
    hidden = images() / 255
    for layer in ("conv1", "conv2"):
        hidden = F.max_pool2d(AUTHORS[layer](hidden).relu(), 2)
    expected = AUTHORS["fc2"](AUTHORS["fc1"](hidden.flatten(1)).relu())
    features, logits = extractor(images())
    torch.testing.assert_close(features, expected)
    torch.testing.assert_close(logits, AUTHORS["fc3"](expected.relu()))
    assert extractor.name == f"their-{extractor.weights_hash[:6]}"


def test_weights_of_a_file_score_under_a_name_of_their_own(saved, tmp_path):
    net, path = saved
    torch.save(net.state_dict(), tmp_path / "lenet_mnist.pt")
    words = ["extractor=lenet_mnist", f"extractor.weights={tmp_path / 'lenet_mnist.pt'}"]
    ours = compose("evaluate", ["extractor=lenet_mnist"]).build("extractor")
    other = compose("evaluate", words).build("extractor")
    assert ours.name == "lenet_mnist" != other.name == f"lenet_mnist-{weights_hash(net)[:6]}"
    digits = LeNetExtractor(LeNet(1, 10), "lenet_digits", "lenet_mnist")
    assert digits.name == f"lenet_mnist-{digits.weights_hash[:6]}"
    same = LeNetExtractor(LeNet(1, 10), path, "lenet_mnist")
    assert same.name == other.name and torch.equal(same(images())[0], other(images())[0])


@pytest.mark.parametrize(
    ("spoil", "says"),
    [
        ("shape", r"features\.2\.weight.*\[84, 121\]"),
        ("missing", "not weights of LeNet.*classes.1.bias"),
        ("nan", "not finite"),
        ("code", "more than tensors"),
        ("whole", "no state dict.*save net.state_dict"),
        ("truncated", "unreadable"),
    ],
)
def test_state_dicts_of_something_else_are_refused(tmp_path, spoil, says):
    state, path = authors_state(), tmp_path / "their.pt"
    if spoil == "shape":
        state["fc2.weight"] = torch.zeros(84, 121)
    if spoil == "missing":
        del state["fc3.bias"]
    if spoil == "nan":
        state["fc1.bias"] = torch.full((120,), torch.nan)
    torch.save({"code": print, "whole": {"state_dict": state}}.get(spoil, state), path)
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(InputError, match=says) as error:
        LeNetExtractor(LeNet(1, 10), path)
    assert f"extractor.weights={path}" in str(error.value)


@pytest.mark.parametrize("spoil", ["classes", "truncated", "text"])
def test_weights_of_something_else_are_refused(saved, spoil):
    net, path = LeNet(1, 3 if spoil == "classes" else 10), saved[1]
    if spoil == "truncated":
        path.write_bytes(path.read_bytes()[:-1000])
    if spoil == "text":
        path.write_text("no weights")
    with pytest.raises(InputError, match="not weights of LeNet"):
        LeNetExtractor(net, path, "toy")


@pytest.mark.parametrize("file", ["own", "state", "ships"])
def test_weights_with_zeroed_bytes_are_refused(saved, tmp_path, file):
    path = saved[1]
    if file == "ships":
        path.write_bytes((WEIGHTS / "lenet_mnist.safetensors").read_bytes())
    if file == "state":
        path = tmp_path / "state.pt"
        torch.save(saved[0].state_dict(), path)
    content = path.read_bytes()
    path.write_bytes(content[:90_000] + bytes(64) + content[90_064:])
    with pytest.raises(InputError, match=r"damaged|checksum"):
        LeNetExtractor(LeNet(1, 10), path)


def test_inception_of_another_hash_than_its_name_says_is_refused(tmp_path):
    path = tmp_path / TorchFidelityInception.URL.rpartition("/")[2]
    torch.save({}, path)
    with pytest.raises(InputError, match="its SHA-256 begins with"):
        TorchFidelityInception(path)


def test_a_header_must_be_complete(tmp_path):
    with pytest.raises(ValueError, match="test_accuracy"):
        save_extractor(LeNet(1, 10), tmp_path / "a.safetensors", {"dataset": "toy"})
    assert not list(tmp_path.iterdir())


def test_missing_inception_weights_say_which_file_goes_where(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(InputError) as error:
        TorchFidelityInception()
    assert str(tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth") in str(
        error.value
    )
    assert TorchFidelityInception.URL in str(error.value)


def test_other_files_are_no_inception_weights(tmp_path):
    torch.save({"fc.weight": torch.zeros(3)}, tmp_path / "other.pth")
    (tmp_path / "broken.pth").write_bytes(b"PK\x03\x04 not an archive")
    torch.save(print, tmp_path / "code.pth")
    for name in ("other", "broken", "code"):
        with pytest.raises(InputError, match=f"{name}.pth: these are not the weights"):
            TorchFidelityInception(tmp_path / f"{name}.pth")


@pytest.mark.slow
def test_inception_is_that_of_torch_fidelity(tmp_path, monkeypatch):
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    path = tmp_path / "weights.pth"
    with monkeypatch.context() as patch:
        # Its constructor insists on weights; a loader that ignores them leaves the initial ones.
        torch.save({}, path)
        patch.setattr(FeatureExtractorInceptionV3, "load_state_dict", lambda self, state: None)
        original = FeatureExtractorInceptionV3(
            "inception-v3-compat", ["2048", "logits_unbiased"], feature_extractor_weights_path=path
        )
    torch.save(original.state_dict(), path)

    extractor = TorchFidelityInception(path)
    grey = images(1, 32)[:2]
    features, logits = extractor(grey)
    expected = original(grey.repeat(1, 3, 1, 1))
    assert features.shape == (2, 2048) and logits.shape == (2, extractor.num_logits)
    assert torch.equal(features, expected[0]) and torch.equal(logits, expected[1])
    assert not extractor.train().net.training
    assert extractor.name == f"inception-{extractor.weights_hash[:6]}"
