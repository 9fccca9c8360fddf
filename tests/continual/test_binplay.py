"""BinPlay: codes of places, assignments, and a decoder that gives images back from their places alone."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch
from processes import start
from test_runs import TINY, weights
from toys import assert_same_state, make_trainer, walk

from datamodules.synthetic import SyntheticData
from datamodules.tasks import ClassSplit
from lit_gen import BinPlay, Classifier
from lit_gen.continual.assignment import ASSIGN, auction, greedy, hungarian
from lit_gen.continual.binplay import Epochs
from lit_gen.continual.place_codes import LegacyCodes, UniqueCodes, smallest_distance
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Batch, ImageSpec, InputError, Task
from lit_gen.nets.binplay import BinPlayDecoder, DropoutLeNet
from lit_gen.nets.conv import ConvEncoder

SPEC = ImageSpec(1, 8, 4)


def made(num_tasks, *args, **settings) -> BinPlay:
    return BinPlay(SPEC, num_tasks, Classifier(SPEC, DropoutLeNet(1, 4, 8)), *args, **settings)


def test_unique_codes_are_a_bijection_of_a_million_places():
    codes, place = UniqueCodes(200, seed=3), torch.arange(1_000_000)
    word = codes.scattered(place)
    assert word.unique().numel() == len(place) and codes.gathered(word).equal(place)
    code = codes(place[:3000])
    assert smallest_distance(code) > 50  # of 200; codes drawn at random would be as near
    assert abs(float(code.mean())) < 0.01 and float(code.mean(0).abs().max()) < 0.1
    assert not UniqueCodes(200, seed=4)(place[:9]).equal(code[:9])
    small = UniqueCodes(8)
    assert small(torch.arange(256)).unique(dim=0).shape == (256, 8)
    with pytest.raises(InputError, match="256 places"):
        small(torch.arange(257))


def test_legacy_codes_are_the_formula_with_its_period():
    codes = LegacyCodes(200)
    primes = (
        3,
        5,
        7,
        11,
        13,
        17,
        19,
        23,
        29,
        31,
        37,
        41,
        43,
        47,
        53,
        59,
        61,
        67,
        71,
        73,
        79,
        83,
        89,
        97,
        101,
    )
    multipliers = [243, 125, 49, 121, 169, *primes[5:]]
    for place in (0, 1, 77, 6399, 123_456):
        bits = [
            2 * int(bit) - 1
            for multiplier in multipliers
            for bit in f"{place * multiplier % 2**200 // 25 % 256:08b}"
        ]
        assert codes(torch.tensor([place])).tolist() == [bits]
    code = codes(torch.arange(2 * codes.num_places))
    assert codes.num_places == 6400 and code[:6400].equal(code[6400:])
    assert code[:6400].unique(dim=0).shape[0] == 6400


def test_the_smallest_distance_is_that_of_all_pairs():
    code = torch.randn(1100, 9, generator=torch.Generator().manual_seed(0)).sign()[:, :9]
    distances = torch.cdist(code[:30], code[:30], p=1) / 2
    expected = distances[~torch.eye(30, dtype=torch.bool)].min()
    assert smallest_distance(code[:30]) == expected


def test_assignments_keep_their_bounds():
    generator = torch.Generator().manual_seed(1)
    for rows, columns in ((4, 6), (40, 300), (5, 5), (1, 3)):
        cost = torch.rand(rows, columns, generator=generator) * 100
        cost[:, -1] = torch.inf if columns > rows else cost[:, -1]
        total = {}
        for name, assign in ASSIGN.items():
            chosen = assign(cost)
            assert chosen.unique().numel() == rows
            total[name] = float(cost[torch.arange(rows), chosen].sum())
        assert total["hungarian"] <= total["greedy"] + 1e-3
        assert total["hungarian"] - 1e-3 <= total["auction"] <= total["hungarian"] + rows * 0.5 + 1e-3
        if rows < 6:
            best = min(
                float(cost[torch.arange(rows), list(p)].sum()) for p in permutations(range(columns), rows)
            )
            assert total["hungarian"] == pytest.approx(best)
        left, expected = cost.clone(), []
        for row in left:  # one after the other
            expected.append(int(row.argmin()))
            left[:, expected[-1]] = torch.inf
        assert greedy(cost).tolist() == expected
    tie = torch.zeros(3, 5)
    assert all(f(tie).unique().numel() == 3 for f in (greedy, hungarian, auction))


@pytest.mark.parametrize(
    ("net", "count"),
    [
        (lambda: ConvEncoder(1, 28, 200, hidden=None), 502_696),
        (lambda: ConvEncoder(3, 32, 200, hidden=None), 503_272),
        (lambda: BinPlayDecoder(1, 28, 200, 10), 1_217_796),
        (lambda: BinPlayDecoder(3, 32, 200, 10), 1_609_988),
    ],
)
def test_the_published_nets_have_their_numbers_of_parameters(net, count):
    net = net()
    assert sum(part.numel() for part in net.parameters()) == count
    if isinstance(net, BinPlayDecoder):
        shape = (3, 32, 32) if count > 1_500_000 else (1, 28, 28)
        assert net(torch.randn(2, 200), torch.zeros(2, 10)).shape == (2, *shape)


def test_the_classifier_takes_any_size_from_8_on():
    features, logits = DropoutLeNet(1, 10, 28)(torch.zeros(2, 1, 28, 28))
    assert features.shape == (2, 84) and logits.shape == (2, 10)
    with pytest.raises(ValueError, match="size=7"):
        DropoutLeNet(1, 10, 7)


def trained(num_tasks=2, **settings) -> tuple[BinPlay, SyntheticData]:
    torch.manual_seed(0)
    data = SyntheticData(
        spec=SPEC, split=ClassSplit(num_tasks), num_tasks=num_tasks, num_images=60, batch_size=15
    )
    data.setup()
    settings = {"epochs": Epochs(5, 40, 1), "code_weight": 1.0, "repeats": 2} | settings
    model = made(num_tasks, UniqueCodes(64), **settings)
    fit_stages(make_trainer(), model, data)
    return model, data


def test_a_stream_beyond_the_codes_is_refused_before_its_first_task():
    torch.manual_seed(0)
    data = SyntheticData(spec=SPEC, split=ClassSplit(2), num_tasks=2, num_images=80)
    data.setup()
    model = made(2, UniqueCodes(7))  # 64 places
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(InputError, match="place 79: unique codes of 7 bits are there for 64 places"):
        model.phases(data.tasks[1])
    with pytest.raises(InputError, match=r"num_bits="):
        fit_stages(make_trainer(), model, data)
    assert all(value.equal(before[name]) for name, value in model.state_dict().items())
    made(2, LegacyCodes()).phases(Task(1, "late", (0, 0, 5, 5), 10**6, 10))  # these come again


@pytest.mark.slow
def test_a_decoder_that_memorised_gives_images_back_from_their_places():
    model, data = trained()
    first, count = 0, []
    for task in data.tasks:
        images = data.dataset("train", [task.index]).__getitems__(list(range(task.num_images)))
        batch = Batch.ready(images)
        drawn = model.at(first + torch.arange(task.num_images))
        # Some place gives every image, by the bijection of places and images that was chosen.
        distance = torch.cdist(drawn.flatten(1), batch.image.flatten(1))
        nearest = distance.argmin(0)
        count.append(nearest.unique().numel() / task.num_images)
        first += task.num_images
    assert min(count) > 0.6  # places that are nearest to an image of their own
    assert model.own.number.numel() == 0
    with pytest.raises(InputError, match="has seen 60 images"):
        model.at(torch.tensor([60]))


def test_every_image_of_a_task_has_a_code_of_its_own_and_learns_it():
    model, data = made(2, UniqueCodes(64)), SyntheticData(spec=SPEC, num_images=30)
    data.setup()
    task = data.tasks[0]
    model.past.note(task)
    model._forget(task)
    batch = Batch.ready(data.dataset("train", [0]).__getitems__(list(range(30))))
    model.look_at(task, batch, 1.0)
    model.choose(task)
    assert sorted(model.own.number.tolist()) == list(range(30))
    pairs = model.with_past(task, batch)
    assert pairs.code.equal(model.codes(model.own.number)) and pairs.image is batch.image
    later = Task(1, "later", (0, 0, 15, 15), 30, 30)
    model.past.close(task)
    model.batch_size, model.repeats = 6, 4
    mixed = model.with_past(later, batch._replace(index=batch.index + 30, task=batch.task + 1))
    assert len(mixed.code) == 24 and mixed.task.tolist() == 4 * [1, 1, 1, 0, 0, 0]
    past = mixed.task == 0
    assert mixed.code[past].equal(model.codes(torch.arange(12)))  # place after place
    expected = model.decoder_before(mixed.code[past], model.told(mixed.task[past]))
    torch.testing.assert_close(mixed.image[past], expected)


def test_a_task_is_told_by_ten_bits_of_its_multiple():
    told = made(5).told(torch.arange(5))
    assert told.tolist() == [[int(bit) for bit in f"{task * 307 % 1024:010b}"] for task in range(5)]


def test_targets_of_the_classifier_are_labels_and_what_it_said_before():
    model = made(2)
    image, label = torch.randn(4, 1, 8, 8), torch.tensor([1, -1, 3, -1])
    for each in (model.classifier, model.classifier_before.net):
        each.eval()
    batch = Batch(image, label, label, label)
    said = model.classify(image).softmax(1)
    expected = torch.zeros(4, 4)
    expected[0, 1] = expected[2, 3] = 1
    expected[1], expected[3] = said[1], said[3]  # the same classifier still
    loss = model.class_loss(batch, 0.0)["loss"]
    assert float(loss) == pytest.approx(float((said - expected).square().mean()))
    assert math.isfinite(float(loss)) and float(loss) > 0


@pytest.mark.slow
def test_a_resume_inside_any_phase_changes_nothing(tmp_path):
    def model():
        torch.manual_seed(0)
        return made(2, UniqueCodes(32), epochs=Epochs(2, 2, 2), free_epochs=0, repeats=1)

    whole, *_ = walk(tmp_path / "whole", model=model())
    copies = sorted((tmp_path / "whole").glob("copy-*.ckpt"))
    assert len(copies) >= 12  # of two tasks with three phases that train, each for two epochs
    for number, copy in enumerate(copies[:-1:2]):  # one inside each phase
        resumed, *_ = walk(tmp_path / f"resumed-{number}", copy, model())
        assert_same_state(whole, resumed)


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    words = [word for word in TINY if not word.startswith(("model", "judges", "data.batch"))]
    words += [
        "model=binplay",
        "judges=[]",
        "data.global_batch_size=8",
        "model.repeats=1",
        "model.free_epochs=0",
    ]
    words += ["model.epochs={codes: 1, decoder: 1, classifier: 1}", "model.codes.num_bits=32"]
    one, two = tmp_path / "one", tmp_path / "two"
    start("train", *words, f"output_dir={one}").ended()
    both = ["trainer=ddp", "trainer.accelerator=cpu", "trainer.devices=2"]
    start("train", *words, *both, f"output_dir={two}").ended()
    one, two = weights(one), weights(two)
    compared = [name for name in one if name.startswith(("encoder", "decoder.", "past"))]
    assert len(compared) > 12
    for name in compared:
        # Adam turns rounding in gradients of almost nothing into steps, of few weights.
        error = (one[name] - two[name]).abs().float()
        assert float(error.mean()) < 1e-6 and float(error.max()) < 2e-3, name
