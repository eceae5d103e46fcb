"""Architectures, losses and recipes as users have them, small and from configurations: a row each."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils import parametrizations, prune
from torch.utils.checkpoint import checkpoint

__all__ = ["CASES", "LOSSES", "Case", "N"]

N, CLASSES, WORDS = 12, 3, 11  # samples, classes, size of the vocabulary
GENERATOR = torch.Generator().manual_seed(0)
ROWS = torch.randn(N, 5, generator=GENERATOR)
SEQUENCES = torch.randn(N, 6, 4, generator=GENERATOR)
IMAGES = torch.randn(N, 3, 32, 32, generator=GENERATOR)
SMALL = torch.randn(N, 2, 8, 8, generator=GENERATOR)
TOKENS = torch.randint(1, WORDS, (N, 7), generator=GENERATOR)
MASK = (torch.arange(7) < torch.randint(3, 8, (N, 1), generator=GENERATOR)).long()
MASKED = {"input_ids": TOKENS, "attention_mask": MASK}
LABELS = torch.arange(N) % CLASSES
SIGNS = torch.arange(N) % 2
SEVERAL = torch.randint(0, 2, (N, CLASSES), generator=GENERATOR)
NUMBERS = torch.randn(N, CLASSES, generator=GENERATOR)
PIXELS = torch.randint(0, CLASSES, (N, 8, 8), generator=GENERATOR)
NEXT = torch.where(MASK[:, 1:] > 0, TOKENS[:, 1:], -100)  # the token after each, where there is one


def _per_token(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs.mT, labels, reduction="none").mean(1)


def _next_token(outputs: Tensor, labels: Tensor) -> Tensor:
    losses = functional.cross_entropy(outputs[:, :-1].mT, labels, ignore_index=-100, reduction="none")
    return losses.sum(1) / (labels >= 0).sum(1)


def _pixels(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels, reduction="none").mean((1, 2))


def _multi_label(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs, labels.to(outputs.dtype), reduction="none").mean(1)


def _logit(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.binary_cross_entropy_with_logits(outputs[:, 0], labels.to(outputs.dtype), reduction="none")


def _regression(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).square().mean(1)


def _huber(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.smooth_l1_loss(outputs, labels, reduction="none").mean(1)


def _variational(outputs: tuple[Tensor, Tensor, Tensor], inputs: Tensor) -> Tensor:
    """Reconstruction and the divergence from a standard normal law, the code at its mean."""
    decoded, mean, log_variance = outputs
    return (decoded - inputs).square().sum(1) + 0.5 * (mean**2 + log_variance.exp() - log_variance - 1).sum(1)


def _broadcast(outputs: Tensor, labels: Tensor) -> Tensor:
    return (outputs - labels).square().mean(-1)


def _reduced(outputs: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, labels)


LOSSES: dict[str, Callable[..., Tensor] | None] = {
    "cross-entropy": None,
    "per token": _per_token,
    "next token": _next_token,
    "per pixel": _pixels,
    "multi-label": _multi_label,
    "one logit": _logit,
    "regression": _regression,
    "Huber": _huber,
    "variational": _variational,
    "broadcasting": _broadcast,
    "reduced": _reduced,
}


@dataclass(frozen=True)
class Case:
    """A network with its data, loss and recipe, and what is expected of it."""

    name: str
    make: Callable[[], nn.Module]
    inputs: Any
    labels: Tensor = LABELS
    loss: str = "cross-entropy"
    recipe: str = "SGD"
    output: Any = None
    error: Any = None
    package: str = "torch"
    refused: str | None = None  # what the sentence names
    proof: bool = False  # takes long


# --- torch


class Last(nn.Module):
    """The last outputs of a recurrent layer, and a linear layer of them."""

    def __init__(self, layer: nn.Module, width: int) -> None:
        super().__init__()
        self.layer, self.out = layer, nn.Linear(width, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x)[0][:, -1])


class CellLoop(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell, self.out = nn.LSTMCell(4, 5), nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(len(x), 5)
        for step in x.unbind(1):
            h, c = self.cell(step, (h, c))
        return self.out(h)


class Packed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.layer = nn.Embedding(WORDS, 4), nn.GRU(4, 5, batch_first=True)
        self.out = nn.Linear(5, CLASSES)

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        lengths = attention_mask.sum(1).cpu()
        packed = nn.utils.rnn.pack_padded_sequence(self.embedding(input_ids), lengths, True, enforce_sorted=False)
        return self.out(self.layer(packed)[1][0])


class Encoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
        self.out = nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.layer(x).mean(1))


class Experts(nn.Module):
    """Each sample goes to the one of three experts that its gate prefers."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.experts = nn.Linear(5, 3), nn.ModuleList(nn.Linear(5, CLASSES) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        shares, chosen = self.gate(x).softmax(1).max(1)
        outputs = x.new_zeros(len(x), CLASSES)
        for k, expert in enumerate(self.experts):
            mine = (chosen == k).nonzero()[:, 0]
            if len(mine):
                outputs = outputs.index_add(0, mine, expert(x[mine]))
        return outputs * shares[:, None]


