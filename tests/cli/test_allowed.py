"""What configurations may build: hostile ones at every door, one's own package, and all that conf/ names."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from analysis_toys import TINY, VAE

import lit_gen
from lit_gen.__main__ import main
from lit_gen.cli import CONF
from lit_gen.cli.allowed import locate, trusting
from lit_gen.cli.building import build
from lit_gen.cli.config import _asks_outside, compose, recompose
from lit_gen.cli.open_run import open_run
from lit_gen.core.checkpoint import read
from lit_gen.core.types import InputError

HARMFUL = [
    *("os.system", "builtins.eval", "builtins.open", "numpy.load", "mlflow.utils.process._exec_cmd"),
    *("hydra.utils.get_method", "hydra.utils.instantiate", "hydra._internal.utils._locate"),
    *("torch.load", "torch.hub.load", "torch.jit.load", "torch.jit.ScriptModule", "torch.fx.GraphModule"),
    *(
        "torch.utils.cpp_extension.load_inline",
        "torch.multiprocessing.spawn",
        "torch.nn.functional.os.system",
    ),
    *("torch.distributed.nn.RemoteModule", "torch.nn.Module.load_state_dict", "torch.nn.init.warnings.warn"),
    *("lightning.pytorch.demos.mnist_datamodule.MNISTDataModule", "lightning.pytorch.cli.LightningCLI"),
    *(
        "lightning.Trainer.__init__",
        "lightning.seed_everything",
        "torchmetrics.image.FrechetInceptionDistance",
    ),
    *(
        "torch_fidelity.feature_extractor_inceptionv3.FeatureExtractorInceptionV3",
        "torchmetrics.text.BERTScore",
    ),
    *(
        "lit_gen.load",
        "lit_gen.__main__.main",
        "lit_gen.core.files.write_text",
        "lit_gen.core.files.os.system",
    ),
    *("lit_gen.families.vae.VAE.load_from_checkpoint", "lit_gen.cli.runs.Series", "lit_gen.importlib.reload"),
    *("lit_gen.metrics.features.save_extractor", "lit_gen.metrics.features.pickle.load"),
    *("lit_gen.tracking.courier.Courier", "datamodules.cifar.pickle.load", "datamodules.cifar._ArraysOnly"),
    *("datamodules.files.contents", "callbacks.run_record.status_of", "lit_gen.losses.sinkhorn.math.sqrt"),
]


@pytest.mark.parametrize("target", HARMFUL)
def test_a_target_that_could_harm_is_refused(target):
    with pytest.raises(InputError):
        locate(target)


def test_a_foreign_package_is_not_even_imported(package, marker):
    with pytest.raises(InputError, match=r"asks for own_family\.Flow; .* trust=own_family$"):
        locate("own_family.Flow")
    assert not marker.exists() and "own_family" not in sys.modules


def test_every_target_of_the_shipped_files_and_of_readme_may_be_built():
    texts = [file.read_text(encoding="utf-8") for file in CONF.rglob("*.yaml")]
    texts.append((Path(CONF).parent / "README.md").read_text(encoding="utf-8"))
    targets = set(re.findall(r"_target_[:=] ?([a-z_]+\.[\w.]+\w)", "\n".join(texts)))
    assert len(targets) > 100
    for target in targets - {"my_package.Flow", "my_models.Flow"}:  # which are the reader's
        assert callable(locate(target))


@pytest.mark.parametrize(
    "target",
    [
        *("torch.nn.SiLU", "torch.optim.lr_scheduler.OneCycleLR", "torch.optim.SGD", "lit_gen.VAE"),
        *("torchmetrics.MeanSquaredError", "lightning.pytorch.callbacks.EarlyStopping"),
        *("lightning.pytorch.loggers.CSVLogger", "lightning.pytorch.strategies.DDPStrategy"),
        *("lightning.pytorch.plugins.MixedPrecision", "lightning.pytorch.profilers.SimpleProfiler"),
    ],
)
def test_what_people_add_themselves_may_be_built(target):
    assert callable(locate(target))


@pytest.fixture
def marker(tmp_path):
    return tmp_path / "harmed"


@pytest.fixture
def package(tmp_path, marker, monkeypatch):
    """A package of one's own on the path; importing it leaves a mark."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "own_family.py").write_text(
        "from os import system\nimport os\nfrom pathlib import Path\nfrom lit_gen.families.vae import VAE\n"
        f"Path({str(marker)!r}).touch()\nclass Flow(VAE): pass\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "path"))
    yield
    sys.modules.pop("own_family", None)


