"""The CUDA engine: render a stack, or a loss and its gradient, on an NVIDIA GPU.

Its numbers are those of :class:`~napari_medgs.rendering.cpu.engine.CpuEngine`.
Gaussians are listed by tile on the device, splatted by gathering, differentiated Gaussian by
Gaussian; nothing is summed by racing atomics, so that results repeat exactly. The kernels are
tested by emulation on the CPU, and were run on an NVIDIA H200.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.rendering.cuda import driver
from napari_medgs.rendering.cuda.driver import (
    ERRORS,
    KernelOptions,
    Kernels,
    available,
    gpu_kernels,
    task_type,
)
from napari_medgs.rendering.cuda.plan import (
    ROW_ALIGNMENT,
    THREADS,
    DeviceTarget,
    Plan,
    Slab,
    ceil_div,
    checked_slices,
    make_plan,
    tile_shape,
)
from napari_medgs.rendering.engine import EngineSpec, LossAndGradient, StackTarget

if TYPE_CHECKING:
    from torch import Tensor


HALF_LOG2E = 0.7213475204444817
GEOMETRY = 14
LARGE_BLOCKS = 4096  # those with nothing to do end at once
SHARE_OF_FREE_MEMORY = 0.35
LEAST_CAPACITY = 4096
HEADROOM, NEARLY_FULL = 1.5, 0.85


class CudaEngine:
    """Renders on an NVIDIA GPU with the order-free blends, "normalized" and "sum".

    Implements :class:`~napari_medgs.rendering.engine.DifferentiableEngine`; takes and returns
    arrays or tensors of its device.

    Parameters
    ----------
    spec : EngineSpec
    device : str or torch.device, optional
        The current CUDA device by default.
    memory : int, optional
        Bytes that the planes of one slab may take; a third of what is free by default.
    kernels : callable, optional
        From :class:`KernelOptions` to what runs them; compiled for the device by default.

    Raises
    ------
    BackendError
        When kernels cannot be compiled or loaded.
    ParameterError
        For another blend.
    """

    def __init__(
        self,
        spec: EngineSpec,
        *,
        device: Any = None,
        memory: int | None = None,
        kernels: Callable[[KernelOptions], Kernels] | None = None,
    ) -> None:
        import torch

        if spec.blend not in ("normalized", "sum"):
            raise ParameterError(
                f"The cuda backend renders normalized and sum, not {spec.blend!r}."
            )
        self.spec = spec
        channels, degree = spec.channels, spec.degree
        depth, height, width = spec.shape
        self.shape, self.channels, self.degree = (depth, height, width), channels, degree
        self.tile = tile_shape(depth)
        options = KernelOptions(channels, self.tile)
        if kernels is None:
            works, reason = available()
            if not works:
                raise BackendError(f"The backend 'cuda' cannot be used: {reason}.")
            self.device = torch.device(device or "cuda")
            if self.device.index is None:
                self.device = torch.device("cuda", torch.cuda.current_device())
            self.kernels: Kernels = gpu_kernels(options, self.device.index)
        else:
            self.device = torch.device(device or "cpu")
            self.kernels = kernels(options)
        self.dtype = torch.float64 if self.kernels.double else torch.float32
        self.background = self._tensor(spec.background)
        self.pitch = ceil_div(width, ROW_ALIGNMENT) * ROW_ALIGNMENT
        if memory is None:
            memory = 1 << 30
            if self.device.type == "cuda":
                memory = int(SHARE_OF_FREE_MEMORY * torch.cuda.mem_get_info(self.device)[0])
        slice_bytes = (channels + 1) * height * self.pitch * self.background.element_size()
        through = self.tile[2]
        self.slab_slices = max(1, memory // slice_bytes // through) * through
        self._basics = {
            "degree": degree,
            "depth": depth,
            "height": height,
            "width": width,
            "pitch": self.pitch,
            "normalized": int(spec.blend == "normalized"),
            "budget": spec.cutoff * HALF_LOG2E,
            "eps": spec.eps,
        }
        self._plans: dict[bytes, Plan] = {}
        self._target: tuple[StackTarget, DeviceTarget] | None = None
        self._memory: dict[str, Tensor] = {}
        self._flags = torch.zeros(2, dtype=torch.int64, device=self.device)
        self._members = torch.empty(LEAST_CAPACITY, dtype=torch.int32, device=self.device)

    def _tensor(self, array: Any) -> Tensor:
        """Return an array or tensor as a contiguous tensor of the device."""
        import torch

        if not isinstance(array, torch.Tensor):
            array = torch.from_numpy(np.ascontiguousarray(array))
        return array.detach().to(self.device, self.dtype).contiguous()

    def _scratch(self, name: str, size: int, dtype: Any = None) -> Tensor:
        """Return a reused piece of device memory; its content is not kept when it grows."""
        import torch

        piece = self._memory.get(name)
        if piece is None or len(piece) < size:
            # Tile counters must start at zero; all others are written before they are read.
            make = torch.zeros if name in ("counts", "offsets") else torch.empty
            piece = make(size, dtype=dtype or self.dtype, device=self.device)
            self._memory[name] = piece
        return piece

    def plan(self, slices: NDArray[Any] | None = None) -> Plan:
        """Return the plan for some slices (increasing), or all; the last few are kept."""
        wanted = checked_slices(slices, self.shape[0])
        key = wanted.tobytes()
        if key not in self._plans:
            if len(self._plans) >= 8:
                self._plans.clear()
            self._plans[key] = make_plan(
                self.shape, self.tile, wanted, self.slab_slices, self.device
            )
        return self._plans[key]

    def device_target(self, target: StackTarget) -> DeviceTarget:
        """Return a target's copy on the device; the last one is kept and not looked at again."""
        if self._target is None or self._target[0] is not target:
            if len(target.images) + target.classes != self.channels:
                raise ParameterError(
                    f"The target has {len(target.images)} images and {target.classes} classes, "
                    f"the engine {self.channels} channels."
                )
            self._target = None
            self._target = (target, DeviceTarget.upload(target, self.device, self.dtype))
        return self._target[1]

    def new_task(self, parameters: Tensor, plan: Plan) -> Any:
        """Return the kernels' arguments for a table and slices."""
        import torch

        count = len(parameters)
        if parameters.shape[1] != GEOMETRY + self.channels:
            raise ParameterError(
                f"The table has {parameters.shape[1]} columns, not {GEOMETRY + self.channels}."
            )
        task = task_type(self.kernels.double)()
        for name, value in self._basics.items():
            setattr(task, name, value)
        planes = (self.channels + 1) * self.shape[1] * self.pitch
        pieces = {
            "parameters": parameters,
            "prepared": self._scratch("prepared", 16 * count),
            "touched": self._scratch("touched", count, torch.int32),
            "large": self._scratch("large", 1 + count, torch.int32),
            "counts": self._scratch("counts", plan.most_tiles, torch.int32),
            "offsets": self._scratch("offsets", 1 + plan.most_tiles, torch.int64),
            "sums": self._scratch("sums", planes * plan.most_positions),
            "partial": self._scratch("partial", ERRORS * plan.voxel_blocks, torch.float64),
            "slices": plan.slices,
            "lookup": plan.lookup,
            "background": self.background,
            "flags": self._flags,
        }
        self.set_pointers(task, pieces)
        task.count, task.wanted = count, plan.wanted
        return task

    def set_pointers(self, task: Any, tensors: dict[str, Tensor]) -> None:
        """Put tensors into a task, which does not keep them alive."""
        for name, tensor in tensors.items():
            setattr(task, name, tensor.data_ptr())

    def begin(self, task: Any) -> None:
        """Prepare the Gaussians for the slabs that follow."""
        task.members, task.capacity = self._members.data_ptr(), len(self._members)
        self.kernels.launch("prepare", max(1, ceil_div(task.count, THREADS)), THREADS, task)

    def sum_slab(self, task: Any, slab: Slab) -> None:
        """List the Gaussians of a slab's tiles and sum them."""
        import torch

        task.origin, task.positions = slab.origin, slab.positions
        task.tiles_x, task.tiles_y, task.tiles_z = slab.tiles
        task.partial_origin = slab.partial_origin
        tiles, warps = slab.tile_count, max(1, ceil_div(task.count, 4))
        counts, offsets = self._memory["counts"][:tiles], self._memory["offsets"]
        self.kernels.launch("count_tiles", warps, 128, task)
        torch.cumsum(counts, 0, dtype=torch.int64, out=offsets[1 : tiles + 1])
        self.kernels.launch("fill_tiles", warps, 128, task)
        self.kernels.launch("sort_tiles", tiles, 128, task)
        self.kernels.launch("splat", tiles, THREADS, task)

    def gather_slab(self, task: Any, first: bool) -> None:
        """Turn a slab's derivatives into the Gaussians' gradient (or add them to it)."""
        task.add = int(not first)
        warps, many = driver.GATHER_WARPS, min(LARGE_BLOCKS, task.count)
        self.kernels.launch("gather", ceil_div(task.count, warps), 32 * warps, task)
        self.kernels.launch("gather_large", many, 32 * driver.LARGE_WARPS, task)

    def make_room(self, needed: int) -> bool:
        """Enlarge the lists if they are nearly full; return whether they were too small."""
        import torch

        capacity = len(self._members)
        if needed > NEARLY_FULL * capacity:
            size = int(HEADROOM * needed) + LEAST_CAPACITY
            self._members = torch.empty(0, dtype=torch.int32, device=self.device)
            self._members = torch.empty(size, dtype=torch.int32, device=self.device)
        return needed > capacity

    def _until_it_fits(self, work: Callable[[], None]) -> None:
        """Do work; once more with longer lists if they overflowed."""
        work()
        while self.make_room(int(self._flags[1])):
            work()

    def render(self, parameters: Any, slices: NDArray[Any] | None = None) -> Any:
        """Render all or some slices; see :meth:`Engine.render`."""
        import torch

        table, plan = self._tensor(parameters), self.plan(slices)
        size = (self.channels, plan.wanted, *self.shape[1:])
        out = torch.empty(size, dtype=self.dtype, device=self.device)
        task = self.new_task(table, plan)
        self.set_pointers(task, {"out": out})

        def work() -> None:
            self.begin(task)
            for slab in plan.slabs:
                self.sum_slab(task, slab)
                self.kernels.launch("blend", slab.voxel_blocks, THREADS, task)

        self._until_it_fits(work)
        return out if isinstance(parameters, torch.Tensor) else out.cpu().numpy()

    def backward(
        self, parameters: Any, grad_output: Any, slices: NDArray[Any] | None = None
    ) -> Tensor:
        """Return the vector-Jacobian product; see :meth:`DifferentiableEngine.backward`."""
        import torch

        table, given, plan = self._tensor(parameters), self._tensor(grad_output), self.plan(slices)
        if given.shape != (self.channels, plan.wanted, *self.shape[1:]):
            raise ParameterError(
                f"grad_output has shape {tuple(given.shape)}, expected "
                f"{(self.channels, plan.wanted, *self.shape[1:])}."
            )
        gradient = torch.zeros_like(table)
        task = self.new_task(table, plan)
        self.set_pointers(task, {"grad_out": given, "gradient": gradient})

        def work() -> None:
            self.begin(task)
            for slab in plan.slabs:
                self.sum_slab(task, slab)
                self.kernels.launch("blend_backward", slab.voxel_blocks, THREADS, task)
                self.gather_slab(task, slab.origin == 0)

        self._until_it_fits(work)
        return gradient

    def accumulate(
        self, parameters: Tensor, target: DeviceTarget, gradient: Tensor, totals: Tensor
    ) -> Any:
        """Queue a loss and its gradient without waiting for them.

        Parameters
        ----------
        parameters : (N, 14 + C) tensor
            Contiguous, on the device.
        target : DeviceTarget
        gradient : (N, 14 + C) tensor
            Overwritten; contiguous, on the device.
        totals : (3,) tensor of float64
            Becomes image error, label error and through-plane error.

        Returns
        -------
        ctypes.Structure
            The arguments, for kernels that follow.
        """
        import torch

        plan = self.plan(target.active)
        task = self.new_task(parameters, plan)
        tensors = {
            "gradient": gradient,
            "totals": totals,
            "images": target.images,
            "image_weights": target.image_weights,
            "labels": target.labels,
            "seg_weights": target.seg_weights,
            "counted": target.counted,
        }
        self.set_pointers(task, tensors)
        task.image_count, task.classes = len(target.images), target.classes
        task.l1 = int(target.l1)
        self.begin(task)
        for slab in plan.slabs:
            self.sum_slab(task, slab)
            self.kernels.launch("residual", slab.voxel_blocks, THREADS, task)
            self.gather_slab(task, slab.origin == 0)
        partial = self._memory["partial"][: ERRORS * plan.voxel_blocks]
        torch.sum(partial.view(-1, ERRORS), dim=0, out=totals)
        return task

    def loss_and_gradient(self, parameters: Any, target: StackTarget) -> LossAndGradient:
        """Return errors and gradient, waiting for them; see :meth:`Engine.loss_and_gradient`.

        The target is copied to the device the first time; later changes to it are not seen.
        """
        import torch

        table, there = self._tensor(parameters), self.device_target(target)
        gradient = torch.zeros_like(table)
        totals = torch.zeros(ERRORS, dtype=torch.float64, device=self.device)
        self._until_it_fits(lambda: self.accumulate(table, there, gradient, totals))
        image_error, label_error, unscored_error = totals.tolist()
        answer = gradient if isinstance(parameters, torch.Tensor) else gradient.cpu().numpy()
        return LossAndGradient(image_error, label_error, answer, unscored_error)
