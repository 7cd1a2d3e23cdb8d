"""Calibration pictures, what is counted on them, and the choice among ways to find ranges."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from xformer_export.calibration import HELD_OUT, Calibration, Outputs, Run, choose_ranges, collect, snr_db
from xformer_mobile.errors import ConversionError, DataError
from xformer_mobile.preprocess import ByteImage
from xformer_mobile.ranges import Range, ranges
from xformer_mobile.spec import ImageSize, ModelConfig

CONFIG = ModelConfig.create("classify", "xformer_xxs", image_size=ImageSize(64, 64), labels=("a", "b"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Twelve pictures in two folders, and two files that are none."""
    rng = np.random.default_rng(0)
    for index in range(12):
        path = tmp_path / "data" / f"{index % 2}" / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(path)
    (tmp_path / "data" / "0" / "broken.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "data" / "empty.png").write_bytes(b"")
    (tmp_path / "data" / "notes.txt").write_text("no picture")
    return tmp_path / "data"


def test_a_folder_has_a_name_wherever_one_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    assert Calibration.of(CONFIG, Path()).source == tmp_path.name


def test_what_can_not_be_scaled_is_skipped(tmp_path: Path) -> None:
    Image.new("RGB", (80, 80)).save(tmp_path / "a.png")
    Image.new("RGB", (3, 60_000)).save(tmp_path / "b.png")
    Image.new("RGB", (80, 80)).save(tmp_path / ".hidden.png")
    found = Calibration.of(CONFIG, tmp_path)
    assert (found.count, found.skipped) == (1, 1)


def test_drawn_scenes_are_the_default() -> None:
    calibration = Calibration.of(CONFIG, count=8)
    assert calibration.as_json() == {"source": "synthetic", "pictures": 8, "seed": 0, "skipped": 0}
    counted, compared = list(calibration.counted()), list(calibration.compared())
    assert (len(counted), len(compared)) == (6, 2)
    assert all(image.shape == (1, 64, 64, 3) and image.dtype == np.uint8 for image in counted)
    again = list(Calibration.of(CONFIG, count=8).counted())
    assert all(np.array_equal(a, b) for a, b in zip(counted, again, strict=True))
    other = next(Calibration.of(CONFIG, count=8, seed=1).counted())
    assert not np.array_equal(counted[0], other)


def test_a_folder_skips_and_counts_what_it_can_not_read(folder: Path) -> None:
    names: list[str] = []
    calibration = Calibration.of(CONFIG, folder, 100, step=names.append)
    assert calibration.as_json() == {"source": "data", "pictures": 12, "seed": 0, "skipped": 2}
    assert len(names) == 14
    assert len(list(calibration.counted())) == 9
    assert len(list(calibration.compared())) == 3


def test_a_folder_of_more_pictures_than_are_used(folder: Path) -> None:
    first, second = (Calibration.of(CONFIG, folder, 5, seed=seed) for seed in (0, 1))
    assert first.count == second.count == 5
    assert first.files != second.files
    assert first.files == Calibration.of(CONFIG, folder, 5).files


def test_few_pictures_are_counted_and_compared_alike(folder: Path) -> None:
    calibration = Calibration.of(CONFIG, folder, 3)
    assert len(list(calibration.counted())) == len(list(calibration.compared())) == 3


def test_at_most_a_quarter_is_held_out() -> None:
    assert Calibration.of(CONFIG, count=1000).held_out == HELD_OUT


def test_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such directory"):
        Calibration.of(CONFIG, tmp_path / "missing")
    with pytest.raises(DataError, match="no calibration pictures in"):
        Calibration.of(CONFIG, tmp_path)
    (tmp_path / "a.png").write_bytes(b"")
    with pytest.raises(DataError, match="1 files could not be read"):
        Calibration.of(CONFIG, tmp_path)


def test_pictures_are_not_kept() -> None:
    """Each is drawn when it is asked for, so memory does not grow with their number."""
    images = Calibration.of(CONFIG, count=1_000_000).counted()
    assert isinstance(images, Iterator)
    assert next(images).shape == (1, 64, 64, 3)


def test_values_that_are_not_finite_are_named() -> None:
    def run(image: ByteImage) -> Iterator[tuple[str, np.ndarray]]:
        yield "good", np.ones(3, np.float32)
        yield "bad", np.array([np.nan], np.float32)

    with pytest.raises(ConversionError, match="the tensor bad has values that are not finite"):
        collect(run, Calibration.of(CONFIG, count=2))


def test_the_best_method_is_chosen_by_its_outputs() -> None:
    """A model of one tensor with outliers, rounded to 8 bits."""
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(0, 1, 100_000), [60.0]]).astype(np.float32)
    calibration = Calibration.of(CONFIG, count=8)
    tried: list[str] = []

    def reference(image: ByteImage) -> Outputs:
        return {"x": np.clip(values, -5, 5)}

    def quantize(found: dict[str, Range]) -> Range:
        return found["x"]

    def open_artifact(made: Range) -> Run:
        low, high = made
        scale = (high - low) / 255
        zero = round(-low / scale)
        rounded = (np.clip(np.round(values / scale) + zero, 0, 255) - zero) * scale
        return lambda image: {"x": np.clip(rounded, -5, 5)}

    histograms = collect(lambda image: [("x", values)], calibration)
    choice = choose_ranges(histograms, reference, quantize, open_artifact, calibration, step=tried.append)
    assert tried == list(choice.snr_db)
    assert choice.method == max(choice.snr_db, key=lambda method: choice.snr_db[method])
    assert choice.snr_db[choice.method] > choice.snr_db["minmax"] + 6
    assert choice.artifact == ranges(histograms, choice.method)["x"]
    assert choice.artifact[1] < 60


def test_methods_far_behind_see_the_first_pictures_only() -> None:
    calibration = Calibration.of(CONFIG, count=24)
    noise = {"minmax": 0.1, "percentile": 0.011, "entropy": 1.0, "mse": 0.01}
    seen = dict.fromkeys(noise, 0)
    opened = iter(noise)

    def open_artifact(made: int) -> Run:
        method = next(opened)

        def run(image: ByteImage) -> Outputs:
            seen[method] += 1
            return {"x": np.full(4, 1 + noise[method], np.float32)}

        return run

    def reference(image: ByteImage) -> Outputs:
        return {"x": np.ones(4, np.float32)}

    choice = choose_ranges({}, reference, lambda found: len(found), open_artifact, calibration, methods=list(noise))
    assert choice.method == "mse"
    assert seen == {"minmax": 2, "percentile": 6, "entropy": 2, "mse": 6}
    assert [round(choice.snr_db[method]) for method in noise] == [20, 39, 0, 40]


def test_noise_is_relative_to_each_output() -> None:
    expected = [{"a": np.full(4, 100.0, np.float32), "b": np.full(4, 1.0, np.float32)}]
    found = [{"a": np.full(4, 110.0, np.float32), "b": np.full(4, 1.1, np.float32)}]
    assert snr_db(expected, found) == pytest.approx(20, abs=1e-3)
    assert snr_db(expected, expected) == np.inf
