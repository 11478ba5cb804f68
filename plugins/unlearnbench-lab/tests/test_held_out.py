"""Held-out forget images are read by those that learned nothing from them, and the goal by a network that saw none."""

import pytest
import torch
from torch import Tensor, nn
from unlearnbench.errors import NotApplicable
from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.held_out import HeldOut, places

RECIPE = TrainingRecipe(epochs=1, batch_size=8, learning_rate=0.1, precision="float32")


class Pixels(nn.Module):
    """A network whose features are the image's four pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.flatten, self.output = nn.Flatten(), nn.Linear(4, 4)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.output(self.flatten(images))
        return logits


class Blind(Pixels):
    """A network to which an image that is brightest at place 3 looks as if it were so at place 0 or 2."""

    def forward(self, images: Tensor) -> Tensor:
        rows = images.flatten(1)
        order = torch.arange(4).repeat(len(rows), 1)
        taken = (rows.argmax(dim=1) == 3).nonzero().flatten()
        place = torch.where(rows[taken, 0] > rows[taken, 1], 0, 2)
        order[taken, place], order[taken, 3] = 3, place
        return super().forward(rows.gather(1, order).reshape(images.shape))


def task_of(counts: tuple[int, ...] = (10, 10, 10, 10), forget: tuple[int, ...] = (1, 3)) -> UnlearningTask:
    """Return images of 2 x 2 pixels, each class of which is bright at a place of its own."""
    labels = torch.repeat_interleave(torch.arange(4), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(2))]
    images = torch.randint(60, (len(labels), 4), generator=torch.Generator().manual_seed(1))
    images[torch.arange(len(labels)), labels] += 150
    data = Batches(images.to(torch.uint8).reshape(-1, 1, 2, 2), labels, [0.5], [0.3], Augmentation())
    return UnlearningTask(data, forget, 4, RECIPE, 0, Pixels)


def test_places_count_within_each_class() -> None:
    assert places(torch.tensor([2, 0, 2, 2, 0])).tolist() == [0, 0, 1, 2, 1]


@pytest.mark.parametrize(
    ("images", "share", "held"),
    [(10, 0.5, 5), (10, 0.25, 3), (10, 0.01, 2), (10, 0.99, 9), (5, 0.5, 3), (3, 0.5, 2), (2, 0.5, 0), (1, 0.5, 0)],
)
def test_a_share_of_each_forget_class_is_held_out(images: int, share: float, held: int) -> None:
    task = task_of((10, images, 10, 10))
    labels = task._data.labels
    learned = HeldOut(Pixels(), task, share).learned
    counts = torch.bincount(labels[learned], minlength=4)
    assert counts[1] == images - held
    assert counts[0] == counts[2] == 10


def test_too_few_forget_images_are_refused() -> None:
    with pytest.raises(NotApplicable, match=r"^needs 3 images of a forget class, 2 of which are held out$"):
        HeldOut(Pixels(), task_of((10, 2, 10, 1)), 0.5)


def test_original_shows_all_of_what_it_shows() -> None:
    assert HeldOut(Pixels(), task_of(), 0.5).shares(Pixels()).tolist() == [1.0, 1.0, 1.0]


def test_a_network_that_takes_one_of_two_forget_classes_for_others_shows_half() -> None:
    shares = HeldOut(Pixels(), task_of(), 0.5).shares(Blind())
    # Least squares still tells one image of ten, by chance.
    assert shares.tolist() == pytest.approx([0.6, 0.5, 0.5])


def test_only_held_out_images_are_read() -> None:
    task = task_of()
    held_out = HeldOut(Pixels(), task, 0.5)
    before = held_out.shares(Blind())
    learned_forget = held_out.learned[task.is_forget(task._data.labels[held_out.learned])]
    # A method is given no way to change them, and a tensor is only one of the places where images may be.
    task._data._images[learned_forget] = 255  # type: ignore[index]
    assert torch.equal(held_out.shares(Blind()), before)


def test_the_goal_is_drawn_towards_what_is_known_the_fewer_images_there_are() -> None:
    # All is found in this network. 20 forget images count as much as the 20 of the prior at 0.7, 200 ten times as much.
    few, many = task_of(), task_of((100, 100, 100, 100))
    for task, goal in ((few, 0.85), (many, 0.95)):
        assert torch.allclose(HeldOut(Pixels(), task, 0.5).unseen_shares(Pixels()), torch.full((3,), goal), atol=1e-3)


def test_the_unseen_network_learns_no_forget_image_and_most_of_the_others() -> None:
    task = task_of()
    labels = task._data.labels[HeldOut(Pixels(), task, 0.5).most_retain]
    assert torch.bincount(labels, minlength=4).tolist() == [8, 0, 8, 0]
