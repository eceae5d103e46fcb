"""Data sets of small labelled images; `digits` needs neither network nor files."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pooch
from numpy.typing import NDArray
from torch import nn

from langevin_nn.checks import kind_of, one_of
from langevin_nn.errors import ConfigurationError
from models.networks import small_convolutional_network

__all__ = ["DATASETS", "DataSet", "ImageData", "Setting", "load_dataset"]

Folder = str | os.PathLike[str] | None

DATA_VARIABLE = "LANGEVIN_NN_DATA"
MNIST_URL = "https://ossci-datasets.s3.amazonaws.com/mnist/"
MNIST_TRAIN = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")
MNIST_TEST = ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz")
MNIST_HASHES = {
    "train-images-idx3-ubyte.gz": "sha256:440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "sha256:3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "sha256:8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "sha256:f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}
CIFAR_SHAPE = (3, 32, 32)
CIFAR_RECORD = 1 + prod(CIFAR_SHAPE)
N_CLASSES = 10


@dataclass(frozen=True, eq=False)
class ImageData:
    """A training set and a test set that share no image.

    Attributes
    ----------
    name : str
        Name of the data set.
    train_inputs, test_inputs : ndarray of float32, shape (sample, feature) or (sample, channel, row, column)
        Pixels, scaled to [0, 1].
    train_labels, test_labels : ndarray of int64, shape (sample,)
        True classes, 0 to ``n_classes`` - 1.
    n_classes : int
        Number of classes.

    Examples
    --------
    >>> pixels, labels = np.eye(2, dtype=np.float32), np.array([0, 1])
    >>> ImageData("corners", pixels, labels, pixels[:1], labels[:1], n_classes=2).test_inputs.shape
    (1, 2)
    """

    name: str
    train_inputs: NDArray[np.float32]
    train_labels: NDArray[np.int64]
    test_inputs: NDArray[np.float32]
    test_labels: NDArray[np.int64]
    n_classes: int

    def __post_init__(self) -> None:
        for part in ("train", "test"):
            inputs, labels = (np.asarray(getattr(self, f"{part}_{each}")) for each in ("inputs", "labels"))
            if inputs.ndim < 2 or labels.shape != inputs.shape[:1] or labels.dtype.kind not in "iu":
                raise ConfigurationError(
                    f"data set {self.name}: expected {part}_inputs of shape (sample, feature) or more and a whole number "
                    f"for each in {part}_labels, got shapes {inputs.shape} and {labels.shape} of {labels.dtype}; the "
                    "network learns a class for each sample, so give one label a row"
                )
            if labels.size and not 0 <= labels.min() <= labels.max() < self.n_classes:
                raise ConfigurationError(
                    f"data set {self.name}: expected {part}_labels from 0 to n_classes - 1 = {self.n_classes - 1}, got "
                    f"{labels.min()} to {labels.max()}; the network has an output for each class, so number them from 0"
                )


@dataclass(frozen=True)
class Setting:
    """How long and with which steps a network is trained on a data set.

    Parameters
    ----------
    samples_per_class : int, optional
        Training samples of each class. What is left out here has to be chosen where a study asks for it.
    learning_rate : float, optional
        α.
    batch_size : int, optional
        B.
    epochs : float, optional
        Length of a run.
    """

    samples_per_class: int | None = None
    learning_rate: float | None = None
    batch_size: int | None = None
    epochs: float | None = None


@dataclass(frozen=True)
class DataSet:
    """All that studies know of a data set.

    Parameters
    ----------
    name : str
        By which it is chosen.
    description : str
        What it is and where it comes from, in a line.
    load : callable
        From the training samples of each class, or None, and the data folder, or None, to the `ImageData`.
    trained : Setting, optional
        With half of the labels redrawn, so that all phases come within the epochs.
    clean : Setting, optional
        Without label noise, so that the training error is 0 well before the run is half over; as `trained` unless given.
    swept : Setting, optional
        At every label noise, long enough for the largest; as `trained` unless given.
    coarse : Setting, optional
        With few samples and large steps, so that phases come early and noise is large; as `trained` unless given.
    samples_per_class : int, optional
        Training samples of each class where a study asks for no setting; what `load` takes by itself unless given.
    network : callable, optional
        Makes the network, which takes the inputs in their shape; a fully connected one unless given.
    hidden_weights : str, optional
        Pattern of the tensors that the paper measures, in the middle of the network: the weights between two hidden layers.
    fluctuating : str, optional
        Pattern of the tensors whose fluctuations are measured; * where all are few enough.
    needs_files : bool, optional
        Whether it is read from a data folder that has to be named.
    is_papers : bool, optional
        Whether the paper's numbers, those of MNIST, may stand beside what is measured on it.

    Examples
    --------
    >>> DATASETS["digits"].trained
    Setting(samples_per_class=120, learning_rate=0.1, batch_size=25, epochs=360.0)
    """

    name: str
    description: str
    load: Callable[[int | None, Folder], ImageData]
    trained: Setting = Setting()
    clean: Setting | None = None
    swept: Setting | None = None
    coarse: Setting | None = None
    samples_per_class: int | None = None
    network: Callable[[], nn.Module] | None = None
    hidden_weights: str = "2.weight"
    fluctuating: str = "2.weight"
    needs_files: bool = False
    is_papers: bool = False


def load_dataset(name: str | DataSet, *, samples_per_class: int | None = None, data_dir: Folder = None) -> ImageData:
    """Load a data set.

    Parameters
    ----------
    name : str or DataSet
        A key of ``DATASETS``, whose descriptions say what they are; or one of your own.
    samples_per_class : int, optional
        Train on the first so many images of each class, in file order; 120 of the digits, 400 of mnist10k, all of the
        others unless given.
    data_dir : path, optional
        Folder of the original files, which may also lie in its subfolder ``mnist`` or ``cifar-10-batches-bin``;
        the environment variable ``LANGEVIN_NN_DATA`` unless given. MNIST comes as gzip IDX files, CIFAR-10 in its
        binary version. ``mnist`` is downloaded where the folder lacks one of its four files.

    Returns
    -------
    ImageData
        Training and test set, each in file order. Digits have shape (sample, feature), the images of CIFAR-10
        (sample, channel, row, column).

    Raises
    ------
    UnknownNameError
        There is no data set of that name.
    ConfigurationError
        `samples_per_class` is below 1 or above what there is; the folder is not named, does not exist or lacks a
        file; a file is truncated or of another format; the download failed; a data set of your own gives something else.

    Examples
    --------
    >>> digits = load_dataset("digits", samples_per_class=10)
    >>> digits.train_inputs.shape, digits.test_inputs.shape
    ((100, 64), (1697, 64))
    """
    entry = name if isinstance(name, DataSet) else DATASETS[one_of("data set", name, DATASETS)]
    if samples_per_class is not None and (not _is_whole(samples_per_class) or samples_per_class < 1):
        raise ConfigurationError(
            f"samples_per_class: expected a whole number of at least 1, got {samples_per_class!r}; "
            "every class needs an image to train on, so ask for one or more, or leave it out"
        )
    data = entry.load(samples_per_class, data_dir)
    if not isinstance(data, ImageData):
        raise ConfigurationError(
            f"data set {entry.name} gave {kind_of(data)}: expected an ImageData, a training set and a test set with their "
            "classes; return ImageData(name, train_inputs, train_labels, test_inputs, test_labels, n_classes)"
        )
    return data


def _is_whole(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)


def _digits_of_scikit_learn() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Return what ``load_digits`` does, from its file: importing scikit-learn takes longer than a small run."""
    package = find_spec("sklearn")
    file = Path(package.origin).parent / "datasets" / "data" / "digits.csv.gz" if package and package.origin else None
    if file is None or not file.is_file():
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        return pixels, labels
    with gzip.open(file, "rt") as lines:
        rows = np.loadtxt(lines, delimiter=",")
    return rows[:, :-1], rows[:, -1].astype(np.int64)


