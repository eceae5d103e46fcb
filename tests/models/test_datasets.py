import gzip
import os
import struct
from pathlib import Path

import numpy as np
import pooch
import pytest
from cases import ROOT
from sklearn.datasets import load_digits

from langevin_nn.errors import ConfigurationError, UnknownNameError
from models import DATASETS, ImageData, datasets, load_dataset

MNIST_FILES = {
    "train": ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"),
    "test": ("t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte.gz"),
}


def idx(magic, array):
    return struct.pack(f">I{array.ndim}I", magic, *array.shape) + array.astype(np.uint8).tobytes()


def write_mnist(folder, part, n_per_class, *, image_magic=2051, label_magic=2049, side=28, n_labels=None):
    """Image k has the pixel 5 everywhere, but k in its first pixel and 255 in its last."""
    labels = np.tile(np.arange(10), n_per_class)
    images = np.full((len(labels), side, side), 5)
    images[:, 0, 0], images[:, -1, -1] = np.arange(len(labels)), 255
    image_file, label_file = MNIST_FILES[part]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / image_file).write_bytes(gzip.compress(idx(image_magic, images)))
    (folder / label_file).write_bytes(gzip.compress(idx(label_magic, labels[:n_labels])))
    return labels


def write_cifar(path, labels):
    """Red, green and blue of image k are k, 100 and 200; the second pixel of the first row is 255 in red."""
    path.parent.mkdir(parents=True, exist_ok=True)
    records = []
    for k, label in enumerate(labels):
        planes = [bytearray([value]) * 1024 for value in (k, 100, 200)]
        planes[0][1] = 255
        records.append(bytes([label]) + b"".join(planes))
    path.write_bytes(b"".join(records))


@pytest.fixture(autouse=True)
def _no_variable(monkeypatch):
    monkeypatch.delenv("LANGEVIN_NN_DATA", raising=False)


# The environment is read at import, before the fixture hides it from the code under test.
REAL = Path(os.environ.get("LANGEVIN_NN_DATA") or ROOT.resolve() / ".." / "shared" / "data")


def real_folder(*files):
    for subfolder, file in files:
        if not (REAL / file).is_file() and not (REAL / subfolder / file).is_file():
            pytest.skip(f"{file} is not in the folder of LANGEVIN_NN_DATA")
    return REAL


def one_line(caught):
    message = str(caught.value)
    assert "\n" not in message
    assert "expected" in message
    assert "got" in message
    return message


def assert_well_formed(data: ImageData):
    for inputs, labels in ((data.train_inputs, data.train_labels), (data.test_inputs, data.test_labels)):
        assert inputs.dtype == np.float32
        assert labels.dtype == np.int64
        assert labels.shape == inputs.shape[:1]
        assert inputs.flags.writeable
        assert inputs.min() >= 0
        assert inputs.max() <= 1
        assert set(labels.tolist()) == set(range(data.n_classes))


def n_shared_images(data: ImageData):
    train = {image.tobytes() for image in data.train_inputs}
    return sum(image.tobytes() in train for image in data.test_inputs)


# Any data set


def test_unknown_name_lists_the_known_ones():
    with pytest.raises(
        UnknownNameError, match=r"unknown data set 'minst': .* digits, mnist, mnist10k, cifar10; .*'mnist'"
    ):
        load_dataset("minst")


@pytest.mark.parametrize("name", DATASETS)
@pytest.mark.parametrize("samples_per_class", [0, -3, 1.5, True])
def test_samples_per_class_below_one_is_refused_before_any_file_is_read(name, samples_per_class):
    with pytest.raises(
        ConfigurationError, match=rf"samples_per_class: .* at least 1, got {samples_per_class}"
    ) as caught:
        load_dataset(name, samples_per_class=samples_per_class)
    one_line(caught)