def test_a_trusted_package_opens_what_it_defines_and_nothing_else(package):
    with trusting(["own_family"]):
        assert locate("own_family.Flow").__name__ == "Flow"
        assert locate("own_family.VAE") is lit_gen.VAE
        for target in ("own_family.system", "own_family.os.system", "own_family.Path", "torch.load"):
            with pytest.raises(InputError):
                locate(target)
    with pytest.raises(InputError, match=r"trust=own_family"):
        locate("own_family.Flow")
    for name in ("torch", "os", "hydra.utils", "not a name", "nowhere_at_all"):
        with pytest.raises(InputError, match=rf"trust={name}|{name}:"), trusting([name]):
            pass


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert main(["train", *TINY, *VAE, "trainer.max_epochs=1", f"output_dir={folder}"]) == 0
    return folder


def changed(run: Path, place: Path, **values: object) -> Path:
    """The run's checkpoint with another stored configuration."""
    state = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    state["lit_gen"]["config"] |= values
    torch.save(state, place)
    return place


def hostile(marker: Path) -> list[dict[str, object]]:
    """Configurations that touch the marker if anything of them is run."""
    touch = {"_target_": "mlflow.utils.process._exec_cmd", "cmd": ["touch", str(marker)]}
    path = {"_target_": "hydra.utils.get_method", "path": "os.system", "_args_": [f"touch {marker}"]}
    made = f"${{oc.create:'{{_target_: builtins.open, file: \"{marker}\", mode: w}}'}}"
    return [
        {"sampler": touch},
        {"sampler": {"_target_": "torch.nn.Sequential", "_args_": [touch, path]}},
        {"sampler": {"_target_": "builtins.open", "file": str(marker), "mode": "w"}},
        {"sampler": {"_target_": "own_family.Flow", "_partial_": True}},
        {"sampler": made, "trust": ["own_family"]},
        {"hydra": {"callbacks": {"a": touch}}, "defaults": ["/etc/passwd"], "sampler": touch},
    ]


def test_a_hostile_checkpoint_is_refused_at_every_door(run, tmp_path, marker, package):
    ckpt = tmp_path / "hostile.ckpt"
    for values in hostile(marker):
        with pytest.raises(InputError):
            lit_gen.load(changed(run, ckpt, **values))
    for words in (
        ["sample", f"out={tmp_path}/a.png"],
        ["evaluate"],
        ["analyse", "what=map", f"out={tmp_path}/maps"],
        ["compare", f"runs={changed(run, tmp_path / 'last.ckpt', **hostile(marker)[0]).parent}", "out=x"],
    ):
        given = [] if words[0] == "compare" else [f"ckpt={ckpt}"]
        assert main([*words, *given]) == 2, words
    assert not marker.exists()


