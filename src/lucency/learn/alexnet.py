"""AlexNet, twice, with timm's contract: torchvision's, and the reference study's own.

Letters in shapes: b films, k findings, d feature dimensions, h and w pixels.
"""

from __future__ import annotations

from typing import Any

import torch
import torchvision
from jaxtyping import Float
from torch import Tensor, nn

IMAGENET: dict[str, Any] = {
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
    "classifier": "classifier.6",
}


class AlexNet(nn.Module):
    """torchvision's AlexNet ("One weird trick", Krizhevsky 2014) with a head for our findings.

    Its parameters keep torchvision's names, so published weights load strictly.
    """

    num_features = 4096

    def __init__(self, *, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        whole = torchvision.models.AlexNet(num_classes=num_classes, dropout=drop_rate)
        self.features, self.avgpool = whole.features, whole.avgpool
        self.classifier = whole.classifier
        self.pretrained_cfg = IMAGENET

    def forward_features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 256 y x"]:
        """Return the last convolution's maps."""
        return self.features(pictures)

    def forward_head(
        self, maps: Float[Tensor, "b 256 y x"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or the 4,096 features before them."""
        feature = self.classifier[:-1](torch.flatten(self.avgpool(maps), 1))
        return feature if pre_logits else self.classifier[-1](feature)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.classifier[-1]


class AlexNetReference(nn.Module):
    """The reference study's AlexNet: batch norm after every layer, dense 4096–4096–1000, dropout.

    Layer sizes are inferred: this is the arrangement that has the 50,901,295 parameters which the
    study's notebook prints (15 outputs, running statistics counted, at 224 × 224).
    """

    num_features = 1000

    def __init__(self, *, num_classes: int, drop_rate: float) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *_convolution(3, 96, size=11, stride=4, padding=0),
            nn.MaxPool2d(3, 2),
            *_convolution(96, 256, size=5, stride=1, padding=2),
            nn.MaxPool2d(3, 2),
            *_convolution(256, 384, size=3, stride=1, padding=1),
            *_convolution(384, 384, size=3, stride=1, padding=1),
            *_convolution(384, 256, size=3, stride=1, padding=1),
            nn.MaxPool2d(3, 2),
        )
        self.avgpool = nn.AdaptiveAvgPool2d(5)
        self.dense = nn.Sequential(
            *_dense(256 * 5 * 5, 4096, drop_rate),
            *_dense(4096, 4096, drop_rate),
            *_dense(4096, 1000, drop_rate),
        )
        self.classifier = nn.Linear(1000, num_classes)
        self.pretrained_cfg = {**IMAGENET, "classifier": "classifier"}

    def forward_features(self, pictures: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b 256 y x"]:
        """Return the last pooled maps."""
        return self.features(pictures)

    def forward_head(
        self, maps: Float[Tensor, "b 256 y x"], *, pre_logits: bool = False
    ) -> Float[Tensor, "b _"]:
        """Return logits, or the 1,000 features before them."""
        feature = self.dense(torch.flatten(self.avgpool(maps), 1))
        return feature if pre_logits else self.classifier(feature)

    def get_classifier(self) -> nn.Module:
        """Return the last linear layer."""
        return self.classifier


def _convolution(
    inputs: int, outputs: int, *, size: int, stride: int, padding: int
) -> tuple[nn.Module, ...]:
    layer = nn.Conv2d(inputs, outputs, size, stride=stride, padding=padding)
    return layer, nn.BatchNorm2d(outputs), nn.ReLU()


def _dense(inputs: int, outputs: int, dropout: float) -> tuple[nn.Module, ...]:
    return nn.Linear(inputs, outputs), nn.BatchNorm1d(outputs), nn.ReLU(), nn.Dropout(dropout)
