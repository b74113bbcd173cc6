"""The baselines of the fit: right pictures, right gradients, and losses that fall."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from napari_medgs.data.volume import Volume
from napari_medgs.fitting import FitParams, fit
from napari_medgs.fitting.problem import make_problem
from napari_medgs.rendering.cpu.engine import CpuEngine
from napari_medgs.rendering.engine import EngineSpec
from napari_medgs.rendering.parameters import to_parameters
from suite import cpp_bound
from suite.alpha_views import AlphaViews
from suite.medgs_project import COLOR, MOMENT, MOTION, OPACITY, S1, S2, SIGMA, TURN, pull_back
from suite.medgs_recipe import MedGSRecipe, Schedule, structural_similarity
from suite.race import race
from suite.siren import SirenFit
from suite.torch_tiles import TorchTiles


@pytest.fixture(scope="module")
def blobs() -> np.ndarray:
    """Two soft blobs that wander from slice to slice, (9, 30, 40) in [0, 1]."""
    z, y, x = np.meshgrid(*[np.arange(n) for n in (9, 30, 40)], indexing="ij")
    first = np.exp(-((x - 12 - z) ** 2 + (y - 14) ** 2 + (z - 4) ** 2) / 30)
    second = 0.7 * np.exp(-((x - 28) ** 2 + (y - 18 + z) ** 2) / 40)
    return np.clip(first + second, 0, 1).astype(np.float32)


def dense_picture(table: torch.Tensor, time: float, shape: tuple[int, int]) -> torch.Tensor:
    """MedGS's picture by its formulas: every Gaussian at every pixel, in torch."""
    height, width = shape
    rows, columns = torch.meshgrid(*[torch.arange(n) for n in shape], indexing="ij")
    picture, through = torch.zeros(shape), torch.ones(shape)
    for p in table:
        d = torch.sigmoid(p[MOMENT]) - time
        g = torch.exp(-0.5 * (d / torch.exp(p[SIGMA])) ** 2)
        if g <= 0.1:
            continue
        motion = p[MOTION:].reshape(-1, 2)
        powers = torch.stack([d ** (k + 1) for k in range(len(motion))])
        mean = (p[:2] + powers @ motion) / 0.72 * width
        dx = columns - mean[0] - (width - 1) / 2
        dy = rows - mean[1] - (height - 1) / 2
        angle = 2 * torch.pi * torch.sigmoid(p[TURN])
        turn = torch.stack([angle.cos(), -angle.sin(), angle.sin(), angle.cos()]).reshape(2, 2)
        scales = torch.diag(torch.exp(p[[S1, S2]]) * g / 0.72 * width)
        covariance = turn @ scales @ scales @ turn.T + 0.3 * torch.eye(2)
        inverse = torch.linalg.inv(covariance)
        q = inverse[0, 0] * dx**2 + 2 * inverse[0, 1] * dx * dy + inverse[1, 1] * dy**2
        alpha = torch.sigmoid(p[OPACITY]) * torch.exp(-0.5 * q)
        alpha = torch.where((q <= 9) & (alpha >= 1 / 255), alpha, 0.0)
        picture = picture + through * alpha * (0.5 + 0.28209479 * p[COLOR]).clamp(min=0)
        through = through * (1 - alpha)
    return picture


def test_pictures_and_their_gradients_equal_the_formulas(rng: np.random.Generator) -> None:
    shape, times = (40, 33), [0.3, 0.55]
    table = np.zeros((14, MOTION + 6), np.float32)
    table[:, :2] = rng.uniform(-0.3, 0.3, (14, 2))
    table[:, [S1, S2]] = rng.uniform(-4, -2, (14, 2))
    table[:, TURN] = rng.uniform(-2, 2, 14)
    table[:, OPACITY] = [-5.6, -4, *rng.uniform(-1, 2, 12)]
    table[:, COLOR] = [-3, *rng.uniform(-1, 2, 13)]
    table[:, MOMENT] = rng.uniform(-1.5, 1.5, 14)
    table[:, SIGMA] = np.log(rng.uniform(0.05, 0.5, 14))
    table[:, MOTION:] = rng.uniform(-0.5, 0.5, (14, 6))
    slopes = rng.standard_normal((2, *shape)).astype(np.float32)
    recipe = MedGSRecipe(np.zeros((10, *shape), np.float32), gaussians=4, degree=3)
    recipe.table = table
    seen, splats = recipe.splats(times)
    assert min(len(index) for index in seen) < 14
    views = AlphaViews(splats, shape, threads=2)
    gradient = np.zeros_like(table)
    for k, pulled in enumerate(views.pull_back(slopes)):
        pull_back(table, seen[k], np.float32(times[k]), shape[1], pulled, gradient)
    leaf = torch.tensor(table, requires_grad=True)
    expected = torch.stack([dense_picture(leaf, time, shape) for time in times])
    (expected * torch.from_numpy(slopes)).sum().backward()
    assert views.pictures == pytest.approx(expected.detach().numpy(), abs=3e-5)
    assert views.pictures.max() > 0.2
    truth = leaf.grad.numpy()
    for column in range(table.shape[1]):
        tolerance = 2e-3 * float(np.abs(truth[:, column]).max())
        assert gradient[:, column] == pytest.approx(truth[:, column], abs=tolerance), column


