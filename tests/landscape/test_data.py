"""Data, outputs and errors as users have them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, Dataset, IterableDataset, TensorDataset

from langevin_nn import NetworkLandscape, Seeds, advance, compare, gradient_ensemble, langevin, sgd, simulate
from langevin_nn.errors import ConfigurationError, LangevinError, RandomDataWarning
from langevin_nn.observables import Losses, OrderParameters, SampleLosses, Weights
from langevin_nn.schedules import EverySteps

GENERATOR = torch.Generator().manual_seed(0)
X, MASK = torch.randn(60, 4, 3, generator=GENERATOR), torch.rand(60, 4, generator=GENERATOR) < 0.7
MASK[:, 0] = True
Y = (X[:, 0, 0] > 0).long()
TOKENS = torch.randint(0, 7, (60, 6), generator=GENERATOR)
RUN = {"steps": 6, "replicas": 2, "schedule": EverySteps(3), "progress": False}


class Masked(nn.Module):
    """The mean over those positions of a sequence that are there."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x, mask):
        h = self.a(x).tanh() * mask[..., None]
        return self.b(h.sum(1) / mask.sum(1, keepdim=True))


class Joined(nn.Module):
    """The same network, of one tensor."""

    def __init__(self):
        super().__init__()
        self.inner = Masked()

    def forward(self, both):
        return self.inner(both[..., :3], both[..., 3] > 0.5)


def made(kind: type[nn.Module], inputs, labels=Y, **options) -> NetworkLandscape:
    torch.manual_seed(0)
    return NetworkLandscape(kind(), inputs, labels, start="own", **options)


class Named(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, k):
        return {"x": X[k], "mask": MASK[k], "labels": int(Y[k])}


@pytest.mark.parametrize(
    "inputs",
    [
        (X, MASK),
        {"mask": MASK, "x": X},
        {"x": X.numpy(), "mask": MASK.numpy()},
        TensorDataset(X, MASK, Y),
        Named(),
        DataLoader(Named(), batch_size=7, shuffle=True),
    ],
    ids=["tuple", "mapping", "arrays", "dataset", "named dataset", "loader"],
)
def test_several_inputs_are_one_network(inputs):
    """Weights, losses, gradients and ensembles are those of the network that takes one tensor apart."""
    landscape = made(Masked, inputs, None if isinstance(inputs, Dataset | DataLoader) else Y)
    other = made(Joined, torch.cat([X, MASK[..., None].float()], dim=2))
    torch.testing.assert_close(landscape.own_weights, other.own_weights)
    for process in (sgd, langevin):
        states = [
            advance(each, each.start(2, seed=0), 6) for each in (process(landscape, 0.1, 5), process(other, 0.1, 5))
        ]
        torch.testing.assert_close(states[0].weights, states[1].weights, rtol=1e-4, atol=1e-6)
    both = [gradient_ensemble(each, each.own_weights, 5).closed_forms() for each in (landscape, other)]
    for name, values in both[0].items():
        np.testing.assert_allclose(values, both[1][name], rtol=1e-4, err_msg=name)
    run = simulate(sgd(landscape, 0.1, 5), observables=[Losses(), OrderParameters(4), SampleLosses()], **RUN)
    assert np.isfinite(run.train_error.sel(cohort="all")).all()
    assert "4 × 3" in repr(landscape)


def test_rows_in_a_tuple_are_an_array():
    landscape = NetworkLandscape(nn.Linear(2, 2), ((0.0, 1.0), (2.0, 3.0)), (0, 1))
    assert landscape.inputs.tolist() == [[0.0, 1.0], [2.0, 3.0]]


def token_loss(outputs, labels):
    return functional.cross_entropy(outputs.mT, labels, reduction="none").mean(1)


def next_token_loss(outputs, labels):
    return functional.cross_entropy(outputs[:, :-1].mT, labels[:, 1:], reduction="none").mean(1)


def test_the_error_of_a_sequence_is_the_share_of_wrong_tokens():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    landscape = NetworkLandscape(model, TOKENS, TOKENS, loss=token_loss)
    weights = landscape.initial_weights((0, 1), Seeds(0))
    losses, errors = landscape.losses_and_errors(weights)
    said = landscape.outputs(weights, TOKENS).argmax(-1)
    np.testing.assert_allclose(errors, (said != TOKENS).double().mean(-1), rtol=1e-6)
    assert losses.shape == (2, 60)
    run = simulate(sgd(landscape, 0.5, 5), **RUN)
    assert np.isfinite(run.train_error.sel(cohort="all")).all()
    # Of a model that predicts the next token, the largest output at a position says nothing of the token there.
    other = NetworkLandscape(model, TOKENS, TOKENS, loss=next_token_loss)
    assert not other.has_error
    assert other.losses_and_errors(weights)[1].isnan().all()
    of_next = NetworkLandscape(
        model, TOKENS, TOKENS, loss=next_token_loss,
        error=lambda o, t: (o[:, :-1].argmax(-1) != t[:, 1:]).float().mean(1),
    )  # fmt: skip
    np.testing.assert_allclose(
        of_next.losses_and_errors(weights)[1], (said[..., :-1] != TOKENS[:, 1:]).double().mean(-1)
    )


