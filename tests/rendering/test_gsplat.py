"""The gsplat backend: what it hands to gsplat, with a plain stand-in, and gsplat on a GPU."""

from __future__ import annotations

import sys
import types

import numpy as np
import pytest
import torch

from napari_medgs.errors import BackendError, ParameterError
from napari_medgs.rendering import gsplat as gsplat_alpha
from napari_medgs.rendering.cpu.alpha import AlphaCpuEngine
from napari_medgs.rendering.engine import EngineSpec, StackTarget
from napari_medgs.rendering.gsplat import LEAST_ALPHA, GsplatEngine, cut
from napari_medgs.rendering.parameters import GEOMETRY, LOG_R1, LOG_R2, LOG_RT, LOG_W
from napari_medgs.rendering.reference import BlendSettings, grid_points, render_at

SHAPE = (5, 18, 21)


class StandIn:
    """gsplat 1.5's three functions in plain torch: packed lists, its tiles, its alpha rules."""

    def __init__(self, limit=0.999, least=LEAST_ALPHA, done=1e-4):
        self.limit, self.least, self.done = limit, least, done

    def isect_tiles(
        self,
        means,
        radii,
        depths,
        size,
        across,
        down,
        *,
        packed,
        n_images,
        image_ids,
        gaussian_ids,
    ):
        assert packed
        assert means.shape[1:] == (2,)
        assert radii.dtype == torch.int32
        assert image_ids.dtype == gaussian_ids.dtype == torch.int64
        assert (depths >= 0).all()  # negative ones would sort behind
        entries = []
        for row in range(len(means)):
            low = (means[row] - radii[row]) / size
            high = (means[row] + radii[row]) / size
            x0, y0 = (max(0, int(np.floor(v))) for v in low.tolist())
            x1, y1 = (int(np.ceil(v)) for v in high.tolist())
            for ty in range(y0, min(y1, down)):
                for tx in range(x0, min(x1, across)):
                    tile = (int(image_ids[row]) * down + ty) * across + tx
                    entries.append((tile, float(depths[row]), row))
        entries.sort(key=lambda entry: entry[:2])  # stable: equal depths keep their order
        keys = torch.tensor([entry[0] for entry in entries])
        return None, keys, torch.tensor([entry[2] for entry in entries])

    def isect_offset_encode(self, keys, n_images, across, down):
        tiles = torch.arange(n_images * down * across)
        return torch.searchsorted(keys, tiles).reshape(n_images, down, across)

    def rasterize_to_pixels(
        self, means, conics, colors, opacities, width, height, size, offsets, flatten, *, packed
    ):
        assert packed
        assert colors.shape[1] in (1, 2, 3, 4, 5, 8, 9, 16, 17, 32)
        assert len(colors) == len(means)
        images, down, across = offsets.shape
        bounds = [*offsets.reshape(-1).tolist(), len(flatten)]
        color_rows, alpha_rows = [], []
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        for image in range(images):
            seen = torch.zeros(height, width, colors.shape[1])
            through = torch.ones(height, width)
            for ty in range(down):
                for tx in range(across):
                    here = (
                        slice(ty * size, min(height, (ty + 1) * size)),
                        slice(tx * size, min(width, (tx + 1) * size)),
                    )
                    tile = (image * down + ty) * across + tx
                    alive = torch.ones_like(x[here], dtype=torch.bool)
                    part, left = seen[here], through[here]
                    for row in flatten[bounds[tile] : bounds[tile + 1]].tolist():
                        dx, dy = means[row, 0] - x[here], means[row, 1] - y[here]
                        a, b, c = conics[row]
                        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
                        alpha = (opacities[row] * torch.exp(-sigma)).clamp(max=self.limit)
                        used = alive & (alpha >= self.least)
                        alive = alive & ~(used & (left * (1 - alpha) <= self.done))
                        alpha = torch.where(used & alive, alpha, torch.zeros_like(alpha))
                        part = part + (left * alpha)[..., None] * colors[row]
                        left = left * (1 - alpha)
                    seen, through = seen.clone(), through.clone()
                    seen[here], through[here] = part, left
            color_rows.append(seen)
            alpha_rows.append(1 - through[..., None])
        return torch.stack(color_rows), torch.stack(alpha_rows)


def random_table(rng, count, channels, degree):
    parameters = rng.normal(0, 0.3, (count, GEOMETRY + channels)).astype(np.float32)
    for column, size in zip((0, 1, 2), SHAPE[::-1], strict=True):
        parameters[:, column] = rng.uniform(-1, size, count)
    parameters[:, [LOG_R1, LOG_R2, LOG_RT]] -= 0.5
    parameters[:, LOG_W] -= 1
    parameters[:, 8 + degree : 11] = 0
    parameters[:, 11 + degree : 14] = 0
    parameters[:, [9, 10, 12, 13]] *= 0.1
    return parameters


