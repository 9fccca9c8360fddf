"""FID from a file of statistics against torch-fidelity, files that are refused, features that are kept."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

from lit_gen.__main__ import main
from lit_gen.core.types import InputError
from lit_gen.evaluation.image_sets import image_set
from lit_gen.evaluation.statistics import holds_statistics, read_statistics
from lit_gen.metrics.features import LeNetExtractor
from lit_gen.nets.lenet import LeNet

EXTRACTOR = LeNetExtractor(LeNet(1, 10), "lenet_digits")
SIZE = EXTRACTOR.num_features
LENET = "extractor=lenet_digits"
FID = "judges.quality.metrics=[{_target_: lit_gen.metrics.frechet.FrechetDistance, _partial_: true}]"


@pytest.fixture
def sides(tmp_path):
    """uint8 [N, H, W, 1] of both, in archives of these names."""
    rng, images = np.random.default_rng(0), {}
    for name, low, count in (("real", 0, 1100), ("fake", 60, 1000)):
        images[name] = rng.integers(low, 256, (count, 8, 8, 1), dtype=np.uint8)
        np.savez(tmp_path / f"{name}.npz", image=images[name])
    return images


def evaluate(folder, *words, real="real.npz", code=0):
    out = folder / "scores.json"
    words = [f"real={folder}/{real}", f"fake={folder}/fake.npz", LENET, f"out={out}", *words]
    assert main(["evaluate", *words]) == code
    return {row["metric"]: row for row in json.loads(out.read_text())} if code == 0 else None


def features(image):
    return EXTRACTOR(torch.from_numpy(image).permute(0, 3, 1, 2))[0]


def test_fid_of_a_statistics_file_is_that_of_torch_fidelity(sides, tmp_path, capsys):
    theirs = {name: fid_features_to_statistics(features(image)) for name, image in sides.items()}
    np.savez(tmp_path / "stats.npz", **theirs["real"])
    right = fid_statistics_to_metric(theirs["real"], theirs["fake"], False)["frechet_inception_distance"]
    rows = evaluate(tmp_path, real="stats.npz")
    assert rows.keys() == {"fid"} and rows["fid"]["value"] == pytest.approx(right, rel=1e-6)
    assert rows["fid"]["extractor_hash"] == f"{EXTRACTOR.weights_hash} / unknown"
    said = capsys.readouterr()
    assert "these are not given: precision, recall, density" in said.err and "unknown / 1000" in said.out
    # Our own file says more, and an archive of images is still one.
    assert main(["stats", f"real={tmp_path}/real.npz", LENET, f"out={tmp_path}/own.npz"]) == 0
    own, with_images = evaluate(tmp_path, real="own.npz")["fid"], evaluate(tmp_path, FID)["fid"]
    assert own["value"] == pytest.approx(with_images["value"], rel=1e-12)
    assert own | {"value": 0} == with_images | {"value": 0}


def asymmetric(size):
    sigma = np.eye(size)
    sigma[0, 1] = 0.1
    return sigma


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        (
            {"mu": np.zeros(2048), "sigma": np.eye(2048)},
            f"'mu' is float64 [2048], and of an extractor of {SIZE}",
        ),
        ({"mu": np.zeros(SIZE)}, "statistics without 'sigma'"),
        ({"sigma": np.eye(SIZE)}, "statistics without 'mu'"),
        ({"mu": np.zeros(SIZE), "sigma": asymmetric(SIZE)}, "'sigma' is not symmetric (by 0.1)"),
        ({"mu": np.zeros(SIZE), "sigma": -np.eye(SIZE)}, "negative variance"),
        ({"mu": np.full(SIZE, np.nan), "sigma": np.eye(SIZE)}, "'mu' holds numbers that are not finite"),
        ({"mu": np.array([{}]), "sigma": np.eye(SIZE)}, "cannot be read as an .npz archive of numbers"),
        (
            {"mu": np.zeros(SIZE), "sigma": np.eye(SIZE), "extractor": "other", "extractor_hash": "1234"},
            "statistics of other (1234), and the images would be seen by lenet_digits",
        ),
    ],
)
def test_statistics_that_are_none_are_refused(tmp_path, arrays, said):
    np.savez(tmp_path / "stats.npz", **arrays)
    assert holds_statistics(tmp_path / "stats.npz")
    with pytest.raises(InputError, match=re.escape(f"real={tmp_path}/stats.npz: ") + ".*" + re.escape(said)):
        read_statistics("real", tmp_path / "stats.npz", EXTRACTOR)


def test_wrong_files_are_bad_input(sides, tmp_path, capsys):
    np.savez(tmp_path / "stats.npz", mu=np.zeros(SIZE))
    evaluate(tmp_path, real="stats.npz", code=2)
    assert f"lit-gen: real={tmp_path}/stats.npz: statistics without 'sigma'" in capsys.readouterr().err
    np.array([{}]).dump(tmp_path / "stats.npz")
    evaluate(tmp_path, real="stats.npz", code=2)
    assert "cannot be read as an .npz archive (File is not a zip file)" in capsys.readouterr().err
    np.savez(tmp_path / "stats.npz", mu=np.zeros(SIZE), sigma=np.eye(SIZE))
    only = "judges.quality.metrics=[{_target_: lit_gen.metrics.prd.PRD, _partial_: true}]"
    evaluate(tmp_path, only, real="stats.npz", code=2)
    assert "enough for no metric asked for (prd_precision, prd_recall)" in capsys.readouterr().err
    # Of images, which must be two for a covariance.
    np.savez(tmp_path / "one.npz", sides["real"][:1])
    assert main(["stats", f"real={tmp_path}/one.npz", LENET, f"out={tmp_path}/x.npz"]) == 2
    assert "two are the least" in capsys.readouterr().err and not (tmp_path / "x.npz").exists()


def test_features_are_kept_and_used_again(sides, tmp_path, monkeypatch, capsys):
    seen, forward = [], LeNetExtractor.forward
    monkeypatch.setattr(LeNetExtractor, "forward", lambda s, x: seen.append(len(x)) or forward(s, x))
    kept, own = f"features={tmp_path}/kept", evaluate(tmp_path, FID)
    for count in (2100, 0):
        seen.clear()
        assert evaluate(tmp_path, FID, kept) == own and sum(seen) == count
    np.savez(tmp_path / "fake.npz", image=sides["fake"][:900])
    changed = evaluate(tmp_path, FID)
    seen.clear()
    assert evaluate(tmp_path, FID, kept) == changed != own and sum(seen) == 900
    assert f"features={tmp_path}/kept: is of other images than fake=" in capsys.readouterr().err
    before = (tmp_path / "kept").read_bytes()
    main(
        ["evaluate", f"real={tmp_path}/real.npz", f"fake={tmp_path}/fake.npz", "extractor=lenet_mnist", kept]
    )
    assert "holds features of lenet_digits" in capsys.readouterr().err
    assert (tmp_path / "kept").read_bytes() == before
    (tmp_path / "other").write_text("mine")
    evaluate(tmp_path, f"features={tmp_path}/other", code=2)
    assert "is no safetensors file" in capsys.readouterr().err
    save_file({"a": torch.ones(1)}, tmp_path / "other")
    evaluate(tmp_path, f"features={tmp_path}/other", code=2)
    assert "holds features of none none" in capsys.readouterr().err


def test_a_folder_of_archives_is_read_in_order_and_by_parts(sides, tmp_path):
    (tmp_path / "shards").mkdir()
    for number, part in enumerate(np.split(sides["real"], [300, 301, 900])):
        np.savez_compressed(tmp_path / "shards" / f"{number}.npz", image=part, label=np.zeros(len(part)))
    found = image_set("real", tmp_path / "shards")
    rows = torch.empty(found.total, 1, 8, 8, dtype=torch.uint8)
    for rank in range(3):
        for places, images in found.batches(64, rank, 3):
            assert len({int(place) // 64 for place in places}) == 1
            rows[places] = images
    assert (rows.permute(0, 2, 3, 1).numpy() == sides["real"]).all()
