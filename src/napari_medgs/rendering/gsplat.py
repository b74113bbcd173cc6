"""Alpha compositing on CUDA by gsplat's rasterizer, slice by slice and without any camera.

A slice is one "image": every Gaussian has a 2D mean, an inverse covariance and an opacity of its
own there, w exp(-(rt d)^2 / 2). gsplat is optional, compiled on first use by its own means, and
never imported before it is asked for. What is handed to gsplat is tested on the CPU with a
stand-in that follows gsplat's rules; gsplat 1.5.3 itself was run on an NVIDIA H200.

Its rules differ from the other alpha backends' in three ways, none of which can be switched off:
contributions below 1/255 are dropped (that, not ``cutoff``, ends a Gaussian within a slice), a
pixel is done once less than 1e-4 of it shows through, and opacities end at 0.999 (gsplat 1.5) or
0.99 (later).
"""

from __future__ import annotations

from contextlib import redirect_stdout
from functools import lru_cache
from io import StringIO
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget
from napari_medgs.rendering.parameters import (
    A1,
    B1,
    GEOMETRY,
    LOG_R1,
    LOG_R2,
    LOG_RT,
    LOG_W,
    SHEAR,
    T,
    X,
    Y,
)

if TYPE_CHECKING:
    from torch import Tensor


LEAST_ALPHA = 1.0 / 255.0
TILE = 16
# Channel counts that both gsplat 1.5 and its successor compile; others are filled up with zeros.
COMPILED = (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)
PAIRS_AT_ONCE = 8_000_000