def random_target(rng, images, classes):
    labels = np.zeros((0, 0, 0), np.uint8)
    if classes:
        labels = rng.integers(0, classes, SHAPE).astype(np.uint8)
        labels[rng.random(SHAPE) < 0.2] = 255
    image_weights = rng.uniform(0.5, 1.5, (images, SHAPE[0])).astype(np.float32)
    image_weights[:, 2] = 0
    seg_weights = rng.uniform(0.1, 1, SHAPE[0]).astype(np.float32)
    pictures = rng.random((images, *SHAPE)).astype(np.float32)
    scored = np.arange(SHAPE[0]) % 2 == 0
    return StackTarget(pictures, image_weights, labels, seg_weights, classes, False, scored)


def engine(channels, background=None, degree=3, cutoff=9.0, ops=None):
    background = np.zeros(channels, np.float32) if background is None else background
    return GsplatEngine(
        EngineSpec(
            SHAPE, channels, background, degree=degree, cutoff=cutoff, eps=0.0, blend="alpha"
        ),
        device="cpu",
        ops=ops or StandIn(),
    )


@pytest.mark.parametrize("degree", [0, 1, 2, 3])
def test_sections_say_what_the_model_says(rng, degree):
    parameters = torch.tensor(random_table(rng, 12, 1, degree), dtype=torch.float64)
    slices = torch.tensor([0, 2, 4])
    cuts = cut(parameters, slices, degree, 1e6)
    assert (cuts.image.diff() >= 0).all()
    info = BlendSettings("sum", degree, 1e9, 0.0)
    x, y = 7.0, 9.0
    for row in range(len(cuts.image)):
        z = float(slices[cuts.image[row]])
        one = parameters[cuts.gaussian[row]][None].clone()
        one[:, GEOMETRY] = 1
        point = torch.tensor([[z, y, x]], dtype=torch.float64)
        expected = float(render_at(one, torch.zeros(1, dtype=torch.float64), info, point))
        dx, dy = x + 0.5 - cuts.means[row, 0], y + 0.5 - cuts.means[row, 1]
        a, b, c = cuts.conics[row]
        sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
        assert float(cuts.opacities[row] * torch.exp(-sigma)) == pytest.approx(expected, rel=1e-9)


def test_radii_hold_all_that_counts(rng):
    parameters = torch.tensor(random_table(rng, 30, 1, 2))
    cuts = cut(parameters, torch.arange(5), 2, 9.0)
    angles = torch.linspace(0, 2 * np.pi, 400)
    for row in range(len(cuts.image)):
        a, b, c = cuts.conics[row]
        precision = torch.tensor([[a, b], [b, c]])
        level = 2 * torch.log(cuts.opacities[row] / LEAST_ALPHA)
        directions = torch.stack([angles.cos(), angles.sin()])
        length = torch.sqrt(level / (directions * (precision @ directions)).sum(dim=0))
        extreme = (directions * length).abs().amax(dim=1)
        assert (extreme <= cuts.radii[row] + 1e-3).all()
        assert (extreme >= cuts.radii[row] - 1.1).all()


@pytest.mark.parametrize(("images", "classes", "degree"), [(1, 0, 3), (3, 3, 1), (1, 33, 2)])
def test_values_and_gradients_agree_with_alpha_blend(rng, images, classes, degree):
    channels = images + classes
    parameters = random_table(rng, 25, channels, degree)
    background = rng.random(channels).astype(np.float32)
    target = random_target(rng, images, classes)
    # Without gsplat's own thresholds and with support to match, both are the same model.
    monkey = StandIn(least=0.0, done=0.0)
    ours = engine(channels, background, degree, cutoff=40.0, ops=monkey)
    cpu = AlphaCpuEngine(
        EngineSpec(
            SHAPE,
            channels,
            background,
            degree=degree,
            cutoff=40.0,
            eps=0.0,
            blend="alpha",
            threads=1,
        )
    )
    values, expected = ours.render(parameters), cpu.render(parameters)
    # Tiles end at 1/255 of a contribution.
    np.testing.assert_allclose(values, expected, atol=0.05)
    assert np.abs(values - expected).mean() < 2e-3
    exact = GsplatEngine(
        EngineSpec(
            SHAPE, channels, background, degree=degree, cutoff=40.0, eps=0.0, blend="alpha"
        ),
        device="cpu",
        ops=WholeTiles(least=0.0, done=0.0),
    )
    # Pairs whose opacity is below 1/255 in a slice are left out even then.
    parameters[:, LOG_RT] = -3
    np.testing.assert_allclose(exact.render(parameters), cpu.render(parameters), atol=2e-5)
    got, want = (e.loss_and_gradient(parameters, target) for e in (exact, cpu))
    assert got[0] == pytest.approx(want[0], rel=1e-4)
    assert got[1] == pytest.approx(want[1], rel=1e-3, abs=1e-3)
    for column in range(parameters.shape[1]):
        error = np.linalg.norm(got[2][:, column] - want[2][:, column])
        assert error <= 2e-3 * np.linalg.norm(want[2][:, column]) + 1e-6, f"column {column}"


class WholeTiles(StandIn):
    """Lists every pair in every tile, so that nothing is cut off."""

    def isect_tiles(self, means, radii, *rest, **options):
        return super().isect_tiles(means, torch.full_like(radii, 1000), *rest, **options)


