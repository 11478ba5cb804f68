"""What is found of forget images that a network did not learn from, as a share of what is found in Original."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from unlearnbench.errors import NotApplicable
from unlearnbench.unlearners.task import UnlearningTask

from unlearnbench_lab.network_pass import plain_features
from unlearnbench_lab.probes import KernelProbe, Probe, PrototypeProbe, RidgeProbe

FOLDS = 5
# A few images may read anything between 0 and 1. The goal is therefore estimated as if so many images more had been
# read that show this share, the middle of what README.md tells of CIFAR-100.
PRIOR_SHARE, PRIOR_IMAGES = 0.7, 20
HIGHEST_GOAL = 0.95
# A reading is divided by others, so that it must not be 0.
LEAST = 1e-3


class HeldOut:
    """Holds out a part of the limited forget images, and reads networks that learned without it.

    Three readers stand for the views of the ranking: least squares, class means and neighbours. They learn from all
    retain images and from the forget images to be read, those of the image's own fold left out; all classes compete.

    Args:
        original: Original model, whose readings are the measure.
        task: The limited data.
        share: Share of each forget class's images to hold out. One image at least is left to learn from, and a class
            of fewer than 3 images is not held out, because a class is only found by another image of it.

    Raises:
        NotApplicable: If no forget class has 3 images.
    """

    def __init__(self, original: nn.Module, task: UnlearningTask, share: float) -> None:
        self._task = task
        self._original, self._labels = plain_features(original, task)
        self._forget = task.is_forget(self._labels)
        counts = torch.bincount(self._labels, minlength=task.num_classes)
        taken = torch.minimum((counts * share).ceil().long().clamp(min=2), counts - 1)
        taken = taken.where(counts >= 3, 0)
        place = places(self._labels)
        self._held = self._forget & (place < taken[self._labels])
        self._retain_held = ~self._forget & (place % FOLDS == 0)
        if not self._held.any():
            raise NotApplicable("needs 3 images of a forget class, 2 of which are held out")

    @property
    def learned(self) -> Tensor:
        """Places, (M,) int64 among all limited images, of those that are not held out."""
        return torch.nonzero(~self._held).flatten()

    @property
    def most_retain(self) -> Tensor:
        """Places of four fifths of the retain images, for a network that never sees the forget classes."""
        return torch.nonzero(~self._forget & ~self._retain_held).flatten()

    def shares(self, network: nn.Module) -> Tensor:
        """Return what a network that learned from `learned` alone shows of the held-out images, (3,) of Original's."""
        return self._shares(plain_features(network, self._task)[0], self._held)

    def unseen_shares(self, network: nn.Module) -> Tensor:
        """Return what a network that learned from `most_retain` alone shows of the forget classes, (3,) of Original's.

        It is divided by what the network shows of retain images that it did not learn from, since it is a worse network
        than Original, and drawn towards a share that is known from elsewhere, the fewer images the further.
        """
        features, labels, held = plain_features(network, self._task)[0], self._labels, self._retain_held
        share = self._shares(features, self._forget)
        for view, reader in enumerate(readers(self._task.num_classes)):
            reader.fit(features[~held], labels[~held])
            share[view] /= (reader(features[held]).argmax(dim=1) == labels[held]).float().mean().clamp(min=LEAST)
        images = self._task.size("forget")
        share = (images * share.clamp(max=1.0) + PRIOR_IMAGES * PRIOR_SHARE) / (images + PRIOR_IMAGES)
        return share.clamp(max=HIGHEST_GOAL)

    def _shares(self, features: Tensor, read: Tensor) -> Tensor:
        found, before = (self._found(rows, read).clamp(min=LEAST) for rows in (features, self._original))
        return found / before

    def _found(self, features: Tensor, read: Tensor) -> Tensor:
        """Return the share of forget images (N,) bool whose class each reader finds in features (N, D), (3,)."""
        hits = torch.zeros(3, len(read), device=read.device)
        fold = (places(self._labels) % FOLDS).where(read, -1)
        for number in fold[read].unique().tolist():
            held = fold == number
            known = ~self._forget | (read & ~held)
            for view, reader in enumerate(readers(self._task.num_classes)):
                reader.fit(features[known], self._labels[known])
                hits[view, held] = (reader(features[held]).argmax(dim=1) == self._labels[held]).float()
        return hits[:, read].mean(dim=1)


def readers(classes: int) -> tuple[Probe, Probe, Probe]:
    """Return least squares, class means and neighbours, none of which minds how many images a class has."""
    return RidgeProbe(classes), PrototypeProbe(classes), KernelProbe(classes, skips_nearest=False)


def places(labels: Tensor) -> Tensor:
    """Return each image's place among those of its class, (N,) int64, counted from 0."""
    return (F.one_hot(labels).cumsum(dim=0) - 1).gather(1, labels[:, None]).flatten()