def test_recipe_learns_and_grows(blobs: np.ndarray) -> None:
    schedule = Schedule(
        iterations=80,
        frames_from=40,
        sigma_until=70,
        densify_from=10,
        densify_until=60,
        densify_every=20,
        reset_every=1000,
        prune_large_from=100,
    )
    recipe = MedGSRecipe(blobs, gaussians=400, schedule=schedule, threads=2)
    before = recipe.squared_error()
    assert recipe.table.shape == (400, MOTION + 14)
    for _ in range(80):
        recipe.step()
    assert recipe.squared_error() < 0.6 * before
    assert len(recipe.table) > 400
    assert np.isfinite(recipe.table).all()


def test_recipe_resets_opacity_and_prunes(blobs: np.ndarray) -> None:
    recipe = MedGSRecipe(blobs, gaussians=50)
    table = recipe.table
    recipe.densifier.reset_opacity(table)
    assert 1 / (1 + np.exp(-table[:, OPACITY])) == pytest.approx(np.full(50, 0.01), rel=1e-3)
    table[:20, OPACITY] = -8
    table[20:30, OPACITY] = 0
    assert len(recipe.densifier.densify(table, prune_large=False)) <= 30


def test_scaled_schedule_keeps_its_shares() -> None:
    short = Schedule().scaled(3000)
    assert (short.frames_from, short.densify_until, short.reset_every) == (1000, 2000, 300)


def test_similarity_is_that_of_scikit_image(blobs: np.ndarray, rng: np.random.Generator) -> None:
    from skimage.metrics import structural_similarity as reference

    first, second = np.zeros((2, 3, 56, 66), np.float32)
    first[:, 13:43, 13:53] = blobs[:3]  # black margins: borders are treated differently
    second[:, 13:43, 13:53] = blobs[:3] + 0.1 * rng.standard_normal((3, 30, 40))
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    expected = []
    for a, b in zip(first, second):
        score = reference(a, b, data_range=1.0, full=True, **options)[1]
        expected.append(score.mean())
    ours = float(structural_similarity(torch.from_numpy(first), torch.from_numpy(second)))
    assert ours == pytest.approx(np.mean(expected), abs=2e-4)
    assert ours < 0.9


def test_siren_learns(blobs: np.ndarray) -> None:
    siren = SirenFit(blobs, layers=3, width=32, rate=1e-3, batch=1024)
    before = siren.mean_squared_error()
    for _ in range(60):
        siren.step()
    after = siren.mean_squared_error(everywhere=True)
    assert after < 0.3 * before
    assert siren.mean_squared_error() == pytest.approx(after, rel=1e-3)


@pytest.fixture(scope="module")
def fitted(blobs: np.ndarray):
    """A small fit as the engine sees it: theta, target, engine."""
    volume = Volume.from_array(blobs)
    params = FitParams(gaussians=150, iterations=15, slice_axis=0)
    field = fit(volume, params).field
    problem = make_problem(volume, params, None, {})
    theta = to_parameters(field)
    theta[:, 1] -= problem.origin[0]
    theta[:, 0] -= problem.origin[1]
    info = field.info
    engine = CpuEngine(
        EngineSpec(
            problem.shape, 1, problem.background, degree=3, cutoff=info.cutoff, eps=info.eps
        )
    )
    return np.ascontiguousarray(theta), problem.target, engine


def test_torch_tiles_equal_the_engine(fitted) -> None:
    theta, target, engine = fitted
    squares, _, gradient, _ = engine.loss_and_gradient(theta, target)
    for size in (4, 7):
        tiles = TorchTiles(target.images[0], float(engine.background[0]), size=size)
        listed = tiles.list(theta)
        theirs, slopes, share = tiles.step(theta, listed)
        assert share == 1
        assert theirs == pytest.approx(squares, rel=1e-3)
        assert slopes == pytest.approx(gradient, abs=float(5e-3 * np.abs(gradient).max()))


@pytest.mark.skipif(bool(cpp_bound.why_not()), reason=cpp_bound.why_not() or "-")
def test_cpp_bound_equals_the_engine(fitted) -> None:
    theta, target, engine = fitted
    squares, _, gradient, _ = engine.loss_and_gradient(theta, target)
    for lanes in cpp_bound.lane_counts():
        with cpp_bound.CppBound(lanes) as bound:
            assert bound.lanes == lanes
            theirs, slopes, seconds = bound.step(theta, target, engine)
        assert theirs == pytest.approx(squares, rel=1e-4)
        assert slopes == pytest.approx(gradient, abs=float(3e-3 * np.abs(gradient).max()))
        assert (seconds > 0).all()


def test_race_ends_at_the_target_or_the_limit() -> None:
    quality = iter(range(10, 100, 5))
    won = race(lambda: None, lambda: next(quality), target=20, limit=0.01, looks=6)
    assert won.reached
    assert won.psnr == 20
    assert len(won.trace) == 3
    lost = race(lambda: None, lambda: 5.0, target=20, limit=0.01, looks=2)
    assert not lost.reached
    assert lost.seconds >= 0.01
