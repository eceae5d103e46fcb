"""A user's module as a function from samples to outputs: inputs are spread, and outputs picked."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from torch import Tensor, nn

from langevin_nn.checks import kind_of
from langevin_nn.errors import ConfigurationError
from langevin_nn.gradients.samples import Samples, arguments

__all__ = ["OutputRule", "Picked", "Spread", "output_rule"]

OutputRule: TypeAlias = int | str | Callable[[Any], Samples] | None


class Spread:
    """Before a pass: samples of several tensors become the arguments of the network."""

    def __call__(self, module: nn.Module, given: tuple[Any, ...], named: dict[str, Any]) -> Any:
        """Return the arguments."""
        del module
        if len(given) != 1:
            return None
        spread, by_name = arguments(given[0])
        return spread, {**by_name, **named}


class Picked:
    """After a pass: the outputs that the loss takes, by their position, their name or a user's function."""

    def __init__(self, rule: int | str | Callable[[Any], Samples]) -> None:
        self.rule = rule

    def __call__(self, module: nn.Module, given: Any, returned: Any) -> Samples:
        """Return the outputs."""
        del module, given
        if callable(self.rule):
            return self.rule(returned)
        try:
            if isinstance(self.rule, str) and not isinstance(returned, Mapping):
                return getattr(returned, self.rule)
            return returned[self.rule]
        except (KeyError, IndexError, AttributeError, TypeError) as error:
            there = ", ".join(map(str, returned)) if isinstance(returned, Mapping) else kind_of(returned)
            raise ConfigurationError(
                f"output={self.rule!r}: the network returned {there}, which has none of that name or position; "
                "expected one that "
                "it has, or a function of what it returns"
            ) from error


def output_rule(given: OutputRule, returned: Any) -> int | str | Callable[[Any], Samples] | None:
    """Return how outputs are picked: as said; by the name ``logits`` where there is one; None for a tensor as it is."""
    if given is not None:
        if isinstance(given, bool) or not (isinstance(given, int | str) or callable(given)):
            raise ConfigurationError(
                f"output is {kind_of(given)}: expected a position (int), a name (str) or a function of what the "
                "network returns"
            )
        return given
    if isinstance(returned, Tensor):
        return None
    logits = returned.get("logits") if isinstance(returned, Mapping) else getattr(returned, "logits", None)
    return "logits" if isinstance(logits, Tensor) else None
