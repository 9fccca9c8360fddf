"""The walk over stages: who is called when, what trains, and that a resume changes nothing."""

from __future__ import annotations

import pytest
import torch
from lightning import Callback
from toys import CopyingCheckpoints, ToyGenerator, assert_same_state, make_data, make_trainer, walk

from callbacks.task_switch import TaskSwitch
from lit_gen.core.stages import check_stages, fit_stages
from lit_gen.core.types import InputError, Phase, Turn


def test_phases_run_in_order_with_begin_and_end_and_epochs_go_on_counting(tmp_path):
    model, trainer, tested = walk(tmp_path)
    assert model.calls == ["begin warmup 0", "close 0", "begin warmup 1", "close 1"]
    assert trainer.current_epoch == 8  # 2 tasks x 2 phases x 2 epochs
    assert tested == [0, 1]
    assert (tmp_path / "task-0.ckpt").exists() and (tmp_path / "task-1.ckpt").exists()


def test_only_what_the_phase_trains_moves_and_is_in_training_mode():
    model = ToyGenerator()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = {}

    class Look(Callback):
        def on_train_batch_end(self, trainer, module, *_):
            seen[module.phase.name] = (module.first.training, module.second.training)
            if module.phase.name == "warmup" and module.tasks_closed == 0:
                seen["second"] = torch.equal(module.second.weight, before["second.weight"])
                seen["gradient"] = module.second.weight.grad

    fit_stages(make_trainer(Look()), model, make_data())
    assert seen == {"warmup": (True, False), "main": (True, True), "second": True, "gradient": None}
    assert not torch.equal(model.second.weight, before["second.weight"])


def test_resuming_with_accumulated_gradients_gives_the_same_bits(tmp_path):
    whole, _, _ = walk(tmp_path / "whole", accumulate_grad_batches=2)
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) == 10  # eight epochs and the end of two tasks
    for number, copy in enumerate(copies[::3]):  # in each phase, and the last
        resumed, trainer, tested = walk(
            tmp_path / f"resumed-{number}", ckpt_path=copy, accumulate_grad_batches=2
        )
        assert trainer.current_epoch == 8
        assert trainer.global_step == torch.load(copies[-1], weights_only=True)["global_step"]
        assert tested[-1] == 1
        assert_same_state(whole, resumed)


def test_each_epoch_sees_other_images_of_the_task_the_same_ones_after_a_resume(tmp_path):
    looks = []

    class Looker(ToyGenerator):
        def phases(self, task):
            def note(t, look):
                batches = look(20)
                looks.append(
                    (self.trainer.current_epoch, t.index, torch.cat([b.index for b in batches]).tolist())
                )

            return (Phase.single("main", self.step, (self.first, self.second), 2, each_epoch=note),)

    walk(tmp_path / "a", model=Looker())
    assert [(epoch, task) for epoch, task, _ in looks] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    assert len(set(looks[0][2])) == 20 and set(looks[0][2]) != set(looks[1][2])
    assert not set(looks[0][2]) & set(looks[2][2])
    first = list(looks)
    looks.clear()
    walk(tmp_path / "b", ckpt_path=tmp_path / "a" / "copy-00.ckpt", model=Looker())
    assert looks == first[1:]


def test_a_phase_that_trains_nothing_passes_once_over_the_tasks_images(tmp_path):
    class Counter(ToyGenerator):
        def __init__(self):
            super().__init__()
            self.register_buffer("seen", torch.zeros(2, dtype=torch.long))

        def phases(self, task):
            def count(batch, progress):
                self.seen[task.index] += len(batch.image)
                return {}

            train = Phase.single("main", self.step, (self.first, self.second), 1)
            return train, Phase("count", (Turn("count", count, ()),))

    model, _, _ = walk(tmp_path, model=Counter())
    assert model.seen.tolist() == [task.num_images for task in make_data().tasks]


def test_progress_runs_over_the_span_of_the_phase():
    progress = []

    class Spanned(ToyGenerator):
        def phases(self, task):
            def loss(batch, done):
                progress.append(done)
                return self.step(batch, done)

            return (
                Phase.single("a", loss, (self,), 1, span=(0.0, 0.25)),
                Phase.single("b", loss, (self,), 3, span=(0.25, 1.0)),
            )

    data = make_data(num_tasks=1)
    fit_stages(make_trainer(), Spanned(), data)
    expected = torch.arange(len(progress)) / len(progress)  # both phases go at one pace
    torch.testing.assert_close(torch.tensor(progress), expected)


class ByHand(ToyGenerator):
    def phases(self, task):
        return (Phase.single("main", self.step, (self,), 2, chunk=16),)


