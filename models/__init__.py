"""What the studies train: data sets of small images, noisy labels and networks."""

from .datasets import DATASETS, DataSet, ImageData, Setting, load_dataset
from .label_noise import NoisyLabels, corrupt_labels
from .networks import multilayer_perceptron, small_convolutional_network

__all__ = [
    "DATASETS",
    "DataSet",
    "ImageData",
    "NoisyLabels",
    "Setting",
    "corrupt_labels",
    "load_dataset",
    "multilayer_perceptron",
    "small_convolutional_network",
]