def gsplat_version() -> str | None:
    """Return the installed version of gsplat, or None; nothing is imported."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("gsplat")
    except PackageNotFoundError:
        return None


def available() -> tuple[bool, str]:
    """Return whether the backend may be used here, and a remark or the reason.

    gsplat itself is not imported: that may compile for minutes. Whether its kernels work shows
    when an engine is made.
    """
    try:
        version = gsplat_version()
        if version is None:
            return False, "gsplat is not installed (pip install gsplat)"
        if tuple(int(n) for n in version.split(".")[:2]) < (1, 5):
            return False, f"gsplat {version} is too old, 1.5 or later is needed"
        import torch

        if torch.version.cuda is None:
            return False, "this PyTorch was built without CUDA"
        if not torch.cuda.is_available():
            return False, "PyTorch finds no NVIDIA GPU or driver"
        return True, f"gsplat {version}, compiled on first use"
    except Exception as error:  # whatever is broken there: the other backends still work
        return False, f"{type(error).__name__}: {error}"


@lru_cache(maxsize=1)
def load_gsplat() -> Any:
    """Import gsplat and make sure that its kernels are there.

    Raises
    ------
    BackendError
        When it is missing or its kernels cannot be loaded or compiled.
    """
    try:
        with redirect_stdout(StringIO()):  # it announces a missing toolkit there
            import gsplat
            from gsplat.cuda import _backend
    except Exception as error:
        raise BackendError(f"gsplat cannot be used: {type(error).__name__}: {error}") from error
    if getattr(_backend, "_C", None) is None:
        raise BackendError(
            "gsplat has no kernels: it needs the CUDA toolkit (nvcc) and a C++ compiler, with "
            "CUDA_HOME set to the toolkit's folder."
        )
    return gsplat


class Sections(NamedTuple):
    """Gaussians cut by slices, one row a (slice, Gaussian) pair, slices in order.

    Attributes
    ----------
    image : (P,) int64 tensor
        Place of the slice among those wanted.
    gaussian : (P,) int64 tensor
        Increasing within a slice, which is the order of compositing.
    means, conics : (P, 2), (P, 3) tensor
        Pixel centers are at .5; inverse covariance xx, xy, yy.
    opacities : (P,) tensor
    radii : (P, 2) int32 tensor
        Half the box in which a contribution can exceed 1/255.
    """

    image: Tensor
    gaussian: Tensor
    means: Tensor
    conics: Tensor
    opacities: Tensor
    radii: Tensor


def cut(parameters: Tensor, slices: Tensor, degree: int, cutoff: float) -> Sections:
    """Cut Gaussians by slices; differentiable by everything but the choice of pairs.

    Parameters
    ----------
    parameters : (N, 14 + C) tensor
    slices : (S,) tensor
        Slice numbers.
    degree : int
    cutoff : float
        Pairs with (rt d)^2 above it are left out.
    """
    import torch

    with torch.no_grad():
        reach = (slices[:, None] - parameters[:, T]) * torch.exp(parameters[:, LOG_RT])
        visible = parameters[:, LOG_W] - 0.5 * reach**2 >= np.log(LEAST_ALPHA)
        image, gaussian = torch.nonzero((reach**2 <= cutoff) & visible, as_tuple=True)
    # One gather of whole rows: its gradient is one scatter, not one a column.
    rows = parameters[gaussian, :GEOMETRY]
    d = slices[image].to(parameters.dtype) - rows[:, T]
    mean_x, mean_y = rows[:, X], rows[:, Y]
    power = d
    for k in range(degree):
        mean_x, mean_y = mean_x + rows[:, A1 + k] * power, mean_y + rows[:, B1 + k] * power
        power = power * d
    r1, r2 = torch.exp(rows[:, LOG_R1]), torch.exp(rows[:, LOG_R2])
    shear = rows[:, SHEAR] * r2 / r1
    a, r2r2 = r1 * r1, r2 * r2
    conics = torch.stack([a, -a * shear, a * shear * shear + r2r2], dim=1)
    opacities = torch.exp(rows[:, LOG_W] - 0.5 * (torch.exp(rows[:, LOG_RT]) * d) ** 2)
    with torch.no_grad():
        extent = torch.sqrt(2 * torch.log(opacities / LEAST_ALPHA).clamp(min=0))
        spread = torch.stack([torch.sqrt(1 / a + shear**2 / r2r2), 1 / r2], dim=1)
        radii = torch.ceil(extent[:, None] * spread).clamp(1, 1 << 20).to(torch.int32)
    means = torch.stack([mean_x, mean_y], dim=1) + 0.5
    return Sections(image, gaussian, means, conics, opacities, radii)


class GsplatEngine:
    """Renders by alpha compositing on an NVIDIA GPU, with gsplat's kernels.

    Implements :class:`~napari_medgs.rendering.engine.Engine`; ``eps`` has no meaning here.

    Parameters
    ----------
    spec : EngineSpec
        Of the blend "alpha".
    device : str or torch.device, optional
        The current CUDA device by default.
    ops : module, optional
        What has gsplat's functions; gsplat by default.

    Raises
    ------
    BackendError
        When gsplat or CUDA does not work here.
    ParameterError
        For another blend.
    """

    def __init__(self, spec: EngineSpec, *, device: Any = None, ops: Any = None) -> None:
        import torch

        if spec.blend != "alpha":
            raise ParameterError(f"The gsplat backend renders alpha, not {spec.blend!r}.")
        if ops is None:
            works, reason = available()
            if not works:
                raise BackendError(f"The backend 'gsplat' cannot be used: {reason}.")
            ops = load_gsplat()
        self.ops, self.device = ops, torch.device(device or "cuda")
        self.spec = spec
        self.shape, self.channels = spec.shape, spec.channels
        self.degree, self.cutoff = spec.degree, spec.cutoff
        self.background = self._tensor(spec.background)

    def _tensor(self, array: Any) -> Tensor:
        import torch

        if not isinstance(array, torch.Tensor):
            array = torch.from_numpy(np.ascontiguousarray(array))
        return array.to(self.device, torch.float32)

    def _batches(self, count: int, slices: NDArray[Any]) -> list[NDArray[Any]]:
        """Divide slices so that pairs of slices and Gaussians stay within memory."""
        size = max(1, PAIRS_AT_ONCE // max(count, 1))
        return [slices[k : k + size] for k in range(0, len(slices), size)]

    def composite(self, parameters: Tensor, slices: NDArray[Any]) -> Tensor:
        """Return channels (C, slices, Y, X); differentiable by the table."""
        import torch

        _, height, width = self.shape
        count = len(slices)
        wanted = torch.as_tensor(np.asarray(slices, np.int64), device=self.device)
        cuts = cut(parameters, wanted, self.degree, self.cutoff)
        if len(cuts.image) == 0:
            flat = self.background[:, None, None, None] + 0 * parameters.sum()
            return flat.expand(self.channels, count, height, width)
        across, down = -(-width // TILE), -(-height // TILE)
        with torch.no_grad():
            _, keys, flatten = self.ops.isect_tiles(
                cuts.means,
                cuts.radii,
                torch.zeros_like(cuts.opacities),  # equal depths keep the order of indices
                TILE,
                across,
                down,
                packed=True,
                n_images=count,
                image_ids=cuts.image,
                gaussian_ids=cuts.gaussian,
            )
            offsets = self.ops.isect_offset_encode(keys, count, across, down)
        values = parameters[:, GEOMETRY:]
        parts: list[Tensor] = []
        through = torch.zeros(())
        for start in range(0, self.channels, COMPILED[-1]):
            some = values[:, start : start + COMPILED[-1]]
            used = some.shape[1]
            padded = next(n for n in COMPILED if n >= used)
            colors = torch.nn.functional.pad(some, (0, padded - used))[cuts.gaussian]
            seen, alpha = self.ops.rasterize_to_pixels(
                cuts.means,
                cuts.conics,
                colors,
                cuts.opacities,
                width,
                height,
                TILE,
                offsets,
                flatten,
                packed=True,
            )
            parts.append(seen[..., :used])
            through = 1 - alpha
        # Its own backgrounds are not per image when packed (and read out of range).
        picture: Tensor = torch.cat(parts, dim=-1) + through * self.background
        return picture.movedim(-1, 0)

    def render(self, parameters: Any, slices: NDArray[Any] | None = None) -> Any:
        """Render all or some slices; see :meth:`Engine.render`."""
        import torch

        wanted = np.arange(self.shape[0]) if slices is None else np.asarray(slices)
        if wanted.dtype == np.bool_:
            wanted = np.flatnonzero(wanted)
        table = self._tensor(parameters).detach()
        size = (self.channels, len(wanted), *self.shape[1:])
        out = torch.empty(size, dtype=torch.float32, device=self.device)
        done = 0
        with torch.no_grad():
            for batch in self._batches(len(table), wanted):
                out[:, done : done + len(batch)] = self.composite(table, batch)
                done += len(batch)
        return out if isinstance(parameters, torch.Tensor) else out.cpu().numpy()

    def loss_and_gradient(self, parameters: Any, target: StackTarget) -> LossAndGradient:
        """Return errors and gradient; see :meth:`Engine.loss_and_gradient`."""
        import torch

        table = self._tensor(parameters).detach().clone().requires_grad_()
        totals = torch.zeros(3, dtype=torch.float64, device=self.device)
        for batch in self._batches(len(table), np.flatnonzero(target.active)):
            rendered = self.composite(table, batch)
            loss = self._image_loss(rendered, target, batch, totals)
            if target.classes:
                loss = loss + self._label_loss(rendered, target, batch, totals)
            torch.autograd.backward(loss)
        image_error, label_error, unscored_error = totals.tolist()
        gradient = torch.zeros_like(table) if table.grad is None else table.grad
        answer = gradient if isinstance(parameters, torch.Tensor) else gradient.cpu().numpy()
        return LossAndGradient(image_error, label_error, answer, unscored_error)

    def _image_loss(
        self, rendered: Tensor, target: StackTarget, slices: NDArray[Any], totals: Tensor
    ) -> Tensor:
        weights = self._tensor(target.image_weights[:, slices])
        difference = rendered[: len(target.images)] - self._tensor(target.images[:, slices])
        seen = self._tensor(target.counted[slices])
        unscored = self._tensor((target.weighted & ~target.counted)[slices])
        squares = difference.detach() ** 2
        totals[0] += (squares * seen[:, None, None]).double().sum()
        totals[2] += (squares * unscored[:, None, None]).double().sum()
        cost = difference.abs() if target.l1 else 0.5 * difference**2
        return (cost * weights[:, :, None, None]).sum()

    def _label_loss(
        self, rendered: Tensor, target: StackTarget, slices: NDArray[Any], totals: Tensor
    ) -> Tensor:
        import torch
        from torch.nn.functional import cross_entropy

        labels = torch.from_numpy(target.labels[slices].astype(np.int64)).to(self.device)
        known = labels != 255
        logits = rendered[len(target.images) :].movedim(0, 1)
        costs = cross_entropy(logits, labels, ignore_index=255, reduction="none")
        # A voxel's cross-entropy is minus the log of what the true class is given.
        totals[1] += torch.where(known, -torch.expm1(-costs.detach()), 0.0).double().sum()
        loss: Tensor = (costs * self._tensor(target.seg_weights[slices])[:, None, None]).sum()
        return loss
