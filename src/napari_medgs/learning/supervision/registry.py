"""The kinds of supervision by name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from napari_medgs.learning.networks.segmenter import load_class
from napari_medgs.learning.networks.slots import SegmenterConfig, SupervisionKind

if TYPE_CHECKING:
    from torch import nn

_HERE = "napari_medgs.learning.supervision"
SUPERVISIONS = {
    SupervisionKind.LAST: f"{_HERE}.last:LastSupervision",
    SupervisionKind.DEEP: f"{_HERE}.deep:DeepSupervision",
    SupervisionKind.LOMIX: f"{_HERE}.lomix:LomixSupervision",
}
"""Where the class of each kind is; imported when it is used."""


def build_supervision(config: SegmenterConfig) -> nn.Module:
    """Return the supervision of a configuration, with weights where it learns some.

    Examples
    --------
    >>> import torch
    >>> config = SegmenterConfig(ndim=2, classes=2)
    >>> loss = build_supervision(config)([torch.zeros(1, 2, 4, 4)], torch.zeros(1, 4, 4).long())
    >>> round(float(loss), 4)
    0.6931
    """
    made: nn.Module = load_class(SUPERVISIONS[config.supervision])(config)
    return made