@pytest.mark.parametrize("name", ["mnist10k", "cifar10"])
class TestFolder:
    def test_neither_argument_nor_variable(self, name):
        with pytest.raises(
            ConfigurationError, match="neither data_dir nor the environment variable LANGEVIN_NN_DATA"
        ) as caught:
            load_dataset(name)
        assert "digits" in one_line(caught)

    def test_argument_names_no_folder(self, name, tmp_path):
        with pytest.raises(ConfigurationError, match=r"existing folder in data_dir, got '.*nowhere'") as caught:
            load_dataset(name, data_dir=tmp_path / "nowhere")
        one_line(caught)

    def test_variable_names_no_folder(self, name, tmp_path, monkeypatch):
        monkeypatch.setenv("LANGEVIN_NN_DATA", str(tmp_path / "nowhere"))
        with pytest.raises(ConfigurationError, match="existing folder in the environment variable LANGEVIN_NN_DATA"):
            load_dataset(name)

    def test_empty_folder_names_the_missing_file(self, name, tmp_path):
        file = {"mnist10k": "t10k-images-idx3-ubyte.gz", "cifar10": "test_batch.bin"}[name]
        with pytest.raises(ConfigurationError, match=f"expected the file {file}") as caught:
            load_dataset(name, data_dir=tmp_path)
        assert str(tmp_path) in one_line(caught)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"train_labels": np.zeros(3, dtype=int)}, r"train_labels, got shapes \(4, 2\) and \(3,\)"),
        ({"train_inputs": np.zeros(4)}, r"train_inputs of shape \(sample, feature\)"),
        ({"test_labels": np.zeros(1)}, "test_labels, got .* of float64"),
        ({"test_labels": np.array([2])}, "test_labels from 0 to n_classes - 1 = 1, got 2 to 2"),
        ({"test_labels": np.array([-1])}, "got -1 to -1"),
    ],
)
def test_what_is_no_data_is_refused(change, said):
    inputs = np.zeros((4, 2), dtype=np.float32)
    whole = {
        "train_inputs": inputs,
        "train_labels": np.array([0, 1, 0, 1]),
        "test_inputs": inputs[:1],
        "test_labels": np.array([1]),
    }
    ImageData("own", **whole, n_classes=2)
    with pytest.raises(ConfigurationError, match=said):
        ImageData("own", **(whole | change), n_classes=2)


# Digits


def test_digits_are_the_first_of_each_class_and_all_the_rest():
    data = load_dataset("digits")
    source = load_digits()
    train, test, seen = [], [], dict.fromkeys(range(10), 0)
    for image, label in zip(source.data, source.target, strict=True):
        seen[label] += 1
        (train if seen[label] <= 120 else test).append((image / 16, label))
    for rows, inputs, labels in (
        (train, data.train_inputs, data.train_labels),
        (test, data.test_inputs, data.test_labels),
    ):
        np.testing.assert_array_equal(inputs, [image for image, _ in rows])  # sixteenths are exact in float32
        np.testing.assert_array_equal(labels, [label for _, label in rows])
    assert_well_formed(data)
    assert data.train_inputs.max() == 1
    assert len(data.train_labels) == 1200
    assert len(data.test_labels) == 597
    assert n_shared_images(data) == 0


def test_digits_are_the_same_where_scikit_learn_keeps_them_elsewhere(monkeypatch):
    expected = load_dataset("digits")
    monkeypatch.setattr(datasets, "find_spec", lambda name: None)
    np.testing.assert_array_equal(load_dataset("digits").train_inputs, expected.train_inputs)


def test_fewer_digits_are_among_more():
    few, many = (load_dataset("digits", samples_per_class=n) for n in (3, 30))
    many_images = {image.tobytes() for image in many.train_inputs}
    assert all(image.tobytes() in many_images for image in few.train_inputs)
    assert np.bincount(few.train_labels).tolist() == [3] * 10


def test_more_digits_than_there_are():
    rarest = np.unique(load_digits().target, return_counts=True)[1].min()
    assert len(load_dataset("digits", samples_per_class=int(rarest)).train_labels) == 10 * rarest
    with pytest.raises(ConfigurationError, match=f"data set digits: .* at most {rarest}, got {rarest + 1}") as caught:
        load_dataset("digits", samples_per_class=int(rarest) + 1)
    assert f"only {rarest} images of class 8" in one_line(caught)


# MNIST


@pytest.mark.parametrize("subfolder", ["", "mnist"])
@pytest.mark.parametrize("by_variable", [False, True])
def test_mnist10k_splits_the_test_file(tmp_path, monkeypatch, subfolder, by_variable):
    labels = write_mnist(tmp_path / subfolder, "test", 6)
    if by_variable:
        monkeypatch.setenv("LANGEVIN_NN_DATA", str(tmp_path))
    data = load_dataset("mnist10k", samples_per_class=4, data_dir=None if by_variable else str(tmp_path))
    assert_well_formed(data)
    assert data.train_inputs.shape == (40, 784)
    # The first pixel counts the images in the file.
    np.testing.assert_allclose(data.train_inputs[:, 0] * 255, np.arange(40), rtol=1e-6)
    np.testing.assert_allclose(data.test_inputs[:, 0] * 255, np.arange(40, 60), rtol=1e-6)
    np.testing.assert_array_equal(np.concatenate([data.train_labels, data.test_labels]), labels)
    assert (data.train_inputs[:, -1] == 1).all()
    np.testing.assert_allclose(data.train_inputs[:, 1:-1], 5 / 255, rtol=1e-6)


