"""Draw scenes into a directory, or a contact sheet of them with boxes and masks.

python scripts/scenes.py DIRECTORY [COUNT]     COUNT pictures of the test split, and truth.json
python scripts/scenes.py --sheet FILE.jpg      rows of scenes; below each row, what is known about them
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from xformer_mobile.data import LABELS, Sample, Synthetic
from xformer_mobile.postprocess import Box, Detection, default_palette

SEED = 0
COLUMNS, ROWS = 7, 4


def write_scenes(directory: Path, count: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    truth = {}
    for index in range(count):
        sample = Synthetic("segment", "test", count, SEED)[index]
        name = f"scene-{index:03d}.png"
        Image.fromarray(sample.image).save(directory / name)
        boxes = [
            {"label": LABELS[kind], "box": box}
            for kind, box, crowd in zip(sample.kinds, sample.boxes.tolist(), sample.crowd, strict=True)
            if not crowd
        ]
        truth[name] = {"class": LABELS[sample.kind], "boxes": boxes}
    (directory / "truth.json").write_text(json.dumps(truth, indent=2) + "\n")
    print(f"{count} drawn scenes: {directory}")


def write_sheet(file: Path) -> None:
    palette = np.array(default_palette(256), dtype=np.uint8)
    scenes = Synthetic("segment", "train", COLUMNS * ROWS, SEED)
    rows = []
    for row in range(ROWS):
        samples = [scenes[row * COLUMNS + column] for column in range(COLUMNS)]
        rows.append(np.concatenate([sample.image for sample in samples], axis=1))
        rows.append(np.concatenate([known(sample, palette) for sample in samples], axis=1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet = sheet.resize((sheet.width * 5 // 8, sheet.height * 5 // 8), Image.Resampling.LANCZOS)
    file.parent.mkdir(parents=True, exist_ok=True)
    sheet.save(file, quality=80)
    print(f"contact sheet: {file}")


def known(sample: Sample, palette: np.ndarray) -> np.ndarray:
    """The mask in colors, with the boxes and their labels; a crowd's box is not drawn."""
    boxes = [
        Detection(int(kind), LABELS[kind], 1.0, Box(*box))
        for kind, box, crowd in zip(sample.kinds, sample.boxes.tolist(), sample.crowd, strict=True)
        if not crowd
    ]
    mask = Image.fromarray(palette[sample.mask])
    draw = ImageDraw.Draw(mask)
    for found in boxes:
        draw.rectangle((found.box.x1, found.box.y1, found.box.x2 - 1, found.box.y2 - 1), outline=(255, 255, 255))
        draw.text((found.box.x1 + 3, found.box.y1 + 2), found.label, fill=(255, 255, 255))
    return np.asarray(mask)


def measure_speed(repeats: int = 5, count: int = 100) -> None:
    rates = []
    for repeat in range(repeats):
        scenes = Synthetic("segment", "train", count, SEED, start=repeat * count)
        start = time.process_time()
        for index in range(count):
            scenes[index]
        rates.append(count / (time.process_time() - start))
    print(f"scenes of 256x256 per second of one core: median {statistics.median(rates):.0f}, of", end=" ")
    print(", ".join(f"{rate:.0f}" for rate in rates))


def main() -> None:
    arguments = sys.argv[1:]
    if len(arguments) == 2 and arguments[0] == "--sheet":
        write_sheet(Path(arguments[1]))
    elif arguments == ["--speed"]:
        measure_speed()
    elif 1 <= len(arguments) <= 2 and not arguments[0].startswith("-"):
        write_scenes(Path(arguments[0]), int(arguments[1]) if len(arguments) == 2 else 6)
    else:
        sys.exit("usage: scenes.py DIRECTORY [COUNT] | --sheet FILE.jpg | --speed")


if __name__ == "__main__":
    main()