def test_turns_by_hand_clip_and_schedule_like_lightning_does(tmp_path):
    """A phase of one turn, run by hand because of `chunk`, equals the automatic one."""

    class Automatic(ToyGenerator):
        def phases(self, task):
            return (Phase.single("main", self.step, (self,), 2),)

    settings = {"gradient_clip_val": 0.05, "gradient_clip_algorithm": "value"}
    a, _, _ = walk(tmp_path / "a", model=ByHand(), **settings)
    b, _, _ = walk(tmp_path / "b", model=Automatic(), **settings)
    assert_same_state(a, b)


def test_turns_alternate_and_every_counts_batches():
    class TwoTurns(ToyGenerator):
        def phases(self, task):
            def loss(name):
                def inner(batch, progress):
                    self.calls.append(name)
                    grads = [p.requires_grad for p in (*self.first.parameters(), *self.second.parameters())]
                    self.calls.append(str(sum(grads)))
                    return self.step(batch, progress)

                return inner

            return (
                Phase(
                    "play",
                    (
                        Turn("critic", loss("critic"), (self.first,)),
                        Turn("maker", loss("maker"), (self.second,), every=3),
                    ),
                    epochs=1,
                ),
            )

    model, data = TwoTurns(), make_data(num_tasks=1)
    fit_stages(make_trainer(), model, data)
    names = model.calls[::2]
    batches = len(data.train_dataloader())
    assert names.count("critic") == batches and names.count("maker") == -(-batches // 3)
    assert names[:3] == ["critic", "maker", "critic"]
    assert set(model.calls[1::2]) == {"4", "2"}  # first: two weights and two of the batch norm; second: two


def test_by_hand_accumulation_is_refused():
    with pytest.raises(InputError, match="accumulate_grad_batches"):
        fit_stages(make_trainer(accumulate_grad_batches=2), ByHand(), make_data())


class TakesTurns(ToyGenerator):
    def phases(self, task):
        turns = (Turn("a", self.step, (self.first,)), Turn("b", self.step, (self.second,)))
        return (Phase("play", turns, 1),)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy": "ddp"}, "takes turns.*trainer=ddp_gan"),
        ({"strategy": {"_target_": "DDPStrategy", "find_unused_parameters": False}}, "takes turns"),
        ({"strategy": "ddp_spawn"}, "several phases.*trainer=ddp"),
        ({"strategy": {"_target_": "DDPStrategy", "start_method": "fork"}}, "several phases"),
        ({"sync_batchnorm": True}, "sync_batchnorm=true: torch has it for CUDA devices only"),
        ({"strategy": "ddp_find_unused_parameters_true"}, None),
        ({"strategy": {"_target_": "DDPStrategy", "find_unused_parameters": True}}, None),
    ],
)
def test_ways_of_sharing_work_that_cannot_carry_the_phases_are_refused(settings, said):
    trainer, model, data = make_trainer(strategy="ddp"), TakesTurns(), make_data()
    if said is None:
        check_stages(trainer, model, data, settings)
    else:
        with pytest.raises(InputError, match=said):
            check_stages(trainer, model, data, settings)


def test_fast_dev_run_takes_one_batch_of_every_phase():
    model = ToyGenerator()
    fit_stages(make_trainer(fast_dev_run=1), model, make_data())
    assert model.calls == ["begin warmup 0", "close 0", "begin warmup 1", "close 1"]


def test_the_switch_seeds_every_batch_by_place():
    """Noise does not depend on what was drawn before the batch."""
    a, b = ToyGenerator(), ToyGenerator()
    fit_stages(make_trainer(), a, make_data())
    torch.manual_seed(123)
    torch.randn(1000)
    fit_stages(make_trainer(), b, make_data())
    assert_same_state(a, b)
    assert isinstance(make_trainer().callbacks[0], TaskSwitch)


@pytest.mark.slow
def test_loader_processes_change_nothing_also_after_a_resume(tmp_path):
    """They ask for the order of images before Lightning says which epoch it is."""

    def ends(folder, workers, ckpt_path=None):
        model, data = ToyGenerator(epochs=1), make_data()
        data.num_workers = workers
        trainer = make_trainer(CopyingCheckpoints(folder, every_seconds=0.0))
        fit_stages(trainer, model, data, ckpt_path=ckpt_path)
        return model

    expected = ends(tmp_path / "none", 0)
    for number in (0, 1):
        found = ends(tmp_path / f"one-{number}", 1, tmp_path / "none" / f"copy-{number:02d}.ckpt")
        assert_same_state(found, expected)