def test_argument_goes_before_variable(tmp_path, monkeypatch):
    write_mnist(tmp_path, "test", 3)
    monkeypatch.setenv("LANGEVIN_NN_DATA", str(tmp_path / "nowhere"))
    assert len(load_dataset("mnist10k", samples_per_class=1, data_dir=tmp_path).test_labels) == 20


def test_mnist10k_takes_400_of_each_unless_told(tmp_path):
    write_mnist(tmp_path, "test", 2)
    with pytest.raises(ConfigurationError, match="at most 2, got 400; there are only 2 images of class 0"):
        load_dataset("mnist10k", data_dir=tmp_path)


@pytest.mark.parametrize(("samples_per_class", "n_train"), [(None, 50), (2, 20)])
def test_mnist_from_a_folder_keeps_the_two_files_apart(tmp_path, samples_per_class, n_train):
    write_mnist(tmp_path / "mnist", "train", 5)
    write_mnist(tmp_path, "test", 3)
    data = load_dataset("mnist", samples_per_class=samples_per_class, data_dir=tmp_path)
    assert_well_formed(data)
    np.testing.assert_allclose(data.train_inputs[:, 0] * 255, np.arange(n_train), rtol=1e-6)
    np.testing.assert_allclose(data.test_inputs[:, 0] * 255, np.arange(30), rtol=1e-6)
    with pytest.raises(ConfigurationError, match=r"data set mnist: .* at most 5, got 6"):
        load_dataset("mnist", samples_per_class=6, data_dir=tmp_path)


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        ({"image_magic": 2052}, "images.*magic number 00000803, got first bytes 00000804"),
        ({"image_magic": 2049}, "images.*magic number 00000803, got first bytes 00000801"),
        ({"label_magic": 2051}, "labels.*magic number 00000801, got first bytes 00000803"),
        ({"side": 27}, "images.*28×28 pixels, got 27×27"),
        ({"n_labels": 19}, "labels.*20 labels, one for each image, got 19"),
    ],
)
def test_foreign_idx_file(tmp_path, faults, message):
    write_mnist(tmp_path, "test", 2, **faults)
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_dataset("mnist10k", samples_per_class=1, data_dir=tmp_path)
    assert "truncated or something else" in one_line(caught)


def cut_gzip(content):
    return content[: len(content) // 2]


def cut_inside(content):
    return gzip.compress(gzip.decompress(content)[:-1])


def append_inside(content):
    return gzip.compress(gzip.decompress(content) + b"\0")


def corrupt_gzip(content):
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 8]) + content[middle + 8 :]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_gzip, "complete gzip file, got EOFError"),
        (lambda content: content[:-6], "complete gzip file, got EOFError"),
        (corrupt_gzip, "complete gzip file, got (error|BadGzipFile|EOFError)"),
        (gzip.decompress, "complete gzip file, got BadGzipFile"),
        (lambda content: b"", "got first bytes none"),
        (lambda content: gzip.compress(gzip.decompress(content)[:10]), "magic number 00000803, got"),
        (cut_inside, r"15680 bytes for shape \(20, 28, 28\), got 15679"),
        (append_inside, r"15680 bytes for shape \(20, 28, 28\), got 15681"),
    ],
)
def test_damaged_idx_file(tmp_path, damage, message):
    write_mnist(tmp_path, "test", 2)
    path = tmp_path / "t10k-images-idx3-ubyte.gz"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ConfigurationError, match=message) as caught:
        load_dataset("mnist10k", samples_per_class=1, data_dir=tmp_path)
    assert path.name in one_line(caught)


def test_label_that_is_no_digit(tmp_path):
    write_mnist(tmp_path, "test", 2)
    labels = np.tile(np.arange(10), 2)
    labels[7] = 10
    (tmp_path / MNIST_FILES["test"][1]).write_bytes(gzip.compress(idx(2049, labels)))
    with pytest.raises(ConfigurationError, match="labels from 0 to 9, got 10"):
        load_dataset("mnist10k", samples_per_class=1, data_dir=tmp_path)


