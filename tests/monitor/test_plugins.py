"""The monitor within other people's trainers: not a bit changed, losses as they were, records that go on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset

from langevin_nn import open_trajectory, validate
from langevin_nn.errors import ConfigurationError
from langevin_nn.monitor import IndexedDataset, ScalarWriter
from langevin_nn.monitor.lightning import LightningMonitor
from langevin_nn.monitor.transformers import IndexedCollator, TransformersMonitor

N, BATCH, LENGTH, WORDS = 56, 8, 9, 20
torch.manual_seed(0)
INPUTS, LABELS = torch.randn(N, 6), torch.arange(N) % 3
TOKENS = torch.randint(0, WORDS, (N, LENGTH))
# What the trainers say of workers, devices and folders is theirs.
own = pytest.mark.filterwarnings("ignore", "error::langevin_nn.errors.MonitorWarning")
pytestmark = [own, pytest.mark.usefixtures("one_thread")]


def _same(one, other) -> None:
    for group in ("/", "/measured_layers", "/samples"):
        left, right = (each[group].to_dataset(inherit=False).load() for each in (one, other))
        assert set(left.variables) == set(right.variables)
        for name in left.variables:
            np.testing.assert_array_equal(left[name], right[name], err_msg=f"{group} {name}")


def _failing(callback, step: int) -> None:
    if callback.monitor.step_count == step:
        raise RuntimeError("mine")


def _module(change=lambda returned: returned):
    lightning = pytest.importorskip("lightning.pytorch")

    class Module(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.network = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))
            self.seen = np.full((3, N), np.nan, np.float32)

        def training_step(self, batch, batch_idx):
            inputs, labels, index = batch
            logits = self.network(inputs).float()
            losses = cross_entropy(logits, labels, reduction="none")
            self.seen[self.current_epoch, index] = losses.detach()
            returned = {"loss": losses.mean(), "losses": losses, "index": index, "labels": labels, "logits": logits}
            return change(returned)

        def validation_step(self, batch, batch_idx):
            self.log("val_error", (self.network(batch[0]).argmax(1) != batch[1]).float().mean())

        def configure_optimizers(self):
            return torch.optim.SGD(self.parameters(), lr=0.1, momentum=0.9)

    return Module()


def _fit(module, callback=None, *, folder=None, resume=None, **options):
    lightning = pytest.importorskip("lightning.pytorch")
    saving = {"filename": "{epoch}", "every_n_epochs": 2, "save_on_train_epoch_end": True}
    callbacks = [callback] if callback else []
    callbacks += [lightning.callbacks.ModelCheckpoint(folder, **saving)] if folder else []
    options |= {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    options |= {"enable_checkpointing": folder is not None, "max_epochs": 3, "callbacks": callbacks}
    trainer = lightning.Trainer(**options)
    data = IndexedDataset(TensorDataset(INPUTS, LABELS))
    trainer.fit(module, DataLoader(data, BATCH), DataLoader(data, N), ckpt_path=resume)
    return torch.cat([each.detach().flatten() for each in module.parameters()])


@pytest.mark.parametrize(("parts", "precision"), [(1, "32"), (2, "32"), (1, "bf16-mixed")])
def test_a_fit_is_recorded_and_not_a_bit_of_it_changes(parts: int, precision: str) -> None:
    module = _module()
    options = {"accumulate_grad_batches": parts, "precision": precision, "gradient_clip_val": 0.05}
    callback = LightningMonitor(N, every=1, log={"val_error": "test_error"})
    assert torch.equal(_fit(module, callback, **options), _fit(_module(), **options))
    assert "training_step" not in vars(module)
    found = callback.trajectory
    np.testing.assert_array_equal(found["samples"].sample_loss[0], module.seen)
    np.testing.assert_array_equal(found["samples"].given_label[0], LABELS)
    updates = 3 * -(-N // BATCH // parts)  # the last one of an epoch is of fewer parts
    assert callback.monitor.step_count == updates
    assert found.noise_strength.sel(cohort="all").notnull().sum() == updates
    assert found.test_error.notnull().sum() == 3
    assert not callback.monitor.counts
    written = []
    scalars = ScalarWriter(SimpleNamespace(add_scalar=lambda *given: written.append(given)))
    for run in (found.isel(step=slice(3)), callback.monitor, found):
        scalars.write(run)
    values = [value for name, value, _ in written if name == "langevin_nn/noise_strength"]
    assert values == found.noise_strength[0, :updates, 0].values.tolist()


@pytest.mark.parametrize("on_disk", [True, False])
def test_a_fit_that_failed_goes_on_to_the_same_file(tmp_path, on_disk: bool) -> None:
    def callback(name: str) -> LightningMonitor:
        return LightningMonitor(N, tmp_path / name if on_disk else None, every=2, log={"val_error": "test_error"})

    pytest.importorskip("lightning")
    whole, first, second = callback("whole.nc"), callback("run.nc"), callback("run.nc")
    weights = _fit(_module(), whole)
    with pytest.raises(RuntimeError, match="mine"):
        _fit(_module(lambda returned: _failing(first, 17) or returned), first, folder=tmp_path)
    assert first.trajectory.sizes["step"] > 3
    assert torch.equal(_fit(_module(), second, resume=tmp_path / "epoch=1.ckpt"), weights)
    _same(second.trajectory, whole.trajectory)
    if on_disk:
        validate(tmp_path / "run.nc")
        _same(open_trajectory(tmp_path / "run.nc"), whole.trajectory)


@pytest.mark.parametrize("left", [(), ("loss",), ("loss", "losses")])
def test_a_wrong_return_is_refused(left: tuple[str, ...]) -> None:
    module = _module(lambda returned: {name: returned[name] for name in left} if left else returned["loss"])
    with pytest.raises(ConfigurationError, match=r"what training_step returned is .*: expected a dict"):
        _fit(module, LightningMonitor(N))


def _model(kind: str):
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    if kind == "gpt2":
        sizes = {"n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": LENGTH}
        return transformers.GPT2LMHeadModel(transformers.GPT2Config(vocab_size=WORDS, **sizes))
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    of = transformers.BertForSequenceClassification if kind == "bert" else transformers.BertForTokenClassification
    return of(transformers.BertConfig(vocab_size=WORDS, num_labels=3, **sizes))


def _samples(kind: str) -> list[dict]:
    if kind == "bert":
        return [{"input_ids": each, "label": int(label)} for each, label in zip(TOKENS, LABELS, strict=True)]
    missing = torch.arange(LENGTH)[None] >= 4 + torch.arange(N)[:, None] % 5  # sequences of different lengths
    masked = (TOKENS if kind == "gpt2" else TOKENS % 3).masked_fill(missing, -100)
    return [{"input_ids": each, "labels": labels} for each, labels in zip(TOKENS, masked, strict=True)]


def _hugging(kind: str, folder, watcher=None, *, loss=None, indexed=True, resume=None, **options):
    transformers, _ = (pytest.importorskip(name) for name in ("transformers", "accelerate"))
    settings = {"per_device_train_batch_size": BATCH, "num_train_epochs": 2, "learning_rate": 3.0, "optim": "sgd"}
    settings |= {"max_grad_norm": 0.03, "use_cpu": True, "report_to": [], "disable_tqdm": True, "save_strategy": "no"}
    arguments = transformers.TrainingArguments(str(folder), **settings | {"remove_unused_columns": False} | options)
    model, samples, collator = _model(kind), _samples(kind), transformers.default_data_collator
    given = {"train_dataset": samples, "data_collator": collator, "compute_loss_func": loss}
    if watcher:
        given = {"train_dataset": IndexedDataset(samples) if indexed else samples, "callbacks": [watcher]}
        given |= {"data_collator": IndexedCollator(collator), "compute_loss_func": loss or watcher.loss}
    trainer = transformers.Trainer(model, arguments, eval_dataset=samples[:20], **given)
    trainer.train(resume_from_checkpoint=resume)
    return torch.cat([each.detach().flatten() for each in model.parameters()])


@pytest.mark.parametrize(("kind", "parts"), [("bert", 1), ("tokens", 2), ("gpt2", 2)])
def test_a_trainer_differentiates_what_it_does_without_and_is_recorded(tmp_path, kind: str, parts: int) -> None:
    pytest.importorskip("transformers")
    watcher, seen = TransformersMonitor(N, every=1), []

    def loss(outputs, labels, num_items_in_batch):
        logits, index = outputs["logits"].detach(), (labels // 2**32 - 1).reshape(len(labels), -1).amax(1)
        rows = zip(logits[:, :-1], labels[:, 1:], strict=True) if kind == "gpt2" else zip(logits, labels, strict=True)
        mended = [(row, torch.where(own < 0, own, own % 2**32)) for row, own in rows]
        seen.append((index, torch.stack([cross_entropy(*each) for each in mended])))
        return watcher.loss(outputs, labels, num_items_in_batch)

    options = {"gradient_accumulation_steps": parts}
    weights = _hugging(kind, tmp_path, watcher, loss=loss, **options)
    unwatched = TransformersMonitor(N, shift=kind == "gpt2")
    unwatched._begin = lambda *given: None
    assert torch.equal(_hugging(kind, tmp_path, loss=unwatched.loss, **options), weights)
    if (kind, parts) != ("tokens", 2):  # there, transformers adds the means of parts up; see the docstring of loss
        torch.testing.assert_close(_hugging(kind, tmp_path, **options), weights, rtol=1e-5, atol=1e-6)
    found, table, per_epoch = watcher.trajectory, np.full((2, N), np.nan), len(seen) // 2
    for number, (index, losses) in enumerate(seen):
        table[number // per_epoch, index] = losses
    np.testing.assert_allclose(found["samples"].sample_loss[0], table, rtol=1e-5)
    assert ("given_label" in found["samples"]) == ("predicted_label" in found["samples"]) == (kind == "bert")
    # Gradients are clipped, and still no layer is taken to be differentiated in another way.
    assert not watcher.monitor.counts
    assert found.noise_strength.sel(cohort="all").notnull().sum() == 2 * -(-N // BATCH // parts)


def test_a_trainer_that_failed_goes_on_to_the_same_file(tmp_path) -> None:
    def watcher(name: str) -> TransformersMonitor:
        return TransformersMonitor(N, tmp_path / name, every=2, log={"eval_loss": "test_loss"})

    pytest.importorskip("transformers")
    whole, first, second = watcher("whole.nc"), watcher("run.nc"), watcher("run.nc")
    options = {"eval_strategy": "epoch", "save_strategy": "steps", "save_steps": 9}
    weights = _hugging("bert", tmp_path / "whole", whole, **options, dataloader_num_workers=1)
    assert whole.trajectory["samples"].sizes["sample_step"] == 2  # of training alone
    assert whole.trajectory.test_loss.notnull().sum() == 2

    def loss(*given, **named):
        return _failing(first, 12) or first.loss(*given, **named)

    with pytest.raises(RuntimeError, match="mine"), first:
        _hugging("bert", tmp_path / "run", first, loss=loss, **options)
    resume = str(tmp_path / "run" / "checkpoint-9")
    assert torch.equal(_hugging("bert", tmp_path / "run", second, resume=resume, **options), weights)
    _same(open_trajectory(tmp_path / "run.nc"), whole.trajectory)


@pytest.mark.parametrize("wrong", ["indexed", "remove_unused_columns", "loss"])
def test_what_a_trainer_would_do_otherwise_is_refused(tmp_path, wrong: str) -> None:
    pytest.importorskip("transformers")
    value, message = {
        "indexed": (False, "do not tell their samples"),
        "remove_unused_columns": (True, "remove the index"),
        "loss": (TransformersMonitor(N).loss, "has not begun"),
    }[wrong]
    with pytest.raises(ConfigurationError, match=message):
        _hugging("bert", tmp_path, TransformersMonitor(N), **{wrong: value})
