"""The regressor: the same in numpy and torch, free of scale, honest about its weights and its interval."""

import hashlib
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from spheroidd.daemon.training.regressor_fields import FIELDS, emulated_rows
from spheroidd.daemon.training.regressor_from_emulator import emulate, train_and_save
from spheroidd.inference.training.regressor_training import (
    BATCH,
    RegressorNet,
    RegressorRow,
    Trained,
    arrays,
    conformal_quantile,
    fit,
)
from spheroidd.inference.viability.regressor import (
    BINS,
    DEFAULT_REGRESSOR,
    HIDDEN,
    INPUTS,
    SHAPES,
    TOP,
    ViabilityRegressor,
    depth_profile,
    features,
    forward,
    save,
)
from spheroidd.inference.viability.related_viability import ControlProfiles
from spheroidd.protocols.errors import ConfigError, ModelError

RNG = np.random.default_rng(0)


def random_weights():
    return {name: RNG.normal(0, 0.3, shape).astype(np.float32) for name, shape in SHAPES.items()}


def plates(n, seed) -> list[RegressorRow]:
    """Wells whose truth is not the ratio of volumes but that of the lower halves, times 1.2; noise grows with it."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(n):
        n_z = int(rng.integers(20, 60))
        control = 1000 * np.sin(np.linspace(0.1, 2.5, n_z)) + 200
        well = control * np.linspace(rng.uniform(0, 1.2), rng.uniform(0, 1.2), n_z)
        v = 1.2 * well[: n_z // 2].sum() / control[: n_z // 2].sum()
        controls = [control * rng.uniform(0.9, 1.1) for _ in range(3)]
        rows.append(RegressorRow(well, 0.5, controls, 100 * v * (1 + 0.12 * rng.normal())))
    return rows


@pytest.fixture(scope="module")
def trained():
    weights = fit(*arrays(plates(300, 0)), steps=400)
    held, truth = arrays(plates(200, 1))
    mean, sigma = forward(weights, held)
    return Trained(weights, conformal_quantile(np.abs(truth - mean) / sigma))


class TestProfile:
    @settings(deadline=None)
    @given(
        volumes=st.lists(st.floats(0, 1e7), min_size=1, max_size=300),
        z_step_um=st.floats(0.05, 5),
    )
    def test_the_total_is_kept_whatever_the_slices(self, volumes, z_step_um):
        profile = depth_profile(volumes, z_step_um)
        assert profile.shape == (BINS,)
        assert (profile >= -1e-6).all()
        depth_um = len(volumes) * z_step_um
        assert profile.sum() * depth_um / BINS == pytest.approx(sum(volumes), rel=1e-9, abs=1e-6)

    def test_it_is_physical(self):
        """Twice as many slices of half the step: the same profile, um3 per um."""
        coarse = RNG.uniform(0, 100, BINS)
        np.testing.assert_allclose(depth_profile(coarse, 2.0), coarse / 2)
        np.testing.assert_allclose(depth_profile(np.repeat(coarse / 2, 2), 1.0), coarse / 2)

    def test_the_input_is_free_of_scale(self):
        well, controls = RNG.uniform(0, 9, 50), RNG.uniform(1, 9, (3, 50))
        given_ = features(well, 0.5, controls)
        np.testing.assert_allclose(features(7 * well, 0.5, 7 * controls), given_, rtol=1e-5)
        np.testing.assert_allclose(features(well, 2.0, controls)[:2], given_[:2], rtol=1e-5)
        np.testing.assert_allclose(given_[2], np.log(0.25), rtol=1e-5)
        assert features(controls[0], 0.5, [controls[0]])[0].mean() == pytest.approx(1)

    @pytest.mark.parametrize("controls", [[], [[0.0] * 9], [[0.0] * 9, [0.0] * 9, [5.0] * 9]])
    def test_there_is_none_without_live_controls(self, controls):
        assert features([1.0] * 9, 0.5, controls) is None
        assert ViabilityRegressor(random_weights(), 1.6, "").predict([1.0] * 9, 0.5, controls) is None


def test_numpy_and_torch_agree():
    net, weights = RegressorNet(), random_weights()
    net.load_state_dict({name: torch.from_numpy(value) for name, value in weights.items()})
    given_ = RNG.uniform(-1, 2, (17, INPUTS, BINS)).astype(np.float32)
    with torch.no_grad():
        expected = net(torch.from_numpy(given_))
    for ours, theirs in zip(forward(weights, given_), expected, strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-4, atol=1e-5)


def test_a_well_like_its_controls_reads_what_the_line_says_wherever_the_field_lies():
    weights = random_weights()
    line = weights["head.weight"][0, -1] + weights["head.bias"][0]
    for control in RNG.uniform(0, 1, (20, BINS)):
        mean, _ = forward(weights, features(control, RNG.uniform(0.5, 5), [control])[None])
        assert mean[0] == pytest.approx(line, abs=1e-5)


def test_what_is_remembered_of_controls_changes_no_bit():
    """Well after well, controls after controls: each as by a regressor that has nothing to remember."""
    weights = random_weights()
    kept = ViabilityRegressor(weights, 1.6, "")
    wells = [tuple(RNG.uniform(0, 9, 50).tolist()) for _ in range(4)]
    for n in range(40):
        controls = ControlProfiles(tuple(RNG.uniform(1, 9, 50).tolist()) for _ in range(1 + n % 3))
        for step_um in (0.5, 2.0):
            for well in wells:
                fresh = ViabilityRegressor(weights, 1.6, "").predict(list(well), step_um, controls)
                assert kept.predict(well, step_um, controls) == fresh


@pytest.mark.parametrize("n", [1, 2, 16, 60])
def test_a_wells_score_does_not_depend_on_who_is_asked_for_with_it(n):
    regressor = ViabilityRegressor(random_weights(), 1.6, "")
    controls = ControlProfiles(tuple(RNG.uniform(1, 9, 50).tolist()) for _ in range(3))
    wells = [
        (tuple(RNG.uniform(0, RNG.uniform(0.1, 99), int(RNG.integers(0, 90))).tolist()), float(RNG.choice([0.5, 2.0])))
        for _ in range(60)
    ]
    together = [one for first in range(0, 60, n) for one in regressor.predict_many(wells[first : first + n], controls)]
    assert together == [regressor.predict(profile, z_step_um, controls) for profile, z_step_um in wells]
    assert regressor.predict_many(wells, ControlProfiles([(0.0,) * 50])) == [None] * 60


def test_training_learns_what_the_ratio_of_volumes_cannot_say(trained):
    given_, truth = arrays(plates(300, 2))
    mean, sigma = forward(trained.weights, given_)
    error = np.abs(mean - truth)
    ratio_error = np.abs(given_[:, 0].mean(1) - truth)
    assert error.mean() < 0.7 * ratio_error.mean()
    assert 0.85 <= (error <= trained.quantile * sigma).mean() <= 0.96
    assert np.corrcoef(sigma, truth)[0, 1] > 0.3  # it knows that larger values are noisier


def test_what_wells_do_not_teach_stays_v_control():
    """Truth is V_control with noise: strong decay leads there, and not to zero."""
    rng = np.random.default_rng(4)
    given_ = rng.uniform(0, 1.2, (40, INPUTS, BINS)).astype(np.float32)
    ratio = given_[:, 0].mean(1)
    truth = (ratio + 0.1 * rng.normal(size=40)).astype(np.float32)
    weights = fit(given_, truth, decay=50.0, steps=300)
    np.testing.assert_allclose(weights["head.weight"][0], [0.0] * HIDDEN + [1.0], atol=0.1)


def test_where_whole_spheroids_are_seen_the_score_is_a_line_of_v_control():
    """Profiles of any form and equal volume score the same there, and differ where the controls go on above."""
    weights = random_weights()
    forms = RNG.uniform(0, 1, (9, BINS))
    forms /= forms.sum(1, keepdims=True)
    whole = np.sin(np.linspace(0, np.pi, BINS)) * (np.arange(BINS) < BINS - TOP)
    for control, spread in ((whole, 1e-5), (np.ones(BINS), 1e-3)):
        scores = np.ptp([forward(weights, features(form, 1.0, [control])[None])[0] for form in forms])
        assert (scores < spread) == (control is whole)


@pytest.mark.parametrize("n", [30, BATCH + 1])  # every well in each step; some of them
def test_training_is_repeatable(n):
    wells = arrays(plates(n, 0))
    first, second = (fit(*wells, steps=5, seed=3) for _ in range(2))
    assert all(np.array_equal(first[name], second[name]) for name in SHAPES)


def test_no_row_with_live_controls_is_refused():
    with pytest.raises(ConfigError, match="no row"):
        arrays([])


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=200))
def test_the_quantile_covers_at_least_nine_tenths(scores):
    quantile = conformal_quantile(np.array(scores))
    assert (np.array(scores) <= quantile).mean() >= 0.9 or quantile == max(scores)


class TestFile:
    def test_it_is_read_back_and_predicts_the_same(self, tmp_path, trained):
        path = tmp_path / "r.safetensors"
        written = save(path, *trained, command="c", metrics={"r": 1})
        read = ViabilityRegressor.load(path)
        (row,) = plates(1, 5)
        score, low, high = read.predict(*row[:3])
        assert (score, low, high) == written.predict(*row[:3])
        assert low < score < high
        assert read.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
        assert json.loads(path.with_suffix(".json").read_text())["metrics"] == {"r": 1}

    @pytest.mark.parametrize(
        ("spoil", "message"),
        [
            (lambda path: path.unlink(), "cannot be read"),
            (lambda path: path.with_suffix(".json").unlink(), "cannot be read"),
            (lambda path: path.with_suffix(".json").write_text("{"), "not a regressor's card"),
            (lambda path: path.with_suffix(".json").write_text("[]"), "not a regressor's card"),
            (lambda path: path.with_suffix(".json").write_text('{"architecture": "ResidualUNet"}'), "another kind"),
            (
                lambda path: path.with_suffix(".json").write_text(
                    '{"architecture": "ViabilityRegressor", "format": 2}'
                ),
                "format 2, and this spheroidd reads 3",
            ),
            (lambda path: path.write_bytes(path.read_bytes()[:-4] + b"abcd"), "its sha256 is"),
            (lambda path: path.write_bytes(b""), "its sha256 is"),
        ],
    )
    def test_what_is_missing_or_altered_is_refused(self, tmp_path, spoil, message):
        path = tmp_path / "r.safetensors"
        save(path, random_weights(), 1.6)
        spoil(path)
        with pytest.raises(ModelError, match=message):
            ViabilityRegressor.load(path)

    @pytest.mark.parametrize("content", [b"not safetensors", safetensors.numpy.save({"a": np.zeros(3, np.float32)})])
    def test_other_content_with_its_right_hash_is_refused(self, tmp_path, content):
        path = tmp_path / "r.safetensors"
        save(path, random_weights(), 1.6)
        path.write_bytes(content)
        card = json.loads(path.with_suffix(".json").read_text())
        card["sha256"] = hashlib.sha256(content).hexdigest()
        path.with_suffix(".json").write_text(json.dumps(card))
        with pytest.raises(ModelError, match=r"not a safetensors file|not those of this regressor"):
            ViabilityRegressor.load(path)


class TestShippedWeights:
    def test_they_answer_sensibly(self):
        regressor = ViabilityRegressor.load()
        control = 5e4 * np.sin(np.linspace(0.2, 1.5, 200))
        scores = [regressor.predict(control * v, 0.5, [control, control * 1.1]) for v in (0.0, 0.25, 0.5, 0.75, 1.0)]
        assert scores == sorted(scores)
        assert scores[0][0] == pytest.approx(0, abs=15)
        assert scores[-1][0] == pytest.approx(100, abs=15)
        assert all(low < score < high for score, low, high in scores)

    def test_their_card_says_how_good_they_are(self):
        card = json.loads(DEFAULT_REGRESSOR.with_suffix(".json").read_text())
        figures = card["metrics"]["all"]
        assert figures["pearson_r"] >= max(0.85, figures["v_control_pearson_r"])
        assert figures["mae_percent"] < figures["v_control_mae_percent"]
        assert 0.85 <= figures["coverage_90"] <= 0.96
        assert card["command"].startswith("python -m spheroidd.daemon.training.regressor_from_emulator")


def test_using_it_imports_no_torch():
    room = "spheroidd.inference.viability"
    code = f"import sys, {room}.regressor, {room}.related_viability; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.slow
def test_emulated_plates_teach_more_than_the_ratio_of_volumes(tmp_path):
    """The whole training, smaller: three separate sets of plates, figures of each kind of field, a file that loads."""
    worlds = emulate(plates=60, seed=7)
    metrics = train_and_save(worlds, 7, tmp_path / "r.safetensors", "a test")
    assert set(metrics) == {"all", *FIELDS}
    assert metrics["all"]["wells"] == sum(metrics[kind]["wells"] for kind in FIELDS) > 14 * 12 * 19
    assert metrics["all"]["mae_percent"] < metrics["all"]["v_control_mae_percent"]
    assert ViabilityRegressor.load(tmp_path / "r.safetensors").quantile > 0


class TestEmulatedRows:
    SEED = 19  # of a small spheroid: to grow a large one takes three times as long

    def test_they_are_the_same_each_time_and_controls_read_100(self):
        first, second = (emulated_rows(self.SEED) for _ in range(2))
        assert first == second
        for rows in first.values():
            controls = [row for row in rows if tuple(row.um3_by_z) in row.control_um3_by_z]
            assert len(controls) % 6 == 0
            assert np.median([row.mtt_percent for row in controls]) == pytest.approx(100, abs=15)
            assert min(row.mtt_percent for row in rows) < 30

    def test_a_variant_is_related_to_some_of_its_controls(self):
        varied = emulated_rows(self.SEED, variants=4)
        n_controls = {len(row.control_um3_by_z) for rows in varied.values() for row in rows}
        assert 6 in n_controls
        assert len(n_controls) > 1
        assert min(n_controls) >= 2