def _digits(samples_per_class: int | None, data_dir: Folder) -> ImageData:
    """Train on 120 of each of scikit-learn's 1,797 digits unless told, test on the rest."""
    pixels, labels = _digits_of_scikit_learn()
    return _split("digits", pixels, labels, samples_per_class or 120, largest_pixel=16)


def _mnist10k(samples_per_class: int | None, data_dir: Folder) -> ImageData:
    """Train on 400 of each of MNIST's 10,000 test digits unless told, test on the rest."""
    folder = _data_folder("mnist10k", data_dir)
    pixels, labels = _read_mnist(*(_require("mnist10k", folder, "mnist", file) for file in MNIST_TEST))
    return _split("mnist10k", pixels, labels, samples_per_class or 400)


def _mnist(samples_per_class: int | None, data_dir: Folder) -> ImageData:
    """Train on all 60,000 training digits unless told, test on the 10,000 test digits."""
    paths = _mnist_paths(data_dir)
    train = _read_mnist(*(paths[file] for file in MNIST_TRAIN))
    test = _read_mnist(*(paths[file] for file in MNIST_TEST))
    return _two_sets("mnist", train, test, samples_per_class)


def _cifar10(samples_per_class: int | None, data_dir: Folder) -> ImageData:
    """Train on all of ``data_batch_*.bin`` unless told, test on ``test_batch.bin``."""
    test_file = _require("cifar10", _data_folder("cifar10", data_dir), "cifar-10-batches-bin", "test_batch.bin")
    batches = sorted(test_file.parent.glob("data_batch_*.bin"))
    if not batches:
        raise _missing_file("cifar10", test_file.parent, "cifar-10-batches-bin", "data_batch_1.bin")
    train = [_read_cifar(path) for path in batches]
    pixels, labels = (np.concatenate(part) for part in zip(*train, strict=True))
    return _two_sets("cifar10", (pixels, labels), _read_cifar(test_file), samples_per_class)


