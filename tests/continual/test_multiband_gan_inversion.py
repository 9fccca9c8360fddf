"""GAN inversion: against least squares, image by image, and what Multiband GAN keeps of it."""

from __future__ import annotations

import torch
from multiband_gan_toys import make_multiband_gan
from multiband_toys import batch_of
from toys import make_data, make_trainer

from lit_gen.continual.multiband_gan_inversion import FoundNoise, find_noise, mean_squared_error
from lit_gen.core.stages import fit_stages
from lit_gen.core.types import Task


def test_it_finds_the_least_squares_solution_of_a_linear_generator():
    torch.manual_seed(0)
    matrix, start = torch.randn(5, 64), torch.randn(6, 5)
    reachable, other = torch.randn(3, 5) @ matrix, torch.randn(3, 64)
    image = torch.cat([reachable, other]).view(6, 1, 8, 8)
    noise, error = find_noise(lambda z: (z @ matrix).view(-1, 1, 8, 8), image, start, 600, 0.1)
    expected = torch.linalg.lstsq(matrix.T, image.flatten(1).T).solution.T
    torch.testing.assert_close(noise, expected, atol=1e-3, rtol=0)
    assert error[:3].max() < 1e-5
    left = (expected @ matrix - image.flatten(1)).square().mean(1)
    torch.testing.assert_close(error, left, atol=1e-5, rtol=1e-4)


def test_an_image_is_searched_on_its_own_and_weights_get_no_gradient():
    model = make_multiband_gan().eval()
    torch.manual_seed(0)
    image, start = torch.rand(4, 1, 8, 8) * 2 - 1, torch.randn(4, 5)
    number = torch.tensor([0, 1, 2, 0])
    generator = model.local.generator
    with torch.no_grad():  # as in a pass without training
        whole, error = find_noise(lambda z: generator(z, number), image, start, 20, 0.1)
        alone, _ = find_noise(lambda z: generator(z, number[1:2]), image[1:2], start[1:2], 20, 0.1)
    torch.testing.assert_close(alone, whole[1:2])
    assert not whole.requires_grad and all(p.grad is None for p in model.parameters())
    before = mean_squared_error(generator(start, number), image)
    assert (error < before).all()


def test_noise_is_kept_at_the_images_place_in_its_task():
    found, number = FoundNoise(4, 2), Task(1, "1", (3,), 7, 3)
    found.forget(number)
    found.keep(torch.tensor([2, 0]), torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([0.5, 0.25]))
    found.keep(torch.tensor([1]), torch.tensor([[5.0, 6.0]]), torch.tensor([0.125]))
    assert found.noise.tolist() == [[3, 4], [5, 6], [1, 2], [0, 0]]
    assert found.error.tolist() == [0.25, 0.125, 0.5, 0]
    found.forget(number)
    assert found.noise.eq(0).all() and found.error.eq(0).all()


def test_a_run_pairs_every_image_of_its_last_task_with_noise():
    data = make_data(num_tasks=2)
    model = make_multiband_gan(2, current_pairs="inversion", inversion_steps=5, max_images=100)
    fit_stages(make_trainer(), model, data)
    model.eval()
    last = data.tasks[1]
    assert (
        model.found.noise[: last.num_images].ne(0).all() and model.found.noise[last.num_images :].eq(0).all()
    )
    batch = batch_of(data, 1, last.num_images)
    with torch.no_grad():  # the local generator is still the one that was inverted
        drawn = model.local.generator(model.found.noise[: last.num_images], batch.task)
    error = mean_squared_error(drawn, batch.image)
    torch.testing.assert_close(model.found.error[: last.num_images], error)
    order = torch.tensor([3, 0, 9])
    pool = model.with_replay(1, last.first_index, type(batch)(*(field[order] for field in batch)))
    assert torch.equal(pool.noise[-3:], model.found.noise[order])
    assert torch.equal(pool.image[-3:], batch.image[order])
