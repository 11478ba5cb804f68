"""The HDF5 file of a model: features, logits and labels, from which every metric is computed.

Layout, format 3 (N test images, M limited images, P images for probes, K classes, D features, O outputs):

    /test/features          (N, D) float32 or float16, as the manifest's `feature_dtype` says: input of the classifier
    /test/stages/0, 1, ...  (N, D0), (N, D1), ... float16: pooled features of the stages before the classifier's input
    /test/logits            (N, O) float32
    /test/labels            (N,)   int64
    /test/ids               (N,)   int64     the image's number in the data set
    /limited/...            the same for the M limited training images, in the order of the training set
    /probe/features         (P, D) float16: training images that no method sees, the same number of each class
    /probe/labels, ids      (P,)   int64
    /prototypes/full        sums (K, D) float64 and counts (K,) int64 over all training images, and the sums of the
                            stages, stages/0 (K, D0) float64 and so on
    /prototypes/limited     the same over the limited ones
    /classifier             weight (O, D) and bias (O,) float32; the bias is 0 where the layer has none
    /output_classes         (O,)   int64     the class of each output; K and above are new classes
    /superclasses           (K,)   int64     the superclass of each class; (0,) where the data set has none

Attributes of the file: `format`, `model` (store id), `model_sha256` (of the weights' file), `dataset`,
`dataset_revision` (changes whenever an image or a label does), `problem`, `num_classes`, `forget_classes`, `seed`,
`feature_dtype`, `stages` (names of all stages, UTF-8; the last one is the classifier's input and has no column here).

Images are seen as in evaluation, without augmentation. Features and logits are stored in uncompressed chunks of rows,
because compression would save only a sixth (measured on a ResNet-20) and slow every read. Labels and ids are compressed
to a tenth. On CIFAR-100 with a ResNet-20 the file is 1.28 times as large as one of format 2, which had no stages and no
part for probes. That part is empty where a class has no training image outside the limited data.

The module `unlearnbench.metrics.feature_writer` writes the file. Nothing here imports torch.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, TypeVar

import h5py
import numpy as np
from numpy.typing import NDArray

from unlearnbench.errors import InvalidFileError, MetricError
from unlearnbench.metrics.layout import layout_faults
from unlearnbench.registry.identity import FEATURES_FORMAT

FORMAT = FEATURES_FORMAT
FEATURE_FILE = "features.h5"
CHUNK_ROWS = 512
# Arrays up to this size stay in memory while the file is open.
KEPT_BYTES = 2**24

T = TypeVar("T")
PrototypeSource = Literal["full", "limited"]
Part = Literal["test", "limited"]
# Stages and the images for probes are stored in half precision, since sums over many of them are all that is read.
COMPACT_DTYPE = "float16"

_AGAIN = "run the manifest again, which makes it anew"
_ATTRIBUTES = ("num_classes", "forget_classes", "seed", "dataset", "dataset_revision", "model", "stages")
_DATASETS = (
    *(f"{part}/{name}" for part in ("test", "limited") for name in ("features", "logits", "labels", "ids")),
    *(f"prototypes/{source}/{name}" for source in ("full", "limited") for name in ("sums", "counts")),
    *(f"probe/{name}" for name in ("features", "labels", "ids")),
    "classifier/weight",
    "classifier/bias",
    "output_classes",
    "superclasses",
)


def stage_column(number: int) -> str:
    """Return the name of the column of a stage before the last one."""
    return f"stages/{number}"


class FeatureFile:
    """A feature file, open for reading.

    Attributes:
        path: Path of the file.
        num_classes: K classes.
        seed: Seed of the run.
        forget_classes: (F,) int64, ascending.
        output_classes: (O,) int64, the class of each output.
        superclasses: (K,) int64, or (0,) if the data set has none.
        stages: Names of the stages of the network, in the order in which an image passes them; the last one stands for
            the features.
    """

    def __init__(self, path: Path, file: h5py.File) -> None:
        self.path = path
        self._file = file
        self._kept: dict[tuple[str, bytes], NDArray[Any]] = {}
        self._results: dict[Hashable, Any] = {}
        self.num_classes = int(file.attrs["num_classes"])
        self.seed = int(file.attrs["seed"])
        self.forget_classes: NDArray[np.int64] = np.asarray(file.attrs["forget_classes"], dtype=np.int64)
        self.output_classes: NDArray[np.int64] = np.asarray(file["output_classes"], dtype=np.int64)
        self.superclasses: NDArray[np.int64] = np.asarray(file["superclasses"], dtype=np.int64)
        self.stages = tuple(bytes(name).decode() for name in file.attrs["stages"])

    @property
    def attributes(self) -> dict[str, Any]:
        """Attributes of the file."""
        return dict(self._file.attrs)

    def check_is_of(self, model_sha256: str, seed: int, problem: str) -> None:
        """Check that the features are those of a model, for a seed and a problem.

        Raises:
            InvalidFileError: If they are another's.
        """
        expected = {"model_sha256": model_sha256, "seed": seed, "problem": problem}
        for key, value in expected.items():
            found = self._file.attrs.get(key)
            if found != value:
                raise InvalidFileError(f"{self.path}: its {key} is {found!s:.64}, not {value!s:.64}")

    @property
    def retain_classes(self) -> NDArray[np.int64]:
        """Retain classes, (K - F,) int64, ascending."""
        return np.setdiff1d(np.arange(self.num_classes), self.forget_classes)

    def classes(self, images: Literal["forget", "retain"]) -> NDArray[np.int64]:
        """Return the forget classes or the retain classes."""
        return self.forget_classes if images == "forget" else self.retain_classes

    def array(self, name: str) -> NDArray[Any]:
        """Return a whole array of the file, for example `test/labels`, which must not be changed."""
        return self._keep(name, b"", lambda: np.asarray(self._file[name]))

    def _keep(self, name: str, classes: bytes, read: Callable[[], NDArray[Any]]) -> NDArray[Any]:
        """Return the result of `read`, kept in memory if it is small because many metrics ask for the same arrays."""
        found = self._kept.get((name, classes))
        if found is None:
            found = read()
            found.flags.writeable = False
            if found.nbytes <= KEPT_BYTES:
                self._kept[name, classes] = found
        return found

    def rows(self, name: str, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the float32 rows of, say, `test/features` with a label among `classes`; they must not be changed."""
        return self._keep(name, classes.tobytes(), lambda: self._read_rows(name, classes))

    def _read_rows(self, name: str, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        group = name.partition("/")[0]
        wanted = np.isin(self.array(f"{group}/labels"), classes)
        data = self._file[name]
        step = CHUNK_ROWS * 16
        parts = [data[start : start + step][wanted[start : start + step]] for start in range(0, len(wanted), step)]
        # A part without images has no chunk to concatenate.
        found = np.concatenate(parts) if parts else np.empty((0, *data.shape[1:]))
        return found.astype(np.float32, copy=False)

    def stage_rows(self, part: Part, stage: int, classes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the float32 features (n, D) of a stage of the images of `classes`, which must not be changed."""
        return self.rows(f"{part}/{self._column(stage)}", classes)

    def _column(self, stage: int) -> str:
        return "features" if stage == len(self.stages) - 1 else stage_column(stage)

    def labels(self, part: str, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the labels of `test` or `limited` among `classes`, in the order of `rows`; they must not be changed.

        Raises:
            MetricError: If one of the classes has no image.
        """
        return self._keep(f"{part}/labels", classes.tobytes(), lambda: self._read_labels(part, classes))

    def _read_labels(self, part: str, classes: NDArray[np.int64]) -> NDArray[np.int64]:
        labels: NDArray[np.int64] = self.array(f"{part}/labels")
        missing = np.setdiff1d(classes, labels).tolist()
        if missing:
            raise MetricError(f"no {part} image of classes {missing}")
        return labels[np.isin(labels, classes)]

    def prototypes(self, source: PrototypeSource, stage: int | None = None) -> NDArray[np.float64]:
        """Return the (K, D) mean feature of each class over the `full` or `limited` training images.

        Args:
            source: Images to take the means of.
            stage: Number of the stage; None means the last one.

        Raises:
            MetricError: If a class has no image.
        """
        counts = self.array(f"prototypes/{source}/counts")
        if (counts == 0).any():
            missing = np.flatnonzero(counts == 0).tolist()
            raise MetricError(f"no training image of classes {missing} in the {source} data")
        column = "sums" if stage in (None, len(self.stages) - 1) else stage_column(stage or 0)
        means: NDArray[np.float64] = self.array(f"prototypes/{source}/{column}") / counts[:, None]
        return means

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """Return the result of `compute`, kept while the file is open because several metrics may ask for it."""
        if key not in self._results:
            self._results[key] = compute()
        found: T = self._results[key]
        return found


@contextmanager
def open_features(path: str | Path) -> Iterator[FeatureFile]:
    """Open a feature file for reading.

    Raises:
        InvalidFileError: If the file is missing or damaged, or of another kind or format.
    """
    path = Path(path)
    try:
        file = h5py.File(path, "r")
    except OSError as error:
        reason = "no such file" if not path.exists() else "truncated, or not an HDF5 file"
        raise InvalidFileError(f"{path}: {reason}; {_AGAIN}") from error
    with file:
        yield _checked(path, file)


def _checked(path: Path, file: h5py.File) -> FeatureFile:
    try:
        found = file.attrs.get("format")
        if found is None or found != FORMAT:
            other = f"feature format {found}, this version reads {FORMAT}; {_AGAIN}"
            raise InvalidFileError(f"{path}: {'not a feature file' if found is None else other}")
        missing = [name for name in _DATASETS if name not in file]
        missing += [f"attribute {name}" for name in _ATTRIBUTES if name not in file.attrs]
        missing += [name for name in _stage_datasets(len(file.attrs.get("stages", ()))) if name not in file]
        if missing:
            raise InvalidFileError(f"{path}: not a whole feature file: {', '.join(missing)} missing; {_AGAIN}")
        for fault in layout_faults(file, _DATASETS):
            raise InvalidFileError(f"{path}: not a feature file of ours: {fault}")
        return FeatureFile(path, file)
    # The exception that HDF5 raises depends on where the bytes are wrong.
    except (KeyError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidFileError(f"{path}: damaged: {error}; {_AGAIN}") from error


def _stage_datasets(stages: int) -> list[str]:
    groups = ("test", "limited", "prototypes/full", "prototypes/limited")
    return [f"{group}/{stage_column(number)}" for group in groups for number in range(stages - 1)]