# Of these and of no other place: to add one is to add an entry. MNIST is trained as the paper has it, the others so that all
# phases come within the epochs; the paper does not give how it trains without label noise.
_MNIST = DataSet(
    "mnist",
    "all of MNIST, downloaded unless a data folder has it",
    _mnist,
    trained=Setting(400, 0.01, 25, 500.0),
    clean=Setting(400, 0.1, 50, 200.0),
    swept=Setting(400, 0.01, 25, 600.0),
    coarse=Setting(64, 0.1, 20, 100.0),
    samples_per_class=400,
    is_papers=True,
)
DATASETS: dict[str, DataSet] = {
    each.name: each
    for each in (
        DataSet(
            "digits",
            "scikit-learn's, of 8×8 pixels, embedded",
            _digits,
            trained=Setting(120, 0.1, 25, 360.0),
            clean=Setting(120, 0.1, 25, 200.0),
            swept=Setting(120, 0.1, 25, 500.0),
            coarse=Setting(64, 0.2, 20, 200.0),
            fluctuating="*",
        ),
        _MNIST,
        replace(
            _MNIST,
            name="mnist10k",
            description="MNIST's test file alone, from a data folder",
            load=_mnist10k,
            needs_files=True,
        ),
        DataSet(
            "cifar10",
            "colour photographs, from a data folder",
            _cifar10,
            trained=Setting(200, 0.2, 25, 120.0),
            swept=Setting(200, 0.2, 25, 400.0),
            samples_per_class=400,
            network=small_convolutional_network,
            hidden_weights="6.weight",  # the third of four convolutions
            needs_files=True,
        ),
    )
}


def _first_of_each_class(name: str, labels: NDArray[Any], samples_per_class: int) -> NDArray[np.bool_]:
    counts = np.bincount(labels, minlength=N_CLASSES)
    if samples_per_class > counts.min():
        raise ConfigurationError(
            f"data set {name}: expected samples_per_class of at most {counts.min()}, got {samples_per_class}; "
            f"there are only {counts.min()} images of class {counts.argmin()} to take from, so ask for fewer"
        )
    first = np.zeros(len(labels), dtype=bool)
    for label in range(N_CLASSES):
        first[np.flatnonzero(labels == label)[:samples_per_class]] = True
    return first


def _scaled(pixels: NDArray[Any], largest_pixel: int = 255) -> NDArray[np.float32]:
    return pixels.astype(np.float32) / np.float32(largest_pixel)


def _split(
    name: str, pixels: NDArray[Any], labels: NDArray[Any], samples_per_class: int, largest_pixel: int = 255
) -> ImageData:
    first = _first_of_each_class(name, labels, samples_per_class)
    inputs, classes = _scaled(pixels, largest_pixel), labels.astype(np.int64)
    return ImageData(name, inputs[first], classes[first], inputs[~first], classes[~first], N_CLASSES)


def _two_sets(
    name: str, train: Sequence[NDArray[Any]], test: Sequence[NDArray[Any]], samples_per_class: int | None
) -> ImageData:
    pixels, labels = train
    if samples_per_class is not None:
        first = _first_of_each_class(name, labels, samples_per_class)
        pixels, labels = pixels[first], labels[first]
    return ImageData(
        name, _scaled(pixels), labels.astype(np.int64), _scaled(test[0]), test[1].astype(np.int64), N_CLASSES
    )


def _data_folder(name: str, data_dir: Folder) -> Path:
    given = data_dir if data_dir is not None else os.environ.get(DATA_VARIABLE)
    if not given:
        raise ConfigurationError(
            f"data set {name}: expected the folder of its files, got neither data_dir nor the environment variable "
            f"{DATA_VARIABLE}; these files are not part of the package, so name their folder by either (on the "
            "command line: --data-dir), or take the data set digits, which needs none"
        )
    if not Path(given).is_dir():
        source = "data_dir" if data_dir is not None else f"the environment variable {DATA_VARIABLE}"
        raise ConfigurationError(
            f"data set {name}: expected an existing folder in {source}, got {str(given)!r}; its files are "
            "read from there, so correct the path"
        )
    return Path(given)


