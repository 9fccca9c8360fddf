"""How much a continual method keeps of the past beside the networks that learn, against a count by hand."""

from __future__ import annotations

from multiband_gan_toys import NOISE, make_multiband_gan
from multiband_toys import make_multiband
from toys import ToyGenerator, make_data, make_trainer

from lit_gen.continual.replay import GenerativeReplay
from lit_gen.continual.separate import SeparateModels
from lit_gen.core.stages import fit_stages


def state_bytes(module) -> int:
    return sum(value.numel() * value.element_size() for value in module.state_dict().values())


def test_a_model_that_keeps_nothing_says_so():
    assert ToyGenerator().memory_bytes() == {"images": 0, "parameters": 0, "codes": 0}


def test_replay_keeps_its_teacher_and_the_images_of_its_pool(monkeypatch):
    learner, found = ToyGenerator(1), []
    model = GenerativeReplay(learner, 2, replay="pool", pool_size=40)
    monkeypatch.setattr(
        GenerativeReplay, "on_train_epoch_end", lambda self: found.append(self.memory_bytes())
    )
    fit_stages(make_trainer(), model, make_data())
    drawn = 40 * (1 * 8 * 8 + 3 * 8)  # pixels as uint8; label, task and index
    assert [kept["images"] for kept in found] == [0, 0, drawn, drawn]
    assert {kept["parameters"] for kept in found} == {state_bytes(learner)}


def test_multiband_keeps_one_generator_and_the_shares_of_bits():
    model = make_multiband(num_tasks=3)
    bits = 3 * (2 + 1) * 4  # of three tasks, and the images behind them
    assert model.memory_bytes() == {"images": 0, "parameters": state_bytes(model.band), "codes": bits}
    inverts = make_multiband_gan(current_pairs="inversion", max_images=50)
    expected = {"images": 0, "parameters": state_bytes(inverts.generator), "codes": 50 * (NOISE + 1) * 4}
    assert inverts.memory_bytes() == expected


def test_separate_models_keep_all_but_the_one_that_learns():
    learner = ToyGenerator()
    one = 4 * sum(weight.numel() for weight in learner.parameters())
    assert SeparateModels(learner, 4).memory_bytes()["parameters"] == 3 * one
    assert SeparateModels(GenerativeReplay(learner, 2), 1).memory_bytes()["parameters"] == state_bytes(
        learner
    )
