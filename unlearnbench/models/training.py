"""Training of the reference models, Original and FDR, by the recipe of a manifest."""

from __future__ import annotations

import hashlib
import io
import math
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from unlearnbench.errors import TrainingFailedError, unreadable
from unlearnbench.files import held
from unlearnbench.machine import Precision, cpu_precision
from unlearnbench.models.batches import ALONE, Augmentation, Batches, Share, resized
from unlearnbench.models.build import STREAMS
from unlearnbench.models.checkpoints import misfits
from unlearnbench.models.recipe import TrainingRecipe, full_size_epochs, pixel_share
from unlearnbench.seeds import derived_seed
from unlearnbench.terms import REFERENCES

CHECKPOINT_SECONDS = 30.0


def augmentation(recipe: TrainingRecipe) -> Augmentation:
    """Return the recipe's training augmentation."""
    return Augmentation(recipe.crop, recipe.padding, recipe.horizontal_flip)


def learning_rate(recipe: TrainingRecipe, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of a step; steps count from 0 and run on through all epochs."""
    if recipe.schedule == "steps":
        passed = sum(step >= milestone * steps_per_epoch for milestone in recipe.milestones)
        return float(recipe.learning_rate * recipe.factor**passed)
    if recipe.schedule == "constant":
        return recipe.learning_rate
    position = step / max(1, recipe.epochs * steps_per_epoch - 1)
    lowest, highest, rise = recipe.learning_rate / 25, recipe.learning_rate, 0.3
    if position < rise:
        return lowest + (highest - lowest) * position / rise
    final = recipe.learning_rate / 1e4
    return final + (highest - final) * (1 + math.cos(math.pi * (position - rise) / (1 - rise))) / 2


def recipe_optimizer(model: nn.Module, recipe: TrainingRecipe) -> torch.optim.SGD:
    """Return the recipe's optimizer for all parameters of a model."""
    return torch.optim.SGD(
        model.parameters(),
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
    )


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of all parameter groups."""
    for group in optimizer.param_groups:
        group["lr"] = rate


def resolve_precision(precision: Precision | Literal["auto"], device: torch.device) -> Precision:
    """Return the precision that a recipe's entry, which may be `auto`, stands for on a device."""
    if precision != "auto":
        return precision
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.get_device_capability(device) >= (8, 0) else "float32"
    return cpu_precision() if device.type == "cpu" else "float32"


def autocast(precision: str, device: torch.device) -> AbstractContextManager[Any]:
    """Return the context in which a forward pass computes in a resolved precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


def check_finite(loss: float, where: str) -> None:
    """Stop a training whose loss is no longer finite.

    Raises:
        TrainingFailedError: If `loss` is not finite.
    """
    if not math.isfinite(loss):
        raise TrainingFailedError(f"the loss is not finite ({loss}) in {where}")


@dataclass
class ReferenceTraining:
    """The training of one reference model, divided into epochs so that it can be interrupted and resumed.

    Every random number of an epoch comes from the seed and the index of the epoch. A training that is resumed from a
    checkpoint therefore ends with the same weights, bit for bit, as one that was never interrupted.

    Attributes:
        model: Model on the device, trained in place.
        batches: All training images.
        positions: (M,) int64, the images to train on.
        recipe: Training recipe.
        seed: Seed of the run.
        role: "original" or "fdr".
        advance: Callback that receives the number of images after each step, as images of full size that have as many
            pixels: smaller ones take as much less time.
        say: Callback that receives a line if a checkpoint cannot be used.
        share: What this process takes of each batch. Others take the rest at the same time, and the first one alone
            writes checkpoints.
        joined: Callback that returns the model in the form in which its gradients are the mean over all processes.
        resumed: Callback that receives the number of images, counted likewise, that earlier attempts have read, which
            took no time in this one; None lets `advance` receive it.
    """

    model: nn.Module
    batches: Batches
    positions: Tensor
    recipe: TrainingRecipe
    seed: int
    role: str
    advance: Callable[[int], None] = lambda images: None
    say: Callable[[str], None] = lambda message: None
    share: Share = ALONE
    joined: Callable[[nn.Module], nn.Module] = lambda model: model
    resumed: Callable[[int], None] | None = None

    def __post_init__(self) -> None:
        self._network = self.joined(self.model)
        self.device = next(self.model.parameters()).device
        self.precision = resolve_precision(self.recipe.precision, self.device)
        self.optimizer = recipe_optimizer(self.model, self.recipe)
        self.epoch = 0
        self.seconds = 0.0
        self._untold = 0.0

    @property
    def epochs(self) -> int:
        """Number of epochs, after each of which a checkpoint may be written."""
        return self.recipe.epochs

    @property
    def image_passes(self) -> int:
        """Number of images read so far."""
        return self.epoch * len(self.positions)

    @property
    def _full_size_passes(self) -> int:
        if not self.recipe.resolutions:
            return self.image_passes
        height, width = self.batches.plain(self.positions[:1]).shape[-2:]
        return round(full_size_epochs(self.recipe, height, width, self.epoch) * len(self.positions))

    def train(self, checkpoint: Path | None = None) -> float:
        """Train to the end and return the total seconds, earlier attempts included.

        Args:
            checkpoint: File to resume from if it exists and to save to from time to time; None does neither.
        """
        if checkpoint is not None and checkpoint.is_file():
            self._load(checkpoint)
        saved = monotonic()
        while self.epoch < self.epochs:
            started = monotonic()
            self._train_epoch()
            self.epoch += 1
            self.seconds += monotonic() - started
            self._epoch_ended()
            due = monotonic() - saved > CHECKPOINT_SECONDS and self.epoch < self.epochs
            if checkpoint is not None and due and self.share.number == 0:
                self.save(checkpoint)
                saved = monotonic()
        self._network.eval()
        return self.seconds

    def _train_epoch(self) -> None:
        self._pass(self.positions, self.epoch, self.epoch)

    def _epoch_ended(self) -> None:
        """Look at the model after an epoch, outside the measured seconds."""

    def _pass(
        self, positions: Tensor, epoch: int, *purpose: str | int, penalty: Callable[[], Tensor] | None = None
    ) -> None:
        """Train on each image once.

        Args:
            positions: (M,) int64, the images.
            epoch: Place of the pass in the recipe's schedule, counted from 0.
            purpose: What distinguishes the random numbers of this pass from those of others.
            penalty: Function that returns what is added to the loss of each batch.
        """
        stream = STREAMS.get(self.role, self.role)
        # Processes that train together drop other units of the network each.
        own = (self.share.number,) if self.share.number else ()
        torch.manual_seed(derived_seed(self.seed, stream, "network", *purpose, *own))
        generator = torch.Generator().manual_seed(derived_seed(self.seed, stream, "batches", *purpose))
        self._network.train()
        total = torch.zeros((), device=self.device)
        sizes = self.share.batch_sizes(len(positions), self.recipe.batch_size)
        step = epoch * len(sizes)
        side = self.recipe.side(epoch)
        batches = self.batches.shuffled(self.recipe.batch_size, generator, positions, self.share)
        for size, (images, labels) in zip(sizes, batches, strict=True):
            set_learning_rate(self.optimizer, learning_rate(self.recipe, step, len(sizes)))
            height, width = images.shape[-2:]
            pixels = size * pixel_share(height, width, side)
            if side is not None:
                images = resized(images, side)
            with autocast(self.precision, self.device):
                logits = self._network(images)
            loss = F.cross_entropy(logits.float(), labels)
            if penalty is not None:
                loss = loss + penalty()
            if self.share.processes > 1:
                # The mean over the processes of this is the mean over the whole batch.
                loss = loss * (len(labels) * self.share.processes / size)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
            step += 1
            self._tell(pixels)
        check_finite(float(total), f"epoch {epoch + 1} of {REFERENCES.get(self.role, self.role)}")

    def _tell(self, images: float) -> None:
        """Tell of images in whole numbers, and keep the rest for the next time."""
        self._untold += images
        whole = int(self._untold)
        self._untold -= whole
        self.advance(whole)

    def save(self, checkpoint: Path) -> None:
        """Write the state that the rest of the training needs; a reader finds either a whole file or none.

        Raises:
            UnwritableError: If the file cannot be written.
        """
        state = {
            "of": self._identity,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self._progress,
        }
        temporary = checkpoint.with_suffix(".writing")
        with held(temporary) as file:
            torch.save({**state, "sha256": _digest(state)}, file)
        temporary.replace(checkpoint)

    @property
    def _progress(self) -> dict[str, Any]:
        """Attributes that a training goes on with, by name."""
        return {"epoch": self.epoch, "seconds": self.seconds}

    @property
    def _identity(self) -> list[Any]:
        """What distinguishes this training from others whose checkpoints could lie in its place."""
        return [self.role, self.seed, self.recipe.model_dump(mode="json"), len(self.positions)]

    def _load(self, checkpoint: Path) -> None:
        state = _whole_state(checkpoint)
        fits = state.get("of") == self._identity and not misfits(self.model.state_dict(), state["model"])
        if not fits:
            what = "is that of another training" if state else "is damaged"
            self.say(f"{checkpoint} {what}; the training starts anew")
            # Of several processes the first speaks for all, and has to have seen it.
            if self.share.number == 0:
                checkpoint.unlink(missing_ok=True)
            return
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        for name in self._progress:
            setattr(self, name, state[name])
        (self.resumed or self.advance)(self._full_size_passes)


def _whole_state(checkpoint: Path) -> dict[str, Any]:
    """Return what `ReferenceTraining.save` wrote into a file, or nothing if the file holds anything else.

    Raises:
        InvalidFileError: If the file cannot be read, which says nothing of its content.
    """
    try:
        content = checkpoint.read_bytes()
    except FileNotFoundError:
        return {}  # Of several processes the first has removed it.
    except OSError as error:
        raise unreadable(checkpoint, error) from error
    try:
        # Loading to the CPU keeps a full GPU from being mistaken for a damaged file.
        state: dict[str, Any] = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
        whole = state.pop("sha256") == _digest(state)
    except MemoryError:
        raise
    # A damaged pickle may raise almost any exception, and may hold anything.
    except Exception:
        return {}
    return state if whole else {}


def _digest(value: Any) -> str:
    """Return the SHA-256 of nested tables, lists, tensors and plain values; torch's own format has none."""
    digest = hashlib.sha256()
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, Tensor):
            digest.update(f"{one.dtype} {tuple(one.shape)}".encode())
            digest.update(one.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        elif isinstance(one, dict):
            digest.update(f"table of {len(one)}".encode())
            waiting += [part for item in one.items() for part in item]
        elif isinstance(one, list | tuple):
            digest.update(f"list of {len(one)}".encode())
            waiting += one
        else:
            digest.update(repr(one).encode())
    return digest.hexdigest()
