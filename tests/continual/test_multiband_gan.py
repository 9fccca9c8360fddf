"""Multiband GAN: its phases and what each of them moves, replay, conditions, what it refuses."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
import yaml
from lightning import Callback
from multiband_gan_toys import make_multiband_gan
from multiband_toys import batch_of, snapshot, task
from toys import SPEC, make_data, make_trainer

from lit_gen.cli import CONF
from lit_gen.cli.config import compose
from lit_gen.continual.multiband_gan import Decay, Epochs
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import InputError
from lit_gen.losses.adversarial import gradient_penalty

DATA = make_data(num_tasks=4)


def equal(a, b):
    return all(
        torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    )


# --- the table


def test_the_published_nets_and_schedule_are_the_configs():
    words = ["model=multiband_gan", "net=multiband_gan_conv", "data=mnist", "stream=split_classes"]
    model = compose("train", [*words, "stream.num_tasks=5"]).build("model")
    sizes = [sum(p.numel() for p in net.parameters()) for net in (model.generator, model.local.critic)]
    assert sizes == [716_573, 49_825]
    whole = task(0)._replace(label_counts=(10,) * 4)
    assert [(p.name, p.epochs) for p in model.phases(whole)] == [("local", 320)]
    later = model.phases(whole._replace(index=2))
    assert [(p.name, p.epochs) for p in later] == [("local", 120), ("align_warmup", 5), ("align", 195)]
    critic, generator = later[0].turns
    assert (critic.every, generator.every, model.local.penalty_weight) == (1, 5, 10.0)
    made = critic.optimizer(critic.trains[0].parameters())
    assert made.defaults["lr"] == 2e-4 and made.defaults["betas"] == (0.0, 0.9)
    assert made.defaults["weight_decay"] == 1e-3
    made = model.make_optimizer(generator.trains[0].parameters())
    assert made.defaults["lr"] == 2e-4 and made.defaults["weight_decay"] == 0
    assert later[2].turns[0].optimizer(model.generator.parameters()).defaults["lr"] == 1e-3


def test_inversion_has_a_phase_of_its_own_and_a_warm_up_of_no_length_none():
    model = make_multiband_gan(current_pairs="inversion", epochs=Epochs(3, 2, 0, 2))
    local, invert, align = model.phases(task(1))
    assert [local.name, invert.name, align.name] == ["local", "invert", "align"]
    assert invert.turns[0].trains == ()
    with torch.no_grad():
        for parameter in model.generator.parameters():
            parameter.fill_(0.25)
    for phase in (local, align):
        phase.begin(task(1))
    for copy in (model.local.generator, model.previous):
        assert all(p.eq(0.25).all() for p in copy.parameters())


def test_learning_rates_fall_per_epoch():
    model = make_multiband_gan(epochs=Epochs(), decay=Decay(local=0.99, align=0.98))
    first = model.phases(task(0))[0].schedule
    local, warmup, align = (phase.schedule for phase in model.phases(task(1)))
    assert first(0.0) == 1 and first(319.5 / 320) == pytest.approx(0.99**319)
    assert local(119.5 / 120) == pytest.approx(0.99**119)
    assert warmup(4.5 / 5) == pytest.approx(0.98**4) and align(194.5 / 195) == pytest.approx(0.98**194)


# --- what moves


@pytest.mark.parametrize("is_new", [False, True])
def test_every_phase_moves_its_own_parts_and_starts_from_what_the_algorithm_says(is_new):
    options = {"current_pairs": "inversion", "inversion_steps": 2, "max_images": 100}
    model, seen, same = make_multiband_gan(new_critic_every_task=is_new, **options), {}, {}
    statistics = {}
    first_critic = snapshot(model.local.critic)

    class Watch(Callback):
        def on_train_start(self, trainer, module):
            self.before, key = snapshot(module), (int(module.tasks_seen), module.phase.name)
            nets = (module.local.generator, module.previous.net)
            same[key] = tuple(equal(net, module.generator) for net in nets)
            if key == (1, "local"):
                was = first_critic if is_new else self.critic
                assert all(torch.equal(v, was[n]) for n, v in module.local.critic.state_dict().items())

        def on_train_end(self, trainer, module):
            self.critic, weights = snapshot(module.local.critic), dict(module.named_parameters())
            moved = {n for n, v in module.state_dict().items() if not torch.equal(v, self.before[n])}
            key = (int(module.tasks_seen), module.phase.name)
            seen[key] = {".".join(name.split(".")[:2]) for name in moved & weights.keys()}
            statistics[key[1]] = {name for name in moved - weights.keys() if name.endswith("running_mean")}

    fit_stages(make_trainer(Watch()), model, make_data(num_tasks=3))
    local, translator = {"local.generator", "local.critic"}, {"generator.translator"}
    later = {"local": local, "align_warmup": translator, "align": {*translator, "generator.decoder"}}
    assert seen == {(0, "local"): local} | {(t, name): m for t in (1, 2) for name, m in later.items()}
    assert statistics["align_warmup"] == statistics["align"] == {"generator.decoder.hidden.1.running_mean"}
    assert same[1, "local"][0], "the local generator starts from the global one"
    assert same[1, "align_warmup"] == (False, True), "the frozen one is the global one before the task"
    assert not same[1, "align"][1]
    assert int(model.tasks_seen) == 3


def test_after_the_first_task_the_global_generator_is_the_local_one():
    model = make_multiband_gan(num_tasks=1)
    fit_stages(make_trainer(), model, make_data(num_tasks=1))
    assert int(model.tasks_seen) == 1 and equal(model.generator, model.local.generator)


# --- losses


@pytest.mark.parametrize("condition", ["task", "label"])
def test_the_critics_loss_is_its_formula_with_the_penalty_between_the_same_images(condition):
    model, batch = make_multiband_gan(condition=condition).eval(), batch_of(DATA, 2)
    torch.manual_seed(3)
    terms = model.local.critic_loss(batch, 0.0)
    torch.manual_seed(3)
    value = batch.label if condition == "label" else batch.task
    fake = model.local.generator(torch.randn(16, 5), value).detach()
    told = torch.eye(4)[batch.label] if condition == "label" else None

    def score(image):
        return model.local.critic(image, told).flatten()

    penalty = gradient_penalty(score, batch.image, fake).mean()
    expected = score(fake).mean() - score(batch.image).mean() + 10 * penalty
    torch.testing.assert_close(terms["loss"], expected)
    torch.testing.assert_close(terms["penalty"], penalty)


def test_aligning_costs_the_mean_squared_error_per_pixel():
    model = make_multiband_gan(num_tasks=4).eval()
    pool = model.with_replay(3, DATA.tasks[3].first_index, batch_of(DATA, 3))
    terms = model.align_loss(pool, 0.0)
    with torch.no_grad():
        image = model.generator(pool.noise, pool.condition) * 0.9
        pool = pool._replace(image=image + 0.1 * torch.randn_like(image))
    terms = model.align_loss(pool, 0.0)
    drawn, past = model.generator(pool.noise, pool.condition), pool.is_replayed
    torch.testing.assert_close(terms["loss"], F.mse_loss(drawn, pool.image))
    torch.testing.assert_close(terms["replayed"], F.mse_loss(drawn[past], pool.image[past]).detach())
    torch.testing.assert_close(terms["current"], F.mse_loss(drawn[~past], pool.image[~past]).detach())


def test_evaluation_compares_scores_of_images_of_local_draws_and_of_samples():
    model, batch = make_multiband_gan(num_tasks=4).eval(), batch_of(DATA, 1)
    with torch.no_grad():
        model.generator.decoder.last.bias.fill_(1.0)
        model.tasks_seen.fill_(4)
        torch.manual_seed(2)
        terms = model.evaluate(batch)
        torch.manual_seed(2)
        local, drawn = model.local.generated(16, batch.task), model.sample(16, task=batch.task)
        real, local, drawn = (model.local.critic(image).mean() for image in (batch.image, local, drawn))
    torch.testing.assert_close(terms["gap"], real - local)
    torch.testing.assert_close(terms["critic"], local - real)
    torch.testing.assert_close(terms["generator"], -local)
    torch.testing.assert_close(terms["gap_of_samples"], real - drawn)


# --- what it promises


def test_absorbed_tasks_come_from_the_global_generator_and_others_from_the_local_one():
    model = make_multiband_gan().eval()
    model.tasks_seen.fill_(1)
    with torch.no_grad():
        model.local.generator.decoder.last.bias.fill_(9.0)
        model.generator.decoder.last.bias.fill_(-9.0)
    images = model.sample(4, task=torch.tensor([0, 1, 0, 1])).flatten(1).mean(1)
    assert (images > 0).tolist() == [False, True, False, True]


def test_points_of_the_latent_map_are_translated_noise():
    model, numbers = make_multiband_gan().eval(), torch.tensor([0, 2, 1])
    torch.manual_seed(4)
    points = model.translated(numbers)
    torch.manual_seed(4)
    assert torch.equal(points, model.generator.translator(torch.randn(3, 5), numbers).detach())


# --- what it refuses


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 1}, "batch_size=1.*data.batch_size"),
        ({"num_tasks": 30}, "each of 25 past"),
        ({"condition": "label", "spec": SPEC._replace(num_classes=0), "told": 0}, "no labels"),
        ({"condition": "label", "told": 0}, "condition_size=0.*4 classes"),
        ({"told": 4}, "condition_size=4.*0 classes"),
    ],
)
def test_settings_that_cannot_work_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        make_multiband_gan(**options)


def test_tasks_that_cannot_be_learned_are_refused_before_the_first_step():
    model = make_multiband_gan(current_pairs="inversion", max_images=39)
    with pytest.raises(InputError, match=r"max_images=39.*40 training images"):
        model.phases(task(0))
    with pytest.raises(InputError, match=r"41 training images and 40 labels.*labelled_share"):
        make_multiband_gan(condition="label").phases(task(0)._replace(num_images=41))
    with pytest.raises(InputError, match="task after task"):
        fit_stages(make_trainer(), make_multiband_gan(num_tasks=2), make_data(num_tasks=2, joint=True))


# --- the published rows

# FID, "precision" and "recall" as the authors print them (README, December 2023); three of the rows.
PRINTED = {"celeba_dirichlet100": (37, 80, 83), "cifar10_ci5": (43, 92, 79), "cifar100_ci20": (144, 77, 52)}


def test_published_precision_and_recall_are_put_in_their_right_places():
    rows = yaml.safe_load((CONF / "paper" / "multiband_gan.yaml").read_text())["rows"]
    published = {name: row["published"] for name, row in rows.items()}
    found = {name: (row["fid"], row["prd_recall"], row["prd_precision"]) for name, row in published.items()}
    assert found.items() >= PRINTED.items()