def test_positions_that_are_padded_do_not_count():
    labels = TOKENS.clone()
    labels[:, 4:] = -100
    landscape = NetworkLandscape(
        nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7)), TOKENS, labels, loss=token_loss, error="positions"
    )
    weights = landscape.initial_weights((0,), Seeds(0))
    said = landscape.outputs(weights, TOKENS)[0].argmax(-1)
    expected = (said != TOKENS)[:, :4].double().mean(1)
    np.testing.assert_allclose(landscape.losses_and_errors(weights)[1][0], expected, rtol=1e-6)


def test_errors_of_pixels_of_several_labels_and_of_one_logit():
    images, pixels = torch.randn(20, 1, 6, 6, generator=GENERATOR), torch.randint(0, 3, (20, 6, 6), generator=GENERATOR)
    of_pixels = NetworkLandscape(
        nn.Conv2d(1, 3, 3, padding=1), images, pixels,
        loss=lambda o, t: functional.cross_entropy(o, t, reduction="none").mean((1, 2)),
    )  # fmt: skip
    weights = of_pixels.own_weights[None]
    wrong = (of_pixels.outputs(weights, images)[0].argmax(1) != pixels).double().mean((1, 2))
    np.testing.assert_allclose(of_pixels.losses_and_errors(weights)[1][0], wrong, rtol=1e-6)

    several = (X[:, :, 0] > 0).long()
    of_several = NetworkLandscape(
        nn.Sequential(nn.Flatten(), nn.Linear(12, 4)), X, several, error="threshold",
        loss=lambda o, t: functional.binary_cross_entropy_with_logits(o, t.float(), reduction="none").mean(1),
    )  # fmt: skip
    weights = of_several.own_weights[None]
    wrong = ((of_several.outputs(weights, X)[0] > 0) != (several > 0)).double().mean(1)
    np.testing.assert_allclose(of_several.losses_and_errors(weights)[1][0], wrong, rtol=1e-6)
    simulate(sgd(of_several, 0.1, 5), observables=[Losses(), SampleLosses()], **RUN)

    one = NetworkLandscape(
        nn.Linear(3, 1), X[:, 0], Y,
        loss=lambda o, t: functional.binary_cross_entropy_with_logits(o.squeeze(-1), t.float(), reduction="none"),
    )  # fmt: skip
    assert float(one.losses_and_errors(torch.tensor([[9.0, 0, 0, 0]]))[1].mean()) == 0
    none = NetworkLandscape(nn.Linear(3, 2), X[:, 0], Y, error="none")
    assert none.losses_and_errors(none.own_weights[None])[1].isnan().all()


class Autoencoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder, self.decoder = nn.Linear(3, 4), nn.Linear(2, 3)

    def forward(self, x):
        mean, logarithm = self.encoder(x).chunk(2, dim=1)
        return {"image": self.decoder(mean), "mean": mean, "logarithm": logarithm}


def evidence(outputs, labels):
    reconstruction, mean, logarithm = outputs
    return (reconstruction - labels).square().sum(1) + 0.5 * (mean**2 + logarithm.exp() - logarithm - 1).sum(1)


def test_outputs_are_picked_and_may_be_several():
    picked = made(
        Autoencoder, X[:, 0], X[:, 0], loss=evidence, output=lambda o: (o["image"], o["mean"], o["logarithm"])
    )
    module = Autoencoder()
    nn.utils.vector_to_parameters(picked.own_weights, module.parameters())
    expected = evidence(tuple(module(X[:, 0]).values()), X[:, 0]).detach()
    torch.testing.assert_close(picked.losses_and_errors(picked.own_weights[None])[0][0], expected)
    simulate(sgd(picked, 0.01, 5), observables=[Losses(), OrderParameters(4)], **RUN)
    by_name = made(Autoencoder, X[:, 0], X[:, 0], loss=lambda o, t: (o - t).square().sum(1), output="image")
    assert by_name.description["output"] == "image"
    recurrent = NetworkLandscape(nn.LSTM(3, 2, batch_first=True), X, Y, output=lambda o: o[0][:, -1])
    simulate(sgd(recurrent, 0.1, 5), observables=Weights(), **RUN)
    with pytest.raises(ConfigurationError, match=r"returned something of type tuple: .* say with output="):
        NetworkLandscape(nn.LSTM(3, 2, batch_first=True), X, Y)
    with pytest.raises(ConfigurationError, match=r"output='images': the network returned image, mean, logarithm"):
        made(Autoencoder, X[:, 0], X[:, 0], loss=evidence, output="images")


class Noisy(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, k):
        return X[k, 0] + 0.1 * torch.randn(3), Y[k]


