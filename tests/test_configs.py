"""Every choice in conf/ composes and passes the check, whoever added it; nothing is built or trained here."""

from pathlib import Path

import pytest
import torch
from conf_toys import files_read_once, partners
from omegaconf import OmegaConf

from lit_gen.cli import CONF, choices, group_names, rows
from lit_gen.cli.config import as_yaml, compose, recompose
from lit_gen.cli.help import describe
from lit_gen.core.types import Batch, InputError

# What a file needs beside the defaults to make sense, unless it names its own partners.
REQUIRED = {"stream": ["data=mnist"]}
FILES = [(group, name) for group in group_names() for name in choices(group)]


@pytest.fixture(scope="module", autouse=True)
def _every_file_is_read_once():
    """Hydra parses what the defaults lists name again for every config, which takes half of the time here."""
    with files_read_once():
        yield


def value(config, key: str):
    for part in key.split("."):
        config = config[part]
    return config


@pytest.mark.parametrize(("group", "name"), FILES, ids=["/".join(file) for file in FILES])
def test_every_file_composes_and_passes_the_check(group, name):
    composed = compose("train", [*REQUIRED.get(group, []), *partners(group, name), f"{group}={name}"])
    assert composed.choices[group] == name
    assert "${" not in as_yaml(composed.config)
    assert 0 < len(describe(CONF / group / f"{name}.yaml")) <= 130, "its first comment says what it is"


@pytest.mark.parametrize("words", [["experiment=quickstart"], ["paper=replay/celeba_ci5"], ["data=mnist"]])
def test_a_stored_config_is_the_same_again(words):
    composed = compose("train", words)
    assert recompose(composed.source).config == composed.config


@pytest.mark.parametrize("name", [f.stem for f in sorted(CONF.glob("*.yaml"))])
def test_every_config_of_a_verb_composes_without_further_words(name):
    assert compose(name).source


# What a row of a paper, a named run or a recipe promises: words -> keys of the config and their values.
@pytest.mark.parametrize(
    ("words", "facts"),
    [
        (
            "experiment=quickstart",
            {
                "choices.model": "multiband",
                "choices.net": "multiband_dense",
                "choices.stream": "split_classes",
                "model.epochs.first": 100,
                "model.encoder.features.hidden": [256, 128],
                "data.batch_size": 32,
                "trainer.max_epochs": 100,
            },
        ),
        (
            "paper=multiband/mnist_ci5",
            {
                "choices.paper": "multiband/mnist_ci5",
                "choices.net": "multiband_dense",
                "extractor.name": "lenet_mnist",
                "data.validation": "fraction",
                "stream.num_tasks": 5,
                "seed": 13,
                "model.band_bits": "published",
                "model.encoder.features.unit_range": True,
                "trainer.gradient_clip_val": 4.0,
                "published.fid": 24,
                "published.extractor": "e2e148bfa65b",
            },
        ),
        (
            "paper=multiband/celeba_dirichlet100",
            {
                "choices.net": "multiband_conv",
                "model.encoder.latent_size": 32,
                "model.encoder.features.width": 50,
                "model.encoder.features.unit_range": True,
                "model.band.translator.out_size": 1600,
                "data.classes": "first_ten",
                "stream.split.alpha": 100.0,
                "published.prd_precision": 36.2,
            },
        ),
        (
            "paper=knop/cwae_celeba",
            {
                "choices.net": "knop_celeba",
                "model.weight": 5.0,
                "model.latent_size": 64,
                "model.optimizer.lr": 5e-4,
                "data.crop": 140,
                "trainer.max_epochs": 55,
                "published.fid": 48.02,
            },
        ),
        (
            "paper=replay/fashion_ci5",
            {"model.learner.encoder.latent_size": 12, "model.learner.optimizer.lr": 5e-4, "seed": 13},
        ),
        ("paper=replay/celeba_ci5", {"model.learner.encoder.features.unit_range": True}),
        ("paper=replay/joint_mnist_ci5", {"model.encoder.features.unit_range": True}),
        ("paper=replay/separate_mnist_ci5", {"model.learner.encoder.features.unit_range": True}),
        ("model=multiband", {"model.encoder.features.unit_range": False}),
        ("paper=knop/cwae_mnist", {"model.decoder.gain": 0.5, "model.encoder.unit_range": True}),
        ("model=gan net=dcgan", {"model.generator.initial_std": 0.02, "model.critic.initial_std": 0.02}),
        (
            "model=multiband_gan_classes net=multiband_gan_conv",
            {"model.critic.map_hidden": 400, "model.generator.decoder.activate_start": False},
        ),
        (
            "paper=multiband_gan/omniglot_ci20",
            {"choices.net": "multiband_gan_conv", "stream.num_tasks": 20, "data.invert": False, "seed": 42},
        ),
        (
            # The command line has the last word.
            "paper=knop/vae_mnist model.latent_size=2 data=fashion_mnist",
            {"model.latent_size": 2, "choices.data": "fashion_mnist", "model.encoder.out_size": 4},
        ),
        (
            "model=cwae net=dense data=mnist recipe=autoencoder",
            {
                "choices.budget": "autoencoder_mnist",
                "extractor.name": "lenet_mnist",
                "trainer.max_epochs": 20,
                "data.batch_size": 128,
                "model.encoder.hidden": [512, 256],
            },
        ),
        (
            "experiment=binarised model=iwae recipe=null",
            {"trainer.max_epochs": compose("train", []).config["trainer"]["max_epochs"]},
        ),
        ("judges=[] callbacks=[]", {"judges": {}, "callbacks": {}}),
        ("model=cwae recipe=autoencoder", {"trainer.max_epochs": 100, "extractor.name": "lenet_digits"}),
        ("data=mnist recipe=autoencoder extractor=inception", {"choices.extractor": "inception"}),
        (
            "model=wgan_gp net=gan_dense recipe=gan model.critic.hidden=[64]",
            {"model.critic.hidden": [64], "callbacks.ema.decay": 0.99, "trainer.max_epochs": 300},
        ),
        ("model=replay_vae net=conv", {"model.learner.encoder._target_": "lit_gen.nets.conv.ConvEncoder"}),
        (
            "experiment=binarised model=iwae data=mnist",
            {"data.binarize": "dynamic", "trainer.max_epochs": 30},
        ),
    ],
    ids=lambda given: given.replace(" ", ",") if isinstance(given, str) else "",
)
def test_what_a_command_means(words, facts):
    config = compose("train", words.split()).config
    assert {key: value(config, key) for key in facts} == facts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["model=progan", "net=conv"], "net=conv"),
        (["net=cnov"], "Did you mean conv?"),
        (["paper=knop/cwae_mnits"], "Did you mean knop/cwae_mnist?"),
        (["paper=knop"], "knop/ae_celeba, knop/ae_cifar10"),
        (["model=ae_contractive", "net=conv"], "model.encoder.hidden: expected int"),
    ],
    ids=lambda given: ",".join(given) if isinstance(given, list) else "",
)
def test_a_choice_that_cannot_be_is_named(words, said):
    with pytest.raises(InputError) as caught:
        compose("train", words)
    assert said in str(caught.value)


