"""Copy the photographs that scikit-image and matplotlib carry into a directory: pictures for the demo.

    python scripts/photographs.py DIRECTORY

All are free to use: astronaut (NASA), rocket (SpaceX) and Grace Hopper (U.S. Navy), in the public domain; chelsea
(Stefan van der Walt) and coffee (Rachel Michetti), CC0.
"""

from __future__ import annotations

import shutil
import sys
from importlib import resources
from pathlib import Path

PHOTOGRAPHS = (
    ("skimage", "data/astronaut.png"),
    ("skimage", "data/chelsea.png"),
    ("skimage", "data/coffee.png"),
    ("skimage", "data/rocket.jpg"),
    ("matplotlib", "mpl-data/sample_data/grace_hopper.jpg"),
)


def main() -> None:
    if len(sys.argv) != 2:
        sys.exit("usage: photographs.py DIRECTORY")
    directory = Path(sys.argv[1])
    directory.mkdir(parents=True, exist_ok=True)
    for package, name in PHOTOGRAPHS:
        with resources.as_file(resources.files(package) / name) as source:
            shutil.copyfile(source, directory / source.name)
    print(f"{len(PHOTOGRAPHS)} photographs: {directory}")


if __name__ == "__main__":
    main()