class Stream(IterableDataset):
    def __iter__(self):
        return iter(TensorDataset(X, Y))


class Ragged(Dataset):
    def __len__(self):
        return 60

    def __getitem__(self, k):
        return X[k, : 1 + k % 3], Y[k]


class Told(Named):
    def __getitem__(self, k):
        return super().__getitem__(k) | {"text": f"sample {k}"}


class Uneven(Named):
    def __getitem__(self, k):
        return super().__getitem__(k) | ({"weight": 1.0} if k == 57 else {})


class Absent(Named):
    def __getitem__(self, k):
        return None if k == 57 else (X[k], Y[k])


def without_a_gradient(outputs, labels):
    return nn.functional.cross_entropy(outputs.detach(), labels, reduction="none")


def never_a_number(outputs, labels):
    return outputs.sum(1) * float("nan")


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (without_a_gradient, r"do not depend on any weight.*leave out detach\(\)"),
        (never_a_number, "losses of all samples that were tried are NaN"),
    ],
)
def test_losses_that_no_training_follows_are_refused(loss, message):
    with pytest.raises(ConfigurationError, match=message):
        NetworkLandscape(nn.Linear(3, 2), X[:, 0], Y, loss=loss)


def test_a_function_of_inputs_is_no_network():
    with pytest.raises(
        ConfigurationError, match=r"cannot be called without arguments .*: expected one that returns a torch"
    ):
        NetworkLandscape(lambda x: x, X[:, 0], Y)


@pytest.mark.parametrize(
    ("inputs", "labels", "message"),
    [
        (Stream(), None, "without a length"),
        (
            Uneven(),
            None,
            r"sample 0 of inputs has \[.*\] and sample 57 has \[.*'weight'.*\]: expected the same names in all",
        ),
        (Absent(), None, "sample 57 of inputs"),
        (Ragged(), None, "cannot be put together .* pad them"),
        (Told(), None, "'text' of inputs are, put together, .*list: expected tensors"),
        (TensorDataset(X), None, r"expected inputs and a label"),
        ({"x": X, "mask": MASK[:50]}, Y, "as many in all"),
        ({}, Y, "are empty"),
        ({"x": X, "masks": MASK}, Y, "cannot take inputs of x of shape .*unexpected keyword"),
        ((X, MASK), None, "labels are missing"),
        ((X, MASK), (Y, Y), "expected one tensor or array"),
        ((X, "mask"), Y, r"inputs\[1\]"),
    ],
)
def test_what_is_no_data_is_refused(inputs, labels, message):
    with pytest.raises(LangevinError, match=message):
        made(Masked, inputs, labels)


def test_augmented_data_are_read_once_with_a_warning():
    with pytest.warns(RandomDataWarning, match="others each time they are read"):
        landscape = NetworkLandscape(nn.Linear(3, 2), Noisy())
    weights = landscape.own_weights[None]
    assert torch.equal(landscape.loss(weights), landscape.loss(weights))


def test_passes_go_in_pieces_where_memory_does_not_suffice():
    """Losses, errors, gradients and test data are those of one pass; what is large lies in a mapped file."""
    torch.manual_seed(0)
    inputs, labels = torch.randn(600, 1, 500, generator=GENERATOR), torch.arange(600) % 2
    network = nn.Sequential(nn.Conv1d(1, 6, 5, stride=5), nn.Tanh(), nn.Flatten(), nn.Linear(600, 2))
    options = {"test_inputs": inputs[:300], "test_labels": labels[:300], "start": "own"}
    whole = NetworkLandscape(network, TensorDataset(inputs, labels), **options)
    pieces = NetworkLandscape(network, TensorDataset(inputs, labels), memory_limit="1 MiB", **options)
    assert pieces._rows_at_once < 100 < 600 < whole._rows_at_once
    weights = whole.own_weights[None].repeat(2, 1)
    for test in (False, True):
        for one, other in zip(*(each.losses_and_errors(weights, test) for each in (whole, pieces)), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(whole.gradient(weights), pieces.gradient(weights), rtol=1e-4, atol=1e-6)
    rows = torch.randint(600, (2, 200), generator=GENERATOR)
    coefficients = torch.randn(2, 200, generator=GENERATOR)
    torch.testing.assert_close(
        *(each.weighted_gradient(weights, coefficients, rows) for each in (whole, pieces)), rtol=1e-3, atol=1e-4
    )
    assert pieces.description["data_sha256"] == whole.description["data_sha256"]


def test_compare_takes_sequences():
    model = nn.Sequential(nn.Embedding(7, 4), nn.Linear(4, 7))
    landscape = NetworkLandscape(model, TOKENS, TOKENS, loss=token_loss)
    result = compare(
        landscape, learning_rate=0.5, batch_size=5, epochs=10, replicas=2, processes=["langevin"], progress=False
    )
    assert result.trajectories.train_error.sel(cohort="all").min() < 0.9