class Capacity(nn.Module):
    """An expert that takes the first samples of a minibatch alone, as many as there is room for."""

    def __init__(self) -> None:
        super().__init__()
        self.expert = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        room = torch.arange(len(x)) < 3
        return self.expert(x) * room[:, None]


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(5, 8), nn.Linear(8, CLASSES)
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        h = self.first(x).tanh()
        return checkpoint(self.second, h, use_reentrant=self.reentrant)


class Tied(nn.Module):
    """A language model whose outputs share the weights of its embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.mix, self.out = nn.Embedding(WORDS, 6), nn.Linear(6, 6), nn.Linear(6, WORDS, bias=False)
        self.out.weight = self.embedding.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.mix(self.embedding(x)).tanh())


class Autoencoder(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder, self.decoder = nn.Linear(5, 4), nn.Linear(2, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        h = self.encoder(x)
        return self.decoder(h[:, :2].tanh()), h[:, :2], h[:, 2:]


class Branch(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(5, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x) if x.max() < 99 else self.a(x.clamp(-9, 9))


class Square(torch.autograd.Function):
    """With a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        return 2 * ctx.saved_tensors[0] * gradient


class Squared(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.b(Square.apply(self.a(x)))


class Unused(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.idle = nn.Linear(5, CLASSES), nn.Linear(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.a(x)


class ByName(nn.Module):
    """What it returns are tensors by name."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 6), nn.Linear(6, CLASSES)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        hidden = self.a(x).relu()
        return {"hidden": hidden, "scores": self.b(hidden)}


def _perceptron(width: int = 8, outputs: int = CLASSES) -> nn.Module:
    return nn.Sequential(nn.Linear(5, width), nn.ReLU(), nn.Linear(width, outputs))


def _convolutional(*normalisation: nn.Module) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1), *normalisation, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(64, CLASSES)
    )


def _pixelwise() -> nn.Module:
    return nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.Tanh(), nn.Conv2d(4, CLASSES, 1))


def _changed(change: Callable[[nn.Linear], Any]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        network = _perceptron()
        change(network[0])
        return network

    return make


def _frozen() -> nn.Module:
    network = nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, CLASSES))
    network[:4].requires_grad_(False)
    return network


def _all_frozen() -> nn.Module:
    return _perceptron().requires_grad_(False)


def _batch_norm() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, CLASSES))


def _dropout() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.5), nn.Linear(8, CLASSES))


def _sparse() -> nn.Module:
    return nn.Sequential(nn.EmbeddingBag(WORDS, 4, sparse=True), nn.Linear(4, CLASSES))


def _bilinear() -> nn.Module:
    return nn.Bilinear(5, 5, CLASSES)


TORCH = [
    Case("perceptron", _perceptron, ROWS),
    Case("perceptron", _perceptron, ROWS, recipe="AdamW, cosine"),
    Case("perceptron", _perceptron, ROWS, SEVERAL, "multi-label", "Adam", error="threshold"),
    Case("perceptron", lambda: _perceptron(outputs=1), ROWS, SIGNS, "one logit", "Adam"),
    Case("perceptron", _perceptron, ROWS, NUMBERS, "regression"),
    Case("perceptron", _perceptron, ROWS, NUMBERS, "Huber", "Adam"),
    Case("perceptron of bfloat16", lambda: _perceptron().bfloat16(), ROWS),
    Case("perceptron of float16", lambda: _perceptron().half(), ROWS),
    Case("perceptron of float64", lambda: _perceptron().double(), ROWS.double(), recipe="Adam"),
    Case("bilinear layer", _bilinear, (ROWS, ROWS.flip(0)), recipe="Adam"),
    Case("convolutional", _convolutional, SMALL),
    Case("convolutional, GroupNorm", lambda: _convolutional(nn.GroupNorm(2, 4)), SMALL, recipe="Adam"),
    Case("convolutional, LayerNorm", lambda: _convolutional(nn.LayerNorm([4, 8, 8])), SMALL),
    Case("convolutional, InstanceNorm", lambda: _convolutional(nn.InstanceNorm2d(4, affine=True)), SMALL),
    Case("fully convolutional", _pixelwise, SMALL, PIXELS, "per pixel"),
    Case("RNN", lambda: Last(nn.RNN(4, 5, batch_first=True), 5), SEQUENCES),
    Case("GRU of two layers", lambda: Last(nn.GRU(4, 5, 2, batch_first=True), 5), SEQUENCES, recipe="Adam", proof=True),
    Case("LSTM", lambda: Last(nn.LSTM(4, 5, batch_first=True), 5), SEQUENCES, recipe="AdamW, cosine"),
    Case("LSTM of both directions", lambda: Last(nn.LSTM(4, 5, batch_first=True, bidirectional=True), 10), SEQUENCES,
         proof=True),
    Case("bare LSTM", lambda: nn.LSTM(4, CLASSES, batch_first=True), SEQUENCES, output=lambda made: made[0][:, -1]),
    Case("loop of LSTM cells", CellLoop, SEQUENCES, proof=True),
    Case("GRU of packed sequences", Packed, MASKED, recipe="Adam"),
    Case("transformer encoder layer", Encoder, SEQUENCES, recipe="AdamW, cosine"),
    Case("embedding", lambda: nn.Sequential(nn.Embedding(WORDS, 4), nn.Linear(4, WORDS)), TOKENS, TOKENS, "per token"),
    Case("embedding bag", lambda: nn.Sequential(nn.EmbeddingBag(WORDS, 4), nn.Linear(4, CLASSES)), TOKENS),
    Case("tied embedding", Tied, TOKENS, NEXT, "next token", "Adam"),
    Case("weight norm", _changed(parametrizations.weight_norm), ROWS),
    Case("orthogonal parametrization", _changed(parametrizations.orthogonal), ROWS, recipe="Adam", proof=True),
    Case("pruned", _changed(lambda layer: prune.l1_unstructured(layer, "weight", 0.3)), ROWS),
    Case("checkpoint", lambda: Checkpointed(False), ROWS),
    Case("checkpoint, reentrant", lambda: Checkpointed(True), ROWS, recipe="Adam"),
    Case("mixture of experts", Experts, ROWS),
    Case("branch on values", Branch, ROWS),
    Case("function with its own backward pass", Squared, ROWS),
    Case("frozen layers", _frozen, ROWS, recipe="Adam"),
    Case("unused parameters", Unused, ROWS),
    Case("outputs by name", ByName, ROWS, output="scores"),
    Case("variational autoencoder", Autoencoder, ROWS, ROWS, "variational", "Adam", output=lambda made: made),
    Case("BatchNorm", _batch_norm, ROWS, refused="layer '1' \\(BatchNorm1d\\).*eval\\(\\).*GroupNorm"),
    Case("dropout", _dropout, ROWS, refused="'1' \\(Dropout, p=0.5\\).*eval"),
    Case("sparse gradients", _sparse, TOKENS, refused="0.weight are sparse.*sparse=False"),
    Case("expert with a capacity", Capacity, ROWS, refused="other samples of the batch.*GroupNorm"),
    Case("all frozen", _all_frozen, ROWS, refused="requires_grad_\\(True\\)"),
    Case("loss that broadcasts", lambda: _perceptron(outputs=1), ROWS, NUMBERS[:, 0], "broadcasting",
         refused="outputs.squeeze\\(-1\\)"),
    Case("loss that is one number", _perceptron, ROWS, LABELS, "reduced", refused="reduction='none'"),
    Case("tuple of outputs", lambda: nn.LSTM(4, CLASSES, batch_first=True), SEQUENCES, refused="output="),
    Case("spectral norm", _changed(parametrizations.spectral_norm), ROWS,
         refused="'0.parametrizations.weight.0' \\(_SpectralNorm\\).*eval"),
]  # fmt: skip


# --- packages


def _torchvision() -> Any:
    """Return torchvision's models, without its compiled operators where these are of another build of torch."""
    # The wheels of PyPI are compiled for GPUs; beside torch for CPUs their operators (boxes, which classifiers do not have)
    # cannot be loaded, and the import fails where it describes two of them.
    try:
        return importlib.import_module("torchvision.models")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    _OPERATORS.append(torch.library.Library("torchvision", "FRAGMENT"))
    for name in ("nms", "qnms"):
        _OPERATORS[-1].define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    return importlib.import_module("torchvision.models")


_OPERATORS: list[Any] = []  # which live as long as the library that describes them


def _vision(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: getattr(_torchvision(), name)(num_classes=CLASSES, **options)


def _vision_eval(name: str, **options: Any) -> Callable[[], nn.Module]:
    return lambda: _vision(name, **options)().eval()


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(min(4, channels), channels)


def _resnet(**options: Any) -> nn.Module:
    """ResNet18's blocks, one a stage and narrow."""
    _torchvision()
    resnet = importlib.import_module("torchvision.models.resnet")
    return resnet.ResNet(resnet.BasicBlock, [1, 1, 1, 1], num_classes=CLASSES, **options)


def _vgg() -> nn.Module:
    vgg = importlib.import_module(_torchvision().__name__ + ".vgg")
    network = vgg.VGG(vgg.make_layers([8, "M", 8, "M"]), num_classes=CLASSES, init_weights=False)
    network.avgpool, network.classifier = nn.AdaptiveAvgPool2d(2), nn.Linear(32, CLASSES)  # 100 million weights else
    return network


def _densenet() -> nn.Module:
    return _torchvision().DenseNet(4, (2, 2), 8, num_classes=CLASSES).eval()


def _vit() -> nn.Module:
    return _torchvision().VisionTransformer(32, 8, 2, 2, 16, 32, num_classes=CLASSES)


def _swin() -> nn.Module:
    return _torchvision().SwinTransformer(
        [4, 4], 8, [1, 1], [1, 2], [2, 2], num_classes=CLASSES, stochastic_depth_prob=0.0
    )


def _convnext() -> nn.Module:
    convnext = importlib.import_module(_torchvision().__name__ + ".convnext")
    blocks = [convnext.CNBlockConfig(8, 16, 1), convnext.CNBlockConfig(16, None, 1)]
    return convnext.ConvNeXt(blocks, stochastic_depth_prob=0.0, num_classes=CLASSES)


TORCHVISION = [
    Case("ResNet, GroupNorm", lambda: _resnet(norm_layer=_group_norm), IMAGES, package="torchvision", proof=True),
    Case("ResNet, evaluated", lambda: _resnet().eval(), IMAGES, recipe="Adam", package="torchvision", proof=True),
    Case("ResNet18, GroupNorm", _vision("resnet18", norm_layer=_group_norm), IMAGES, package="torchvision", proof=True),
    Case("ResNet", _resnet, IMAGES, package="torchvision", refused="layer 'bn1' \\(BatchNorm2d\\).*eval"),
    Case("VGG", _vgg, IMAGES, package="torchvision", proof=True),
    Case("MobileNet V3, evaluated", _vision_eval("mobilenet_v3_small", width_mult=0.25, dropout=0.0), IMAGES,
         recipe="AdamW, cosine", package="torchvision", proof=True),
    Case("DenseNet, evaluated", _densenet, IMAGES, package="torchvision", proof=True),
    Case("ViT", _vit, IMAGES, recipe="AdamW, cosine", package="torchvision", proof=True),
    Case("ConvNeXt", _convnext, IMAGES, recipe="Adam", package="torchvision", proof=True),
    Case("Swin", _swin, IMAGES, package="torchvision", proof=True),
]  # fmt: skip


def _timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        _torchvision()
        return importlib.import_module("timm").create_model(name, num_classes=CLASSES, **options)

    return make


def _of_timm(name: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        _torchvision()
        return getattr(importlib.import_module("timm.models"), name)(num_classes=CLASSES, **options)

    return make


TIMM = [
    Case("ResNet10-t, evaluated", lambda: _timm("resnet10t")().eval(), IMAGES, package="timm", proof=True),
    Case("ResNet10-t", _timm("resnet10t"), IMAGES, package="timm", refused="BatchNorm.*eval"),
    Case("ViT, one block", _timm("vit_tiny_patch16_224", depth=1, img_size=32, embed_dim=24, num_heads=2), IMAGES,
         recipe="AdamW, cosine", package="timm"),
    Case("MLP-Mixer, one block",
         _of_timm("MlpMixer", num_blocks=1, img_size=32, patch_size=8, embed_dim=16), IMAGES, package="timm"),
    Case("ConvNeXt", _of_timm("ConvNeXt", depths=(1, 1, 1, 1), dims=(4, 4, 8, 8)), IMAGES, recipe="Adam",
         package="timm", proof=True),
]  # fmt: skip


def _transformers(model: str, configuration: str, **options: Any) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        if importlib.util.find_spec("torchvision") is not None:
            _torchvision()
        library = importlib.import_module("transformers")
        return getattr(library, model)(getattr(library, configuration)(**options)).eval()

    return make


_GPT = _transformers(
    "GPT2LMHeadModel", "GPT2Config",
    n_layer=1, n_head=2, n_embd=8, vocab_size=WORDS, n_positions=8, bos_token_id=0, eos_token_id=0,
)  # fmt: skip
_SIZES = {"hidden_size": 8, "intermediate_size": 12, "num_hidden_layers": 1, "num_attention_heads": 2}
_LLAMA = _transformers(
    "LlamaForCausalLM", "LlamaConfig", **_SIZES, vocab_size=WORDS, max_position_embeddings=8, pad_token_id=0
)
_BERT = _transformers(
    "BertForSequenceClassification", "BertConfig",
    **_SIZES, vocab_size=WORDS, max_position_embeddings=8, num_labels=CLASSES,
)  # fmt: skip
_T5 = _transformers(
    "T5EncoderModel", "T5Config", d_model=8, d_kv=4, d_ff=12, num_layers=1, num_heads=2, vocab_size=WORDS
)
_VIT = _transformers(
    "ViTForImageClassification", "ViTConfig", **_SIZES, image_size=32, patch_size=8, num_labels=CLASSES
)


def _lora() -> nn.Module:
    network = _GPT()
    peft = importlib.import_module("peft")
    options = peft.LoraConfig(r=2, target_modules=["c_attn"], fan_in_fan_out=True, init_lora_weights=False)
    return peft.get_peft_model(network, options).eval()


def _mean_token(made: Any) -> Tensor:
    return made.last_hidden_state[:, :, :CLASSES].mean(1)


TRANSFORMERS = [
    Case("GPT-2", _GPT, MASKED, NEXT, "next token", "AdamW, cosine", package="transformers"),
    Case("GPT-2, training", lambda: _GPT().train(), MASKED, NEXT, "next token", package="transformers",
         refused="Dropout.*eval"),
    Case("Llama", _LLAMA, MASKED, NEXT, "next token", "AdamW, cosine", package="transformers"),
    Case("BERT", _BERT, MASKED, recipe="Adam", package="transformers"),
    Case("T5 encoder", _T5, MASKED, recipe="Adam", output=_mean_token, package="transformers"),
    Case("ViT", _VIT, IMAGES, package="transformers", proof=True),
    Case("GPT-2 with LoRA", _lora, MASKED, NEXT, "next token", "AdamW, cosine", package="peft"),
]  # fmt: skip

CASES = [*TORCH, *TORCHVISION, *TIMM, *TRANSFORMERS]