def test_few_pairs_at_a_time_give_the_same(rng, monkeypatch):
    parameters = random_table(rng, 20, 2, 2)
    target = random_target(rng, 2, 0)
    whole = engine(2)
    expected, loss = whole.render(parameters), whole.loss_and_gradient(parameters, target)
    monkeypatch.setattr(gsplat_alpha, "PAIRS_AT_ONCE", 40)
    assert len(whole._batches(20, np.arange(5))) == 3
    np.testing.assert_allclose(whole.render(parameters), expected, rtol=1e-6)
    again = whole.loss_and_gradient(parameters, target)
    assert again[0] == pytest.approx(loss[0], rel=1e-6)
    np.testing.assert_allclose(again[2], loss[2], rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        whole.render(parameters, np.array([1, 4])), expected[:, [1, 4]], rtol=1e-6
    )


def test_nothing_in_sight_is_background(rng):
    parameters = random_table(rng, 4, 1, 1)
    parameters[:, 2] = 1000
    alone = engine(1, np.array([0.25], np.float32))
    np.testing.assert_allclose(alone.render(parameters), 0.25)
    _, _, gradient, _ = alone.loss_and_gradient(parameters, random_target(rng, 1, 0))
    assert not gradient.any()
    np.testing.assert_allclose(alone.render(parameters[:0]), 0.25)


def test_other_blends_are_refused():
    with pytest.raises(ParameterError, match="alpha"):
        GsplatEngine(
            EngineSpec(SHAPE, 1, np.zeros(1), degree=1, cutoff=9.0, eps=0.0, blend="sum"),
            ops=StandIn(),
        )


def test_absence_is_a_reason(monkeypatch):
    monkeypatch.setattr(gsplat_alpha, "gsplat_version", lambda: None)
    works, reason = gsplat_alpha.available()
    assert not works
    assert "not installed" in reason
    with pytest.raises(BackendError, match="not installed"):
        GsplatEngine(
            EngineSpec(SHAPE, 1, np.zeros(1), degree=1, cutoff=9.0, eps=0.0, blend="alpha")
        )


def test_old_versions_are_refused(monkeypatch):
    monkeypatch.setattr(gsplat_alpha, "gsplat_version", lambda: "1.4.0")
    assert gsplat_alpha.available() == (
        False,
        "gsplat 1.4.0 is too old, 1.5 or later is needed",
    )


def test_a_broken_build_does_no_harm(monkeypatch, capsys):
    """What gsplat does without nvcc: a message on stdout, and kernels that are None."""
    package, cuda = types.ModuleType("gsplat"), types.ModuleType("gsplat.cuda")
    backend = types.ModuleType("gsplat.cuda._backend")
    backend._C = None
    cuda._backend, package.cuda = backend, cuda
    for name, module in (("", package), (".cuda", cuda), (".cuda._backend", backend)):
        monkeypatch.setitem(sys.modules, "gsplat" + name, module)
    gsplat_alpha.load_gsplat.cache_clear()
    with pytest.raises(BackendError, match="CUDA_HOME"):
        gsplat_alpha.load_gsplat()
    monkeypatch.setitem(sys.modules, "gsplat", None)
    with pytest.raises(BackendError, match=r"ModuleNotFoundError|ImportError"):
        gsplat_alpha.load_gsplat()
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.skipif(not gsplat_alpha.available()[0], reason=gsplat_alpha.available()[1])
def test_gsplat_agrees_with_alpha_blend(rng):
    images, classes = 1, 5
    parameters = random_table(rng, 60, 6, 2)
    background = rng.random(6).astype(np.float32)
    target = random_target(rng, images, classes)
    options = {"degree": 2, "cutoff": 11.0, "eps": 0.0, "blend": "alpha"}
    ours = GsplatEngine(EngineSpec(SHAPE, 6, background, **options))
    stand_in = GsplatEngine(
        EngineSpec(SHAPE, 6, background, **options), device="cpu", ops=StandIn()
    )
    difference = np.abs(ours.render(parameters) - stand_in.render(parameters))
    assert np.quantile(difference, 0.99) < 1e-4
    got, want = (e.loss_and_gradient(parameters, target) for e in (ours, stand_in))
    assert got[0] == pytest.approx(want[0], rel=1e-3)
    for column in range(parameters.shape[1]):
        error = np.linalg.norm(got[2][:, column] - want[2][:, column])
        assert error <= 1e-2 * np.linalg.norm(want[2][:, column]) + 1e-5, f"column {column}"


def test_points_of_a_grid_are_centers():
    """Means are half a pixel on, because gsplat's pixel centers are."""
    parameters = torch.zeros(1, GEOMETRY + 1)
    parameters[0, :3] = torch.tensor([4.0, 2.0, 1.0])
    parameters[0, GEOMETRY] = 1
    picture = engine(1, degree=0).render(parameters.numpy())[0, 1]
    assert np.unravel_index(picture.argmax(), picture.shape) == (2, 4)
    assert grid_points((1, 1, 1)).tolist() == [[0, 0, 0]]