def test_other_data_for_a_checkpoint_leaves_its_extractor_and_its_nets_cannot_change():
    source = compose("train", ["model=vae", "net=conv"]).source
    other = recompose(source, ["data=mnist"])
    assert (other.choices["data"], other.choices["extractor"]) == ("mnist", "lenet_digits")
    for word in ("recipe=vae", "paper=knop/ae_mnist"):
        with pytest.raises(InputError, match="belongs to the checkpoint"):
            recompose(source, [word])


def test_every_row_of_a_paper_says_what_was_published_or_that_nothing_was():
    for file in (CONF / "paper").glob("*.yaml"):
        table = OmegaConf.to_container(OmegaConf.load(file))["rows"]
        assert set(table) == set(rows(file)), "the list of --list is read from the text"
        for name, row in table.items():
            found = set(row["published"] or ("fid", "source"))
            assert "source" in found and found & {"fid", "accuracy"}, name


@pytest.mark.parametrize("data", ["digits", "synthetic"])  # which need no files
def test_spec_in_the_file_is_what_the_images_are(data):
    composed = compose("train", [f"data={data}"])
    module, spec = composed.build("data"), composed.build("data.spec")
    module.prepare_data()
    module.setup("fit")
    assert module.spec == spec
    for split in ("train", "val", "test"):
        images = module.dataset(split, [0])
        batch = Batch(*images.__getitems__(list(range(len(images)))))
        assert batch.image.shape == (len(images), spec.channels, spec.size, spec.size)
        assert batch.image.dtype == torch.uint8
        assert set(batch.label.tolist()) == set(range(spec.num_classes))


@pytest.mark.parametrize("trainer", ["default", "cpu", "ddp"])
def test_trainers_that_need_no_other_machine_build(trainer):
    composed = compose("train", [f"trainer={trainer}", "trainer.accelerator=cpu", "trainer.devices=1"])
    built = composed.build("trainer", logger=False, enable_checkpointing=False)
    assert built.num_devices == 1 and built.num_sanity_val_steps == 0


def test_no_value_depends_on_the_machine():
    where = {
        str(file): line
        for file in CONF.rglob("*.yaml")
        for line in file.read_text(encoding="utf-8").splitlines()
        if any(part in line for part in ("/home/", "/root/", "/Users/", "C:\\", str(Path.cwd())))
    }
    assert where == {}
