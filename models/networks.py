"""Networks without coupling between the samples of a batch: no normalisation over it, no dropout."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import nn

from langevin_nn.errors import ConfigurationError, UnknownNameError

__all__ = ["multilayer_perceptron", "small_convolutional_network"]

_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def multilayer_perceptron(widths: Sequence[int], activation: str = "relu") -> nn.Sequential:
    """Return a fully connected network with a linear last layer.

    With activation φ, layer l of L maps x to φ(W_l x + b_l); the last one has no φ. Weights and biases start from
    PyTorch's default, uniform between -n^{-1/2} and n^{-1/2} for n inputs, drawn from its global generator.

    Parameters
    ----------
    widths : sequence of int
        Number of features at the input, after each hidden layer and at the output.
    activation : {"relu", "tanh", "gelu"}, optional
        Applied after each layer but the last.

    Returns
    -------
    torch.nn.Sequential
        Maps shape (sample, feature) to (sample, class); images have to be flattened before.

    Raises
    ------
    ConfigurationError
        There are fewer than two widths, or one is not positive.
    UnknownNameError
        There is no such activation.

    Examples
    --------
    >>> network = multilayer_perceptron((64, 50, 50, 10))
    >>> sum(weights.numel() for weights in network.parameters())  # 65·50 + 51·50 + 51·10
    6310
    """
    if len(widths) < 2:
        raise ConfigurationError(
            f"widths: expected at least the numbers of inputs and of outputs, got {tuple(widths)}; a layer maps "
            "one width to the next, so give two or more, such as (64, 50, 10)"
        )
    if min(widths) < 1:
        raise ConfigurationError(
            f"widths: expected positive numbers of features, got {tuple(widths)}; a layer without features passes "
            "nothing on, so leave it out or widen it"
        )
    if activation not in _ACTIVATIONS:
        raise UnknownNameError("activation", activation, _ACTIVATIONS)
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise(widths):
        layers += [nn.Linear(n_inputs, n_outputs), _ACTIVATIONS[activation]()]
    return nn.Sequential(*layers[:-1])


def small_convolutional_network(n_classes: int = 10, channels: Sequence[int] = (16, 32, 32, 64)) -> nn.Sequential:
    """Return a convolutional network of four layers for images of 3×32×32.

    Each layer is a 3×3 convolution with zero padding and a ReLU. Maxima over 2×2 pixels follow the first three and
    halve the image, 32 → 16 → 8 → 4; the mean over the remaining 4×4 pixels follows the last; a linear layer maps
    the channels to the classes. There is no batch normalisation, so the loss of a sample depends on that sample and
    the weights alone. The weights start from PyTorch's default, drawn from its global generator.

    Parameters
    ----------
    n_classes : int, optional
        Number of outputs.
    channels : sequence of four int, optional
        Number of channels after each convolution.

    Returns
    -------
    torch.nn.Sequential
        Maps shape (sample, channel, row, column) = (sample, 3, 32, 32) to (sample, class).

    Raises
    ------
    ConfigurationError
        There are not four numbers of channels, or a number is not positive.

    Examples
    --------
    >>> network = small_convolutional_network()
    >>> sum(weights.numel() for weights in network.parameters())  # 28·16 + 145·32 + 289·32 + 289·64 + 65·10
    33482
    """
    if len(channels) != 4:
        raise ConfigurationError(
            f"channels: expected four numbers, one for each convolution, got {tuple(channels)}; the pooling is "
            "made for four, so give four, such as (16, 32, 32, 64)"
        )
    if min(n_classes, *channels) < 1:
        raise ConfigurationError(
            f"n_classes and channels: expected positive numbers, got {n_classes} and {tuple(channels)}; a layer "
            "without outputs passes nothing on, so raise the number"
        )
    layers: list[nn.Module] = []
    for n_inputs, n_outputs in pairwise((3, *channels)):
        layers += [nn.Conv2d(n_inputs, n_outputs, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    layers[-1] = nn.AvgPool2d(4)
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels[-1], n_classes))
