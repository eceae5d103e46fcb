"""A data set that says which of its samples it gives."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError

__all__ = ["IndexedDataset"]


class IndexedDataset(Dataset[tuple[Any, ...]]):
    """A map-style data set with the index of each sample behind what it gives.

    Parameters
    ----------
    dataset : torch.utils.data.Dataset
        Map-style: it has a length and is indexed by whole numbers. A sample that is a tuple gets one entry more, a mapping
        the key ``index``, and anything else becomes a pair.

    Raises
    ------
    ConfigurationError
        If it has no length or cannot be indexed.

    Examples
    --------
    >>> import torch
    >>> from torch.utils.data import DataLoader, TensorDataset
    >>> data = IndexedDataset(TensorDataset(torch.zeros(4, 2), torch.tensor([0, 1, 0, 1])))
    >>> inputs, labels, index = next(iter(DataLoader(data, batch_size=3)))
    >>> index
    tensor([0, 1, 2])
    """

    def __init__(self, dataset: Any) -> None:
        if not (hasattr(dataset, "__getitem__") and hasattr(dataset, "__len__")):
            raise ConfigurationError(
                f"dataset is {kind_of(dataset)}: expected a map-style data set, with a length and samples by index, since "
                "the loss of each sample is followed over epochs; read an iterable one into a list first"
            )
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        sample = self.dataset[index]
        if isinstance(sample, dict):
            return {**sample, "index": index}
        return (*sample, index) if isinstance(sample, tuple | list) else (sample, index)