def _find(folder: Path, subfolder: str, file: str) -> Path | None:
    return next((path for path in (folder / file, folder / subfolder / file) if path.is_file()), None)


def _missing_file(name: str, folder: Path, subfolder: str, file: str) -> ConfigurationError:
    return ConfigurationError(
        f"data set {name}: expected the file {file}, got neither it nor {subfolder}/{file} in the folder "
        f"{str(folder)!r}; the data set is read from it, so put it there or name another folder by data_dir "
        f"(--data-dir) or {DATA_VARIABLE}"
    )


def _require(name: str, folder: Path, subfolder: str, file: str) -> Path:
    path = _find(folder, subfolder, file)
    if path is None:
        raise _missing_file(name, folder, subfolder, file)
    return path


def _mnist_paths(data_dir: Folder) -> dict[str, Path]:
    tried = ""
    if data_dir is not None or os.environ.get(DATA_VARIABLE):
        folder = _data_folder("mnist", data_dir)
        found = {file: path for file in MNIST_HASHES if (path := _find(folder, "mnist", file))}
        if len(found) == len(MNIST_HASHES):
            return found
        lacking = ", ".join(file for file in MNIST_HASHES if file not in found)
        tried = f"; the folder {str(folder)!r} was looked in first, but lacks {lacking}"
    return {file: _download(file, tried) for file in MNIST_HASHES}


def _download(file: str, tried: str) -> Path:
    cache = pooch.create(path=pooch.os_cache("langevin_nn"), base_url=MNIST_URL, registry=MNIST_HASHES)
    try:
        return Path(cache.fetch(file))
    except (OSError, ValueError) as error:  # requests' errors are OSErrors; ValueError is a wrong checksum
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise ConfigurationError(
            f"data set mnist: expected to download {MNIST_URL}{file} into {str(cache.path)!r}, got {reason}{tried}"
            "; try again later, name a folder with the four files by --data-dir (data_dir), or take the data set "
            "mnist10k, which needs only the two test files"
        ) from error


def _bad_file(path: Path, expected: str, got: str) -> ConfigurationError:
    return ConfigurationError(
        f"file {str(path)!r}: expected {expected}, got {got}; it is truncated or something else, so fetch it again"
    )


def _read_idx(path: Path, n_dimensions: int) -> NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes())
    except (EOFError, OSError, zlib.error) as error:
        raise _bad_file(path, "a complete gzip file", f"{type(error).__name__}: {error}") from error
    # The magic number: two zeros, 8 for unsigned bytes, the number of dimensions; then their sizes, big-endian.
    magic, start = bytes([0, 0, 8, n_dimensions]), 4 + 4 * n_dimensions
    if content[:4] != magic or len(content) < start:
        raise _bad_file(path, f"IDX data with magic number {magic.hex()}", f"first bytes {content[:4].hex() or 'none'}")
    shape = tuple(int(size) for size in np.frombuffer(content[4:start], dtype=">u4"))
    if len(content) != start + prod(shape):
        raise _bad_file(path, f"{prod(shape)} bytes for shape {shape}", f"{len(content) - start}")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _read_mnist(images_path: Path, labels_path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    images, labels = _read_idx(images_path, 3), _read_idx(labels_path, 1)
    if images.shape[1:] != (28, 28):
        raise _bad_file(images_path, "images of 28×28 pixels", f"{images.shape[1]}×{images.shape[2]}")
    if len(labels) != len(images):
        raise _bad_file(labels_path, f"{len(images)} labels, one for each image", f"{len(labels)}")
    _check_labels(labels_path, labels)
    return images.reshape(len(images), 784), labels


def _read_cifar(path: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    content = np.fromfile(path, dtype=np.uint8)
    if content.size == 0 or content.size % CIFAR_RECORD:
        raise _bad_file(path, f"a multiple of {CIFAR_RECORD} bytes, the size of a record", f"{content.size}")
    records = content.reshape(-1, CIFAR_RECORD)
    _check_labels(path, records[:, 0])
    return records[:, 1:].reshape(-1, *CIFAR_SHAPE), records[:, 0]


def _check_labels(path: Path, labels: NDArray[np.uint8]) -> None:
    if labels.max(initial=0) >= N_CLASSES:
        raise _bad_file(path, f"labels from 0 to {N_CLASSES - 1}", f"{labels.max()}")
