"""Joint diffusion: who has a part in the classifier's loss, what its plans train, and what guides samples."""

import functools

import pytest
import torch
import torch.nn.functional as F
from analysis_toys import TINY
from joint_toys import SPEC, batch_of, linear_model, small_model
from toys import assert_same_state, walk

from lit_gen.__main__ import main
from lit_gen.core.frozen import trainable
from lit_gen.core.progress import Course
from lit_gen.core.types import InputError, Task
from lit_gen.families.diffusion import Diffusion
from lit_gen.families.guided import GuidedSampler
from lit_gen.nets.augmentation import Augmentation
from lit_gen.nets.feature_head import FeatureHead
from lit_gen.nets.unet import UNet

TASK = Task(0, "all", (2, 2, 2, 2), 0, 8)


@pytest.mark.parametrize(
    ("width", "multipliers", "size", "features"),
    [(64, (1, 2, 2), 28, 1344), (128, (1, 2, 2, 2), 32, 3712), (128, (1, 2, 3, 4), 64, 5248)],
)
def test_the_published_nets_have_as_many_features(width, multipliers, size, features):
    with torch.device("meta"):
        net = UNet(3, size, width, multipliers, 3)
        given = net.features(torch.zeros(1, 3, size, size), torch.zeros(1)).together()
    assert net.num_features == given.shape[1] == features


def test_the_published_head_and_a_time_that_it_never_saw():
    assert sum(p.numel() for p in FeatureHead(1344, 10, legacy=True).parameters()) == 915_276
    torch.manual_seed(0)
    features, clean = torch.randn(64, 6), torch.zeros(64)
    for legacy in (False, True):
        head = FeatureHead(6, 3, dropout=0.0, legacy=legacy)
        for _ in range(300):
            head(features, clean)  # what running statistics are made of
        head.eval()
        moved = (head(features, clean + 500) - head(features, clean)).abs().max()
        assert (moved > 100) == legacy, "as published the time is divided by no spread at all"
    assert head.train()(features[:1], clean[:1]).isfinite().all(), "an image alone"


def test_a_label_of_minus_1_gives_exactly_no_gradient():
    model = small_model(augmentation=Augmentation()).train()
    model.classifier_step(batch_of([-1] * 6), 0.0)["loss"].backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in model.parameters())
    batch = batch_of([0, -1, 3, -1, 1, 1, -1, 2])
    image = batch.image.requires_grad_()
    terms = model.classifier_step(batch, 0.0)
    terms["loss"].backward()
    touched = image.grad.flatten(1).abs().sum(1) > 0
    assert touched.tolist() == (batch.label >= 0).tolist()
    logits = model.eval().classify(batch.image)
    known = batch.label >= 0
    expected = F.cross_entropy(logits[known], batch.label[known])
    torch.testing.assert_close(model.classifier_step(batch, 0.0)["cross_entropy"], expected)


def test_the_loss_is_the_error_of_the_noise_and_a_little_of_the_classifiers():
    model, batch = small_model(classifier_weight=0.5, late_classifier=0.3).eval(), batch_of([0, 1, 2, 3])
    found = {}
    for progress in (0.2, 0.4):
        torch.manual_seed(3)
        found[progress] = model.step(batch, progress)
    torch.manual_seed(3)
    alone = Diffusion.step(model, batch, 0.0)["loss"]
    torch.testing.assert_close(found[0.2]["loss"], alone)
    torch.testing.assert_close(found[0.4]["loss"], alone + 0.5 * found[0.4]["cross_entropy"])


@pytest.mark.parametrize(
    ("plan", "names"),
    [
        ("joint", ["train"]),
        ("probe", ["diffusion", "probe"]),
        ("fine_tune", ["diffusion", "fine_tune"]),
        ("classifier", ["classifier"]),
    ],
)
def test_plans_train_what_they_say(plan, names):
    model = small_model(plan=plan, pretraining_epochs=3)
    phases = model.phases(TASK)
    assert [phase.name for phase in phases] == names
    assert [phase.epochs for phase in phases] == [3, None][-len(names) :]
    for phase in phases:
        model.enter(phase, Course())
        phase.turns[0].loss(batch_of([0, 1, 2, 3, -1, -1]), 0.5)["loss"].backward()
        trained = {id(p) for p in trainable(*phase.trains)}
        for name, parameter in model.named_parameters():
            assert (id(parameter) in trained) == (parameter.grad is not None), f"{phase.name}: {name}"
            has_head, has_up = name.startswith("head"), name.startswith(("net.up", "net.out"))
            if has_head or has_up:
                unused = "diffusion" if has_head else phase.name if phase.name != "train" else ""
                is_there = phase.name != unused or (has_up and phase.name == "diffusion")
                assert (id(parameter) in trained) == is_there, f"{phase.name}: {name}"


def test_a_resume_from_any_phase_changes_nothing(tmp_path):
    def made():
        model = small_model(plan="fine_tune", augmentation=Augmentation())
        model.make_optimizer = functools.partial(torch.optim.Adam, lr=1e-3)
        return model

    whole, *_ = walk(tmp_path / "whole", model=made())
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) == 4 + 2
    for number, copy in enumerate(copies[:3]):
        resumed, *_ = walk(tmp_path / f"resumed-{number}", copy, made())
        assert_same_state(whole, resumed)


def test_attributes_have_a_loss_and_an_accuracy_each():
    model, batch = small_model(attributes=True).eval(), batch_of([[0, 1, 0, 0], [1, 1, 0, 1]])
    terms, logits = model.classifier_step(batch, 0.0), model.classify(batch.image)
    expected = F.binary_cross_entropy_with_logits(logits, batch.label.float())
    torch.testing.assert_close(terms["cross_entropy"], expected)
    assert float(terms["accuracy"]) == float(((logits > 0) == batch.label.bool()).float().mean())


