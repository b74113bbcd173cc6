"""Pre-train the edge network without labels on the fields of all sets, then train as usual.

    python benchmarks/classification_pretrain.py --data DATA --out RUNS --sets breastmnist \
        --seeds 0 1 2

Two views of a field are moved by exact transforms and lose a quarter of their Gaussians each; the
network learns which views are of the same field (contrastive, normalized temperature-scaled cross
entropy, Chen et al. 2020). Its layers are shared by all sets, but for those that read features,
whose number depends on axes and channels. Only training images are used.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from classification_runs import SETS, run
from classification_task import load_task
from napari_medgs.classification import TrainParams
from napari_medgs.classification.data.augment import Augmentation, augment, drop
from napari_medgs.classification.gaussians.set import GaussianSet
from napari_medgs.classification.inputs import network_inputs
from napari_medgs.classification.networks.registry import make_network
from napari_medgs.classification.training.train import make_card

LABEL = "edge-pretrained"
VIEWS = Augmentation(degrees=30, scale=0.2, shift=2, gain=0.3)
LOST = 0.25
BATCH, RATE, TEMPERATURE = 64, 2e-3, 0.2
OWN = (".edge.weight", "_scale.", "head.")
"""Layers that read features, by parts of their names; the first layers of each level as well."""


def views(some: GaussianSet, random: torch.Generator) -> GaussianSet:
    """Return moved copies that lack some Gaussians."""
    return drop(augment(some, VIEWS, random), LOST, random)


def contrast(first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
    """Return the loss of telling which of two (B, F) views belong together."""
    both = nn.functional.normalize(torch.cat([first, second]), dim=-1)
    alike = both @ both.T / TEMPERATURE
    alike.fill_diagonal_(-math.inf)
    count = len(first)
    other = torch.cat([torch.arange(count) + count, torch.arange(count)])
    return nn.functional.cross_entropy(alike, other)


def share_layers(networks: list[nn.Module]) -> None:
    """Make all networks use the first one's layers, where their sizes do not depend on the set."""
    first = dict(networks[0].named_parameters())
    for network in networks[1:]:
        for name, _ in list(network.named_parameters()):
            if any(part in name for part in OWN) or (name.startswith("embed") and ".0." in name):
                continue
            place, _, leaf = name.rpartition(".")
            setattr(network.get_submodule(place), leaf, first[name])


def pretrain(data: Path, out: Path, epochs: int) -> dict[str, torch.Tensor]:
    """Return the encoder's weights of each set, named SET/WEIGHT; kept in a file for reruns."""
    path = out / f"pretrained-edge-{epochs}.safetensors"
    if path.is_file():
        return load_file(path)
    torch.manual_seed(0)
    random = torch.Generator().manual_seed(0)
    networks, inputs = {}, {}
    for name in SETS:
        task = load_task(data, name)
        card = make_card(task, TrainParams(model="edge"))
        networks[name] = make_network(card).train()
        found = network_inputs(task.scaled_images("train"), card, cache_dir=str(out / "fits"))
        inputs[name] = found.centered() if found.occupancy else found
    share_layers(list(networks.values()))
    width = (
        networks[SETS[0]].head[0].in_features - networks[SETS[0]].global_scale.norm.num_features
    )
    project = nn.Sequential(nn.Linear(width, 128), nn.ReLU(), nn.Linear(128, 64))
    leaves = {p for network in networks.values() for p in network.parameters()}
    optimizer = torch.optim.AdamW([*leaves, *project.parameters()], lr=RATE, weight_decay=0.01)
    steps = epochs * sum(len(found) // BATCH for found in inputs.values())
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    started = time.perf_counter()
    for epoch in range(epochs):
        batches = [
            (name, part)
            for name, found in inputs.items()
            for part in torch.randperm(len(found), generator=random).split(BATCH)
            if len(part) == BATCH
        ]
        total = 0.0
        for which in torch.randperm(len(batches), generator=random).tolist():
            name, part = batches[which]
            some = inputs[name][part]
            first, second = (project(networks[name].encode(views(some, random))) for _ in range(2))
            loss = contrast(first, second)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item() / len(batches)
        spent = time.perf_counter() - started
        print(f"epoch {epoch}: loss {total:.3f} (chance {math.log(2 * BATCH - 1):.2f}), "
              f"{spent:.0f} s", flush=True)  # fmt: skip
    weights = {
        f"{name}/{key}": tensor.clone().contiguous()
        for name, network in networks.items()
        for key, tensor in network.state_dict().items()
        if not key.startswith(("head", "global_norm"))
    }
    save_file(weights, path)
    return weights


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=15)
    args = parser.parse_args()
    torch.set_num_threads(1)
    args.out.mkdir(parents=True, exist_ok=True)
    found = pretrain(args.data, args.out, args.epochs)
    for name in args.sets:
        own = {k.partition("/")[2]: v for k, v in found.items() if k.startswith(f"{name}/")}
        run(args.data, args.out, name, "edge", args.seeds, None, str(args.out / "fits"),
            label=LABEL, initial=own)  # fmt: skip
