"""The gradient ensemble from stored N×P sample gradients: ``torch.func.vmap(grad)``, Opacus and BackPACK.

What a peer gives is kept as it comes, one float32 block a tensor, without a copy. From there all peers share one route,
made as cheap as it gets: norms and projections of the blocks; minibatch gradients gathered by index; then, from the
centred blocks, the smaller one of the P×P covariance and the N×N Gram matrix as a symmetric product (half the
operations of a general one), and all its eigenvalues.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from importlib.util import find_spec

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from langevin_nn import NetworkLandscape
from langevin_nn.ensemble import covariance_factor

__all__ = [
    "BATCH_SIZE",
    "EIGENVALUES",
    "MATRIX",
    "N_MINIBATCHES",
    "N_MODES",
    "ORDER_PARAMETERS",
    "PEERS",
    "Problem",
    "Stages",
    "materialised",
    "noise_matrix",
    "top_eigenvalues",
]

BATCH_SIZE = 25
N_MINIBATCHES = 200
N_MODES = 200

# Peers hook the backward pass of inputs that need no gradient, which torch finds worth a warning.
warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)

# The stages of the job, each with what it found: Tr C, nothing, the largest eigenvalues of C.
ORDER_PARAMETERS, MATRIX, EIGENVALUES = "order parameters", "Gram matrix or covariance", "eigenvalues"
Stages = Iterator[tuple[str, NDArray[np.float64]]]
Blocks = list[Tensor]


@dataclass(frozen=True)
class Problem:
    """A network with its data at one point, and the pattern of the tensors that are measured."""

    module: nn.Module
    inputs: Tensor
    labels: Tensor
    parameters: str = "*"

    @property
    def names(self) -> list[str]:
        """The measured tensors."""
        return [name for name, _ in self.module.named_parameters() if fnmatchcase(name, self.parameters)]

    def landscape(self) -> NetworkLandscape:
        """Return the same as a landscape."""
        return NetworkLandscape(self.module, self.inputs, self.labels, parameters=self.parameters)

    def double(self) -> Problem:
        """Return the same in float64."""
        return replace(self, module=deepcopy(self.module).double(), inputs=self.inputs.double())

    def measured_copy(self) -> tuple[nn.Module, list[nn.Parameter]]:
        """Return a copy of the network whose other tensors are frozen, and its measured tensors."""
        module = deepcopy(self.module)
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(name in self.names)
        return module, [parameter for parameter in module.parameters() if parameter.requires_grad]


def vectorised(problem: Problem) -> Callable[[], Blocks]:
    """Prepare sample gradients by PyTorch's own transforms."""
    parameters = {name: tensor.detach() for name, tensor in problem.module.named_parameters()}
    measured = {name: parameters[name] for name in problem.names}

    def loss(chosen: Mapping[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        outputs = functional_call(problem.module, {**parameters, **chosen}, (x[None],))
        return nn.functional.cross_entropy(outputs, y[None])

    per_sample = vmap(grad(loss), in_dims=(None, 0, 0))
    return lambda: [part.flatten(1) for part in per_sample(measured, problem.inputs, problem.labels).values()]


def taken(parameters: list[nn.Parameter], attribute: str) -> Blocks:
    """Take sample gradients off the tensors that they were left on."""
    blocks = [getattr(parameter, attribute).detach().flatten(1) for parameter in parameters]
    for parameter in parameters:
        parameter.grad = None
        setattr(parameter, attribute, None)
    return blocks


def opacus(problem: Problem) -> Callable[[], Blocks]:
    """Prepare sample gradients by Opacus's hooks."""
    from opacus.grad_sample import GradSampleModule

    module, measured = problem.measured_copy()
    hooked = GradSampleModule(module, loss_reduction="sum")

    def blocks() -> Blocks:
        nn.functional.cross_entropy(hooked(problem.inputs), problem.labels, reduction="sum").backward()
        return taken(measured, "grad_sample")

    return blocks


def backpack(problem: Problem) -> Callable[[], Blocks]:
    """Prepare sample gradients by BackPACK's extension of the backward pass."""
    from backpack import backpack as extension
    from backpack import extend
    from backpack.extensions import BatchGrad

    module, measured = problem.measured_copy()
    extended, loss = extend(module), extend(nn.CrossEntropyLoss(reduction="sum"))

    def blocks() -> Blocks:
        with extension(BatchGrad()):
            loss(extended(problem.inputs), problem.labels).backward()
        return taken(measured, "grad_batch")

    return blocks


ALL_PEERS = {
    "torch.func.vmap(grad)": ("torch", vectorised),
    "Opacus": ("opacus", opacus),
    "BackPACK": ("backpack", backpack),
}
# Those that are installed.
PEERS = {name: make for name, (package, make) in ALL_PEERS.items() if find_spec(package)}


def alignment(blocks: Blocks, indices: Tensor) -> float:
    """Return R from the mean gradients of drawn minibatches."""
    means = [nn.functional.embedding_bag(indices, block, mode="mean") for block in blocks]
    squared_norms = sum(mean.square().sum(1) for mean in means)
    units = [mean / squared_norms.sqrt()[:, None] for mean in means]
    m = len(indices)
    return (float(sum(unit.sum(0).square().sum() for unit in units)) - m) / (m * (m - 1))


def order_parameters(blocks: Blocks) -> dict[str, float]:
    """Return activities, noise, σ² and R from norms and projections."""
    n = len(blocks[0])
    means = [block.mean(0) for block in blocks]
    squared_mean = float(sum(mean.square().sum() for mean in means))
    squared_norms = sum(torch.linalg.vector_norm(block, dim=1).square() for block in blocks)
    along_mean = sum(block @ mean for block, mean in zip(blocks, means, strict=True))
    factor = covariance_factor(n, BATCH_SIZE)
    noise = factor * (float(squared_norms.double().mean()) - squared_mean)
    parallel = factor * float(along_mean.double().var(correction=0)) / squared_mean
    indices = torch.rand(N_MINIBATCHES, n, generator=torch.Generator().manual_seed(0)).topk(BATCH_SIZE, dim=1).indices
    return {
        "activity": squared_mean + noise,
        "parallel_activity": squared_mean + parallel,
        "perpendicular_activity": noise - parallel,
        "noise_strength": noise,
        "projection_variance": parallel / squared_mean,
        "alignment": alignment(blocks, indices),
    }


def noise_matrix(blocks: Blocks, general: bool = False) -> NDArray[np.floating]:
    """Return the smaller one of the covariance and the Gram matrix, times N; the blocks are centred in place."""
    if general:
        return torch.stack([block @ block.T for block in (each.sub_(each.mean(0)) for each in blocks)]).sum(0).numpy()
    centred = [block.sub_(block.mean(0)).numpy() for block in blocks]
    if sum(block.shape[1] for block in centred) < len(centred[0]):
        together = np.concatenate(centred, axis=1) if len(centred) > 1 else centred[0]
        return together.T @ together
    # NumPy sees that a matrix is multiplied by its own transpose and computes half of the product.
    matrix = centred[0] @ centred[0].T
    for block in centred[1:]:
        matrix += block @ block.T
    return matrix


def top_eigenvalues(matrix: NDArray[np.floating], n_samples: int, precision: torch.dtype) -> NDArray[np.float64]:
    """Return the largest eigenvalues of C, descending, from all eigenvalues in a precision."""
    values = torch.linalg.eigvalsh(torch.from_numpy(matrix).to(precision)).flip(0)[:N_MODES]
    return values.double().numpy() * covariance_factor(n_samples, BATCH_SIZE) / n_samples


def materialised(
    sample_gradients: Callable[[], Blocks], precision: torch.dtype = torch.float32, general: bool = False
) -> Stages:
    """Run the job from stored sample gradients; `precision` is that of the eigenvalues."""
    with torch.no_grad():
        with torch.enable_grad():
            blocks = sample_gradients()
        yield ORDER_PARAMETERS, np.array(order_parameters(blocks)["noise_strength"])
        matrix = noise_matrix(blocks, general)
        yield MATRIX, np.empty(0)
        yield EIGENVALUES, top_eigenvalues(matrix, len(blocks[0]), precision)
