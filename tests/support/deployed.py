"""A user with a model in use: class folders of real images, a network of her own and its weights, all plain torch."""

from __future__ import annotations

import tarfile
from collections import Counter
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from support.paths import REPOSITORY

ARCHIVES = REPOSITORY.parent / "shared" / "data"
CLASSES = ("bicycle", "bottle", "castle", "cloud", "orange", "sea", "tank", "wolf")
TRAIN, TEST = 250, 60
MEAN, STD = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)

# The network as the user keeps it: a class of her own, and the function that builds it.
NETWORK = """
from torch import nn


class MyNet(nn.Module):
    def __init__(self, classes):
        super().__init__()
        layers, width = [], 3
        for wider in (16, 32, 64):
            layers += [nn.Conv2d(width, wider, 3, padding=1, bias=False), nn.BatchNorm2d(wider), nn.ReLU()]
            layers.append(nn.MaxPool2d(2))
            width = wider
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, classes)

    def forward(self, images):
        return self.head(self.features(images).mean(dim=(2, 3)))


def make(num_classes, shape):
    return MyNet(num_classes)
"""


def has_images() -> bool:
    """Return whether real images lie beside the repository."""
    return (ARCHIVES / "cifar-100-test.tar.gz").is_file()


def class_folders(folder: Path) -> Path:
    """Write `train/CLASS` and `test/CLASS` with the first images of eight classes of CIFAR-100."""
    for part, wanted, archive in (("train", TRAIN, "cifar-100-train-0?"), ("test", TEST, "cifar-100-test")):
        taken: Counter[str] = Counter()
        for path in sorted(ARCHIVES.glob(f"{archive}.tar.gz")):
            with tarfile.open(path) as tar:
                for member in tar:
                    name = Path(member.name).parent.name
                    content = tar.extractfile(member) if name in CLASSES and taken[name] < wanted else None
                    if content is not None:
                        taken[name] += 1
                        place = folder / part / name / Path(member.name).name
                        place.parent.mkdir(parents=True, exist_ok=True)
                        place.write_bytes(content.read())
        assert taken == dict.fromkeys(CLASSES, wanted)
    return folder


def read_part(folder: Path, classes: tuple[str, ...] = CLASSES) -> tuple[Tensor, Tensor]:
    """Return images (N, 3, 32, 32), normalised, and labels (N,) of `folder/CLASS`, in the order of `classes`."""
    files = [(path, label) for label, name in enumerate(classes) for path in sorted((folder / name).iterdir())]
    pixels = np.stack([np.asarray(Image.open(path).convert("RGB")) for path, _ in files])
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (images - mean) / std, torch.tensor([label for _, label in files])


def own_network(classes: int = len(CLASSES)) -> nn.Module:
    """Return the user's network."""
    scope: dict[str, object] = {"__name__": "my_net"}
    exec(NETWORK, scope)
    make = scope["make"]
    assert callable(make)
    network: nn.Module = make(classes, (3, 32, 32))
    return network


def trained(folder: Path, classes: tuple[str, ...] = CLASSES, epochs: int = 10) -> nn.Module:
    """Return the user's network after some epochs of her own training; outputs stand in the order of `classes`."""
    torch.manual_seed(0)
    images, labels = read_part(folder / "train", classes)
    network = own_network(len(classes))
    optimizer = torch.optim.Adam(network.parameters(), lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(64):
            batch = images[rows]
            flipped = torch.rand(len(rows)) < 0.5
            batch[flipped] = batch[flipped].flip(3)
            loss = nn.functional.cross_entropy(network(batch), labels[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


def accuracy(network: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Return the share of images that a network classifies right."""
    with torch.inference_mode():
        return float((network(images).argmax(dim=1) == labels).float().mean())