class TestDownload:
    @pytest.fixture(autouse=True)
    def _fresh_cache(self, tmp_path, monkeypatch):
        monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)

    @staticmethod
    def serve(monkeypatch, folder):
        """Replace the network by a folder; an address without a file is an error, as on a dead network."""
        asked = []

        def fetch(self, url, output_file, pooch, check_only=False):
            asked.append(url)
            path = folder / url.rsplit("/", 1)[1]
            if not path.exists():
                raise ConnectionError("no route\nto host")
            Path(output_file).write_bytes(path.read_bytes())

        monkeypatch.setattr(pooch.HTTPDownloader, "__call__", fetch)
        return asked

    @staticmethod
    def accept(monkeypatch, folder):
        hashes = {file: pooch.file_hash(str(folder / file)) for pair in MNIST_FILES.values() for file in pair}
        monkeypatch.setattr(datasets, "MNIST_HASHES", hashes)

    def test_each_file_is_fetched_once_and_then_cached(self, tmp_path, monkeypatch):
        server = tmp_path / "server"
        write_mnist(server, "train", 4)
        write_mnist(server, "test", 2)
        self.accept(monkeypatch, server)
        asked = self.serve(monkeypatch, server)
        for _ in range(2):
            data = load_dataset("mnist")
            assert data.train_inputs.shape == (40, 784)
            assert data.test_inputs.shape == (20, 784)
        base = "https://ossci-datasets.s3.amazonaws.com/mnist/"
        assert sorted(asked) == sorted(base + file for pair in MNIST_FILES.values() for file in pair)

    def test_dead_network_says_what_was_tried_and_what_else_there_is(self, tmp_path, monkeypatch):
        self.serve(monkeypatch, tmp_path)
        with pytest.raises(ConfigurationError, match="data set mnist: expected to download https://ossci") as caught:
            load_dataset("mnist")
        message = one_line(caught)
        for part in ("train-images-idx3-ubyte.gz", "ConnectionError: no route to host", "--data-dir", "mnist10k"):
            assert part in message

    def test_folder_that_lacks_files_is_named_when_the_network_is_dead_too(self, tmp_path, monkeypatch):
        self.serve(monkeypatch, tmp_path / "server")
        write_mnist(tmp_path / "data", "test", 2)
        with pytest.raises(
            ConfigurationError, match=r"lacks train-images-idx3-ubyte.gz, train-labels-idx1-ubyte.gz;"
        ) as caught:
            load_dataset("mnist", data_dir=tmp_path / "data")
        assert str(tmp_path / "data") in one_line(caught)

    def test_wrong_checksum_is_refused(self, tmp_path, monkeypatch):
        write_mnist(tmp_path, "train", 2)
        self.serve(monkeypatch, tmp_path)
        with pytest.raises(ConfigurationError, match=r"got ValueError: .*hash") as caught:
            load_dataset("mnist")
        one_line(caught)

    def test_folder_that_does_not_exist_is_no_reason_to_download(self, tmp_path, monkeypatch):
        asked = self.serve(monkeypatch, tmp_path)
        with pytest.raises(ConfigurationError, match="data set mnist: expected an existing folder in data_dir"):
            load_dataset("mnist", data_dir=tmp_path / "nowhere")
        assert not asked


# CIFAR-10


@pytest.mark.parametrize("subfolder", ["", "cifar-10-batches-bin"])
def test_cifar10_reads_every_batch_in_order(tmp_path, subfolder):
    write_cifar(tmp_path / subfolder / "data_batch_2.bin", range(9, -1, -1))
    write_cifar(tmp_path / subfolder / "data_batch_1.bin", range(10))
    write_cifar(tmp_path / subfolder / "test_batch.bin", [*range(10), 3])
    data = load_dataset("cifar10", data_dir=tmp_path)
    assert_well_formed(data)
    assert data.train_inputs.shape == (20, 3, 32, 32)
    assert data.train_labels.tolist() == [*range(10), *range(9, -1, -1)]
    assert data.test_labels.tolist() == [*range(10), 3]
    red, green, blue = np.round(data.test_inputs[7] * 255)
    assert red[0, 1] == 255
    assert (np.delete(red.ravel(), 1) == 7).all()
    assert (green == 100).all()
    assert (blue == 200).all()


