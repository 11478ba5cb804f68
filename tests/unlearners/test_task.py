from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unlearnbench.models.batches import Augmentation, Batches
from unlearnbench.models.recipe import TrainingRecipe
from unlearnbench.unlearners.task import UnlearningTask
from unlearnbench.unlearners.toy_problem import small_problem

RECIPE = TrainingRecipe(epochs=1, batch_size=5, learning_rate=0.1)


def task_of(**options: Any) -> UnlearningTask:
    images = torch.arange(24, dtype=torch.uint8)[:, None, None, None].expand(24, 1, 2, 2).contiguous()
    data = Batches(images, torch.arange(24) % 4, [0.0], [1.0], Augmentation())
    return UnlearningTask(data, (1, 3), 4, RECIPE, 0, lambda: nn.Linear(1, 1), **options)


def numbers(images: Tensor) -> list[int]:
    """Return which images these are; image i has the value i / 255 everywhere."""
    return (images[:, 0, 0, 0] * 255).round().int().tolist()


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("all", range(24)),
        ("forget", [i for i in range(24) if i % 4 in (1, 3)]),
        ("retain", [i for i in range(24) if i % 4 in (0, 2)]),
    ],
)
def test_an_epoch_gives_every_image_of_its_kind_once(kind: Any, expected: Any) -> None:
    task = task_of()
    batches = list(task.batches(1, kind))
    assert sorted(number for images, _ in batches for number in numbers(images)) == list(expected)
    assert all(
        number % 4 == label for images, labels in batches for number, label in zip(numbers(images), labels, strict=True)
    )
    assert len(batches) == task.steps(kind)
    assert task.size(kind) == len(list(expected))


def test_an_epoch_of_some_images_gives_these_alone() -> None:
    task = task_of()
    # The retain images are 0, 2, 4 and so on.
    batches = list(task.batches(1, "retain", only=torch.tensor([5, 0, 3, 1, 2, 4])))
    assert [len(labels) for _, labels in batches] == [6]
    assert sorted(numbers(batches[0][0])) == [0, 2, 4, 6, 8, 10]
    assert task.image_passes == {"forget": 0, "retain": 6}
    assert task.details == {"joined_batch": 6}


def test_a_batch_that_takes_in_a_single_image_is_reported() -> None:
    task = task_of()
    sizes = [len(labels) for _, labels in task.batches(1, batch_size=23)]
    assert (sizes, task.steps(batch_size=23), task.details) == ([24], 1, {"joined_batch": 24})
    task = task_of()
    assert [len(labels) for _, labels in task.batches(1, batch_size=22)] == [22, 2]
    assert task.details == {}


def test_epochs_differ_in_order_and_repeat_with_the_seed() -> None:
    first = [numbers(images) for images, _ in task_of().batches(2, batch_size=24)]
    assert first == [numbers(images) for images, _ in task_of().batches(2, batch_size=24)]
    assert first[0] != first[1]


def test_an_epoch_is_the_same_whether_asked_for_alone_or_with_others() -> None:
    task = task_of()
    one_by_one = [numbers(images) for _ in range(2) for images, _ in task.batches(1, batch_size=24)]
    assert one_by_one == [numbers(images) for images, _ in task_of().batches(2, batch_size=24)]


def test_images_that_go_out_are_counted_by_kind() -> None:
    task = task_of()
    list(task.batches(2))
    assert task.image_passes == {"forget": 24, "retain": 24}
    task.images_of(3)
    assert task.image_passes == {"forget": 30, "retain": 24}
    list(task.plain("retain"))
    task.count(torch.tensor([0, 1, 2]))
    assert task.image_passes == {"forget": 31, "retain": 38}


def test_a_batch_that_is_never_asked_for_is_not_counted() -> None:
    task = task_of()
    next(task.batches(1))
    assert sum(task.image_passes.values()) == 5


def test_pixels_and_normalise_undo_each_other() -> None:
    data = Batches(
        torch.randint(256, (3, 3, 4, 4), dtype=torch.uint8), torch.arange(3), [0.4] * 3, [0.2] * 3, Augmentation()
    )
    task = UnlearningTask(data, (1,), 3, RECIPE, 0, lambda: nn.Identity())
    images = task.images_of(1)
    assert torch.allclose(task.normalise(task.pixels(images)), images, atol=1e-5)
    assert task.pixels(images).min() >= -1e-6


def test_kept_results_are_computed_once_and_their_cost_counts_each_time() -> None:
    shelf: dict[str, Any] = {}

    def keep(name: str, settings: Any, compute: Any) -> Any:
        if name not in shelf:
            tensors, facts = compute()
            shelf[name] = tensors, {**facts, "id": "one"}
        return shelf[name]

    tasks = [task_of(keep=keep), task_of(keep=keep)]
    for task in tasks:

        def compute(task: UnlearningTask = task) -> tuple[dict[str, Tensor], dict[str, Any]]:
            task.images_of(1)
            return {"mask": torch.ones(2)}, {"share": 0.5}

        tensors, facts = task.keep("relevance", {}, compute)
        assert torch.equal(tensors["mask"], torch.ones(2))
        assert facts["share"] == 0.5
        assert task.image_passes == {"forget": 6, "retain": 0}
        assert task.details == {"kept": {"relevance": "one"}}


def reachable_images(value: object, seen: set[int]) -> Iterator[Tensor]:
    """Yield every uint8 image tensor that a value leads to, through attributes, containers, closures and methods."""
    if id(value) in seen or isinstance(value, (str, bytes, int, float, type(None), type)):
        return
    seen.add(id(value))
    if isinstance(value, Tensor):
        if value.dtype == torch.uint8 and value.dim() >= 4:
            yield value
        return
    parts: list[object] = [getattr(value, "__self__", None), getattr(value, "__wrapped__", None)]
    parts += [cell.cell_contents for cell in getattr(value, "__closure__", None) or ()]
    parts += [*getattr(value, "args", ())] if type(value).__name__ == "partial" else []
    if isinstance(value, dict):
        parts += list(value.values())
    elif isinstance(value, (list, tuple, set, frozenset)):
        parts += list(value)
    if any(kind.__module__.startswith("unlearnbench") for kind in type(value).__mro__):
        parts += list(vars(value).values()) if hasattr(value, "__dict__") else []
    for part in parts:
        yield from reachable_images(part, seen)


def stored_bytes(task: UnlearningTask) -> int:
    """Return the bytes of all images that a task leads to, counting whole storages instead of the views of them."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in reachable_images(task, set())}
    return sum(storages.values())


def test_the_walk_finds_images_behind_a_closure() -> None:
    hidden = torch.zeros(1000, 1, 8, 8, dtype=torch.uint8)
    task = task_of(advance=lambda images: hidden.fill_(images))
    assert stored_bytes(task) == 24 * 4 + 64_000


def test_a_task_of_the_conformance_check_leads_to_the_limited_images_alone() -> None:
    task = small_problem().task()
    assert stored_bytes(task) == task.size() * 8 * 8
