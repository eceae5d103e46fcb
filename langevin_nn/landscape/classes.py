"""What an error is: which class a network's outputs say, where labels are one class a sample; and at several positions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

__all__ = ["ERRORS", "class_rule", "errors_of", "rule_of_positions"]

ERRORS = ("class", "sign", "positions", "threshold", "none")

_LOGITS = (0.5, 1.0, 3.0)
_CLASSES, _ROWS = 4, 32  # that are tried, and outputs of which one is clearly the largest, as many of each class
_LABELLINGS = 6  # random ones, of samples with a class at each position
_LEAD = 10.0  # of the largest, beyond what weights of classes do


def class_rule(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, *labels: Tensor
) -> Literal["largest output", "sign"] | None:
    """Return the rule by which outputs say a class, or None where labels are not one class a sample."""
    # Of several outputs, one a class, the largest tells where the loss says so: where the class of an output that is clearly
    # the largest has the least loss of all. Of energies, ordinal logits, or a mean and a variance it does not. Of one output
    # its sign does where the loss says so: where the loss of class 1 at o is that of class 0 at −o, to a factor, and falls
    # as o grows, as for one logit. Any other threshold is not known here.
    if any(each.is_floating_point() or each[0].numel() != 1 for each in labels):
        return None
    smallest, largest = min(int(each.min()) for each in labels), max(int(each.max()) for each in labels)
    if outputs.ndim == 2 and outputs.shape[1] > 1:
        of_each = smallest >= 0 and largest < outputs.shape[1]
        return "largest output" if of_each and _falls_to_the_largest(loss, outputs, labels[0], largest) else None
    of_two = outputs[0].numel() == 1 and smallest >= 0 and largest <= 1
    return "sign" if of_two and _is_of_a_logit(loss, outputs, labels[0]) else None


def _falls_to_the_largest(
    loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor, largest: int
) -> bool:
    """Return whether argmin_k ℓ(o, k) = argmax o where that is clear."""
    tried = torch.linspace(0, max(largest, 1), min(_CLASSES, max(largest, 1) + 1)).long()
    best = tried.repeat(_ROWS // len(tried))
    logits = 3 * torch.randn(len(best), outputs.shape[1], generator=torch.Generator().manual_seed(1))
    logits[torch.arange(len(best)), best] = logits.amax(1) + _LEAD
    probabilities = logits.softmax(1)
    # Probabilities where the network gives such, or where the loss takes nothing else.
    of_one = bool(((outputs >= 0) & (outputs <= 1)).all())
    for each in (probabilities,) if of_one else (logits, probabilities):
        given = each.to(outputs).repeat_interleave(len(tried), 0)
        classes = tried.repeat(len(best)).to(labels).reshape(-1, *(1 for _ in labels.shape[1:]))
        try:
            with torch.no_grad():
                losses = loss(given, classes).reshape(len(best), len(tried)).cpu()
        except (RuntimeError, ValueError, IndexError):
            continue
        if not losses.isnan().any():
            return torch.equal(tried[losses.argmin(1)], best)
    return False


def _is_of_a_logit(loss: Callable[[Tensor, Tensor], Tensor], outputs: Tensor, labels: Tensor) -> bool:
    """Return whether ℓ(o, 1) is a multiple of ℓ(−o, 0) that falls with o."""
    logits = outputs.new_tensor([*_LOGITS, *(-each for each in _LOGITS)]).reshape(-1, *outputs.shape[1:])
    ones = labels.new_ones(len(logits), *labels.shape[1:])
    try:
        with torch.no_grad():
            of_one, of_zero = loss(logits, ones), loss(-logits, 0 * ones)
    except (RuntimeError, ValueError, IndexError):  # of a probability, for example
        return False
    falls = of_one[: len(_LOGITS)] < of_one[len(_LOGITS) :]
    return bool(falls.all()) and torch.allclose(of_one * of_zero[-1], of_zero * of_one[-1], rtol=1e-4, atol=1e-8)


def rule_of_positions(loss: Callable[[Tensor, Tensor], Tensor], outputs: Any, labels: Tensor) -> bool:
    """Return whether labels are one class at each position, tokens or pixels, which the largest output there says."""
    # The loss says so where some random labellings have the least loss of all at outputs that clearly say them; that of a
    # model which predicts the next token does not.
    if not isinstance(outputs, Tensor) or labels.is_floating_point() or labels.ndim < 2:
        return False
    dimension = _dimension_of_classes(outputs, labels)
    if dimension is None:
        return False
    n_classes = outputs.shape[dimension]
    largest = int(labels.max())
    if largest >= n_classes or n_classes < 2:
        return False
    draws = torch.Generator().manual_seed(1)
    said = torch.randint(0, largest + 1, (_LABELLINGS, *labels.shape[1:]), generator=draws).to(labels.device)
    clear = _LEAD * torch.nn.functional.one_hot(said, n_classes).movedim(-1, dimension).to(outputs)
    with torch.no_grad():
        try:
            losses = torch.stack([loss(clear, each.expand(_LABELLINGS, *labels.shape[1:])) for each in said])
        except (RuntimeError, ValueError, IndexError, TypeError):
            return False
    return losses.shape == (_LABELLINGS, _LABELLINGS) and bool(
        (losses.argmin(0).cpu() == torch.arange(_LABELLINGS)).all()
    )


def _dimension_of_classes(outputs: Tensor, labels: Tensor) -> int | None:
    """Return along which dimension outputs have a number for each class, of labels at positions."""
    if outputs.ndim != labels.ndim + 1:
        return None
    if outputs.shape[:-1] == labels.shape:
        return outputs.ndim - 1
    return 1 if outputs.shape[:1] + outputs.shape[2:] == labels.shape else None


def errors_of(rule: str | Callable[..., Tensor], outputs: Any, labels: Tensor, losses: Tensor) -> Tensor:
    """Return the error of each sample, from 0 to 1, by a rule of `ERRORS` or a user's function; NaN where there is none."""
    if callable(rule):
        found = rule(outputs, labels)
    elif rule == "class":
        found = outputs.argmax(-1) != labels.reshape(losses.shape)
    elif rule == "sign":
        found = (outputs.reshape(losses.shape) > 0) != labels.reshape(losses.shape)
    elif rule == "positions":
        wrong = (outputs.argmax(_dimension_of_classes(outputs, labels)) != labels) & (labels >= 0)
        found = wrong.flatten(1).sum(1) / (labels >= 0).flatten(1).sum(1)
    elif rule == "threshold":
        found = ((outputs > 0) != (labels > 0.5)).flatten(1).to(losses.dtype).mean(1)
    else:
        return torch.full_like(losses, torch.nan)
    return found.to(losses.dtype)