@pytest.mark.parametrize(("attributes", "labels"), [(False, [[0, 1, 0, 0]] * 2), (True, [0, 1])])
def test_labels_of_the_other_kind_are_refused(attributes, labels):
    with pytest.raises(InputError, match=r"model\.attributes=(true|false).*data\.label=attributes"):
        small_model(attributes=attributes).step(batch_of(labels), 0.0)


def test_data_without_labels_are_refused_by_the_command(tmp_path, capsys):
    words = ["train", *TINY, "model=joint_diffusion", f"output_dir={tmp_path}/run", "data.labelled_share=0.0"]
    assert main(words) == 2
    assert "data.labelled_share: none of the 96 training images" in capsys.readouterr().err
    assert not (tmp_path / "run" / "checkpoints").exists()


# --- guidance


def cross_entropy(model, x, wanted):
    logits = model.logits(x, torch.full((len(x),), 20.0)).detach()
    return float(model.miss(logits, model.wanted(wanted)).sum())


@pytest.mark.parametrize("ascends", [False, True])
def test_representations_go_down_a_gradient_that_is_known(ascends):
    model, wanted = linear_model(), torch.tensor([3, 0, 2])
    x, t = batch_of([0, 0, 0]).image, torch.full((3,), 20.0)
    sampler = GuidedSampler(steps=2, strength=6.4, ascends=ascends)
    sampler.denoiser(model, wanted, None)(x, 20.0)
    moved = model.net.seen
    pooled = torch.stack([x.mean((1, 2, 3)), 2 * x.mean((1, 2, 3))], 1)
    gap = (pooled @ model.head.weight).softmax(1) - F.one_hot(wanted, 4)
    step = 6.4 * gap @ model.head.weight.T / 64  # a mean over 64 pixels has a 64th of the gradient for each
    torch.testing.assert_close(moved.together(), pooled + step if ascends else pooled - step)
    after = float(model.miss(model.head_of(moved, t), model.wanted(wanted)).sum().detach())
    assert (after < cross_entropy(model, x, wanted)) != ascends


@pytest.mark.parametrize("by", ["noisy", "denoised"])
def test_classifier_guidance_moves_the_noise_by_sigma_times_the_gradient(by):
    model, wanted = linear_model(), torch.tensor([3, 0, 2])
    x = 0.5 * batch_of([0, 0, 0]).image
    plain = model.denoiser()(x, 20.0).parts
    guided = GuidedSampler(steps=2, strength=6.4, by=by).denoiser(model, wanted, None)(x, 20.0).parts
    pooled = torch.stack([x.mean((1, 2, 3)), 2 * x.mean((1, 2, 3))], 1)
    gap = (pooled @ model.head.weight).softmax(1) - F.one_hot(wanted, 4)
    slope = (gap @ model.head.weight.T @ torch.tensor([1.0, 2.0]) / 64)[:, None, None, None]
    alpha, sigma = (float(level) for level in model.path.levels(torch.tensor(20.0)))
    torch.testing.assert_close(guided.noise, plain.noise + (6.4 * sigma * slope).expand_as(x))
    torch.testing.assert_close(alpha * guided.image + sigma * guided.noise, x)
    assert cross_entropy(model, guided.image, wanted) < cross_entropy(model, plain.image, wanted)


def test_a_guided_model_takes_labels_and_others_stay_as_they_are():
    model, label = linear_model(), torch.tensor([0, 3] * 20)
    assert model.conditions == frozenset()
    model.sampler = GuidedSampler(steps=10, strength=50.0, by="denoised", progress=False)
    assert model.conditions == {"label"}
    torch.manual_seed(0)
    assert (model.classify(model.sample(40, label=label)).argmax(1) == label).all()
    plain = GuidedSampler(steps=10, strength=50.0, progress=False).denoiser(model, torch.tensor([-1]), None)
    x = batch_of([0]).image
    assert torch.equal(plain(x, 20.0).parts.image, model.denoiser()(x, 20.0).parts.image), "nothing is asked"


def test_several_attributes_are_asked_for_at_once():
    model = linear_model(attributes=True)
    model.sampler = GuidedSampler(steps=10, strength=50.0, present=[3], absent=[0], progress=False)
    assert model.conditions == frozenset(), "the same is asked of every image"
    torch.manual_seed(0)
    logits = {}
    for strength in (0.0, 50.0):
        model.sampler = GuidedSampler(
            steps=10, strength=strength, by="denoised", present=[3], absent=[0], progress=False
        )
        torch.manual_seed(0)
        logits[strength] = model.classify(model.sample(8))
    assert (logits[50.0][:, 3] > 0).all() and (logits[50.0][:, 0] < 0).all()
    assert (logits[50.0][:, 3] > logits[0.0][:, 3]).all()


@pytest.mark.parametrize(
    ("model", "options", "said"),
    [
        (Diffusion(SPEC), {}, "no classifier that could guide; use model=joint_diffusion"),
        (linear_model(), {"present": [1]}, "attributes=false"),
        (linear_model(attributes=True), {"present": [4]}, "numbers from 0 to 3"),
        (linear_model(attributes=True), {"present": [2], "absent": [2]}, "each is named once"),
        (linear_model(), {"guidance": 2.0}, "guidance=2.0"),
    ],
)
def test_a_sampler_that_cannot_guide_the_model_is_refused(model, options, said):
    with pytest.raises(ValueError, match=said):
        model.sampler = GuidedSampler(steps=5, **options)