def test_cifar10_takes_the_first_of_each_class(tmp_path):
    write_cifar(tmp_path / "data_batch_1.bin", [*range(10), 4, *range(10)])
    write_cifar(tmp_path / "test_batch.bin", range(10))
    data = load_dataset("cifar10", samples_per_class=1, data_dir=tmp_path)
    np.testing.assert_array_equal(np.round(data.train_inputs[:, 0, 0, 0] * 255), np.arange(10))
    with pytest.raises(ConfigurationError, match=r"data set cifar10: .* at most 2, got 3; .* class 0"):
        load_dataset("cifar10", samples_per_class=3, data_dir=tmp_path)


def test_cifar10_without_training_batch(tmp_path):
    write_cifar(tmp_path / "test_batch.bin", range(10))
    with pytest.raises(ConfigurationError, match=r"data set cifar10: expected the file data_batch_1.bin") as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    one_line(caught)


@pytest.mark.parametrize("size", [0, 3072, 3073 * 2 - 1, 3074])
def test_truncated_cifar10_file(tmp_path, size):
    write_cifar(tmp_path / "data_batch_1.bin", range(10))
    (tmp_path / "test_batch.bin").write_bytes(bytes(size))
    with pytest.raises(
        ConfigurationError, match=f"test_batch.bin': expected a multiple of 3073 bytes, .* got {size};"
    ) as caught:
        load_dataset("cifar10", data_dir=tmp_path)
    one_line(caught)


def test_foreign_cifar10_labels(tmp_path):
    write_cifar(tmp_path / "data_batch_1.bin", [*range(9), 77])
    write_cifar(tmp_path / "test_batch.bin", range(10))
    with pytest.raises(ConfigurationError, match=r"data_batch_1.bin': expected labels from 0 to 9, got 77"):
        load_dataset("cifar10", data_dir=tmp_path)


# The real files


def test_real_mnist10k():
    folder = real_folder(*(("mnist", file) for file in MNIST_FILES["test"]))
    data = load_dataset("mnist10k", data_dir=folder)
    assert_well_formed(data)
    assert data.train_inputs.shape == (4000, 784)
    assert np.bincount(data.train_labels).tolist() == [400] * 10
    published = np.array([980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009])
    np.testing.assert_array_equal(np.bincount(data.test_labels), published - 400)
    assert data.train_inputs.max() == 1
    assert n_shared_images(data) == 0
    # Every digit was shifted by whole pixels to bring its centre of mass to the middle, row and column 14.
    images = data.train_inputs.reshape(-1, 28, 28)
    mass = images.sum(axis=(1, 2))
    for axis in (1, 2):
        centres = (images.sum(axis=3 - axis) @ np.arange(28)) / mass
        assert np.abs(centres - 14).max() < 1.1
    # A one is a thin stroke, a zero is hollow in the middle.
    middle = {digit: images[data.train_labels == digit][:, 13:15, 13:15].mean() for digit in (0, 1)}
    assert middle[1] > 0.5 > 0.2 > middle[0]


def test_checksums_of_real_mnist_files():
    folder = real_folder(*(("mnist", file) for file in MNIST_FILES["test"]))
    for file in MNIST_FILES["test"]:
        path = next(path for path in (folder / file, folder / "mnist" / file) if path.is_file())
        assert pooch.file_hash(str(path)) == datasets.MNIST_HASHES[file].removeprefix("sha256:")


def test_real_cifar10():
    files = [("cifar-10-batches-bin", file) for file in ("data_batch_1.bin", "test_batch.bin")]
    folder = real_folder(*files)
    data = load_dataset("cifar10", samples_per_class=100, data_dir=folder)
    assert_well_formed(data)
    assert data.train_inputs.shape == (1000, 3, 32, 32)
    assert np.bincount(data.train_labels).tolist() == [100] * 10
    assert len(set(np.bincount(data.test_labels).tolist())) == 1  # the test set is balanced
    assert n_shared_images(data) == 0
    # Neighbours in a row and in a column are alike, and so are the colours of one pixel: the axes are in order.
    pixels = data.train_inputs - data.train_inputs.mean()
    variance = (pixels**2).mean()
    for near, far in (
        (pixels[..., 1:], pixels[..., :-1]),
        (pixels[:, :, 1:], pixels[:, :, :-1]),
        (pixels[:, 0], pixels[:, 1]),
    ):
        assert (near * far).mean() > 0.8 * variance
    # Ships (8) and aeroplanes (0) are bluer than frogs (6) and deer (4).
    blueness = [
        (data.train_inputs[data.train_labels == k, 2] - data.train_inputs[data.train_labels == k, 0]).mean()
        for k in range(10)
    ]
    assert min(blueness[0], blueness[8]) > max(blueness[6], blueness[4])