class Harm:
    """Unpickled, it touches a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self):
        return Path.touch, (self.file,)


def test_no_file_that_is_read_back_runs_code(run, tmp_path, marker):
    """Weights, archives, caches and configurations; those of CIFAR have a test of their own."""
    torch.save({"conv": Harm(marker), "state_dict": Harm(marker)}, tmp_path / "weights.pth")
    np.savez(tmp_path / "images.npz", image=np.array([Harm(marker)], dtype=object))
    for extractor in ("lenet_digits", "inception"):
        words = [f"extractor={extractor}", f"extractor.weights={tmp_path}/weights.pth"]
        assert main(["evaluate", f"ckpt={run}", *words]) == 2
    archive = tmp_path / "images.npz"
    assert main(["evaluate", f"real={archive}", f"fake={archive}", "extractor=lenet_digits"]) == 2
    assert main(["sample", f"ckpt={tmp_path}/weights.pth", f"out={tmp_path}/a.png"]) == 2
    shutil.copytree(run, tmp_path / "run")
    np.savez(tmp_path / "run" / "split" / "digests.npz", train_image=np.array([Harm(marker)], dtype=object))
    with pytest.raises(ValueError, match=r"[Pp]ickle|digests"):
        open_run(str(tmp_path / "run"))
    with pytest.raises((yaml.YAMLError, InputError)):
        (tmp_path / "bare").mkdir()
        text = f"a: !!python/object/apply:os.system ['touch {marker}']"
        (tmp_path / "bare" / "config.yaml").write_text(text)
        if main(["train", f"resume={tmp_path}/bare"]) == 2:
            raise InputError
    assert not marker.exists()


def test_a_hostile_run_folder_is_not_resumed(run, tmp_path, marker, package):
    """By start.json, or without it by config.yaml; safe loaders read both."""
    (tmp_path / "run").mkdir()
    config = yaml.safe_load((run / "config.yaml").read_text())
    for node in hostile(marker)[:4]:
        (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config | node))
        assert main(["train", f"resume={tmp_path}/run"]) == 2
    assert not marker.exists()


@pytest.mark.parametrize(
    "word",
    [
        "model.encoder._target_=builtins.open",
        "+callbacks.x={_target_: mlflow.utils.process._exec_cmd, cmd: [touch, x]}",
        "model.reconstruction._target_=torch.load",
        "+callbacks.x={_target_: own_family.Flow}",
    ],
)
def test_a_typed_configuration_is_held_to_the_same(word, package, marker, capsys):
    assert main(["train", *TINY, *VAE, word, "--cfg"]) == 2
    assert "asks for" in capsys.readouterr().err and not marker.exists()


def test_a_family_of_ones_own_trains_and_is_loaded_by_those_who_trust_it(package, tmp_path, capsys):
    words = [*TINY, *VAE, "model._target_=own_family.Flow", "trainer.max_epochs=1"]
    folder = tmp_path / "run"
    assert main(["train", *words, f"output_dir={folder}"]) == 2 and not folder.exists()
    assert main(["train", *words, f"output_dir={folder}", "trust=own_family"]) == 0
    for file in ("config.yaml", "start.json"):
        assert "trust" not in (folder / file).read_text()
    assert "trust" not in str(read(folder).record)
    capsys.readouterr()
    assert main(["sample", f"ckpt={folder}", f"out={tmp_path}/a.png"]) == 2
    assert "model._target_: the configuration asks for own_family.Flow; if" in capsys.readouterr().err
    assert main(["sample", f"ckpt={folder}", f"out={tmp_path}/a.png", "trust=own_family"]) == 0
    assert type(lit_gen.load(folder, trust=["own_family"])).__name__ == "Flow"


def test_a_stored_configuration_reads_nothing_outside_itself(monkeypatch):
    monkeypatch.setenv("SECRET", "7")
    stored = compose("train", ["data=synthetic"]).source
    hidden = (
        *("${oc.env:SECRET}", "${oc.decode:${oc.env:SECRET}}", "${${name}:SECRET}", "${oc.${name}:SECRET}"),
        *("${times:${oc.env:SECRET}}", "${oc.env:LIT_GEN_DATA,${oc.env:SECRET}}", "${ oc.env:SECRET}"),
        *("a${oc.create:{a: 1}}", "${read_file:/etc/passwd}"),
    )
    assert all(map(_asks_outside, hidden))
    inside = ("${model.a}", "${..a.${b}[0]}", "${times:2,${a},${..b-c}}", "${oc.env:LIT_GEN_DATA,data}", "$x")
    assert not any(map(_asks_outside, inside))
    with pytest.raises(InputError, match=r"name: a value must be given: name="):
        recompose(stored | {"name": hidden[0]})
    assert recompose(stored | {"name": hidden[0]}, ["name=mine"]).config["name"] == "mine"


def test_what_was_typed_may_ask_the_environment_and_is_stored_as_it_was_then(monkeypatch):
    monkeypatch.setenv("PLACE", "here")
    typed = compose("train", ["data=mnist", "data.root='${oc.env:PLACE}'"])
    assert typed.config["data"]["root"] == typed.source["data"]["root"] == "here"
    again = recompose(typed.source, ["data.root='${oc.env:PLACE}/more'"])
    assert again.config["data"]["root"] == "here/more"
    # Where data sets lie is asked anew: a checkpoint is used on other machines too.
    stored = compose("train", ["data=mnist"]).source
    monkeypatch.setenv("LIT_GEN_DATA", "there")
    assert recompose(stored).config["data"]["root"] == "there"


def test_what_an_object_is_given_is_not_interpolated_once_more(monkeypatch):
    monkeypatch.setenv("SECRET", "7")
    made = build(
        {"_target_": "lit_gen.evaluation.judges.base.Judge", "_partial_": True, "a": "${oc.env:SECRET}"}, "x"
    )
    assert made.keywords == {"a": "${oc.env:SECRET}"}
