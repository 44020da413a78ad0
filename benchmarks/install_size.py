"""Print what an installation takes on disk, by extra: `make dist`. Counts the packages of this environment.

The light core is what `pip install tailorset` brings, and each extra what it adds to it.
"""

from __future__ import annotations

from importlib import metadata
from pathlib import Path

from tailorset.inference.declared_environment import closure

EXTRAS = ("", "serve", "train", "ray", "s3", "heic")
MIB = 2**20


def size_of(name: str) -> int:
    """Return the bytes of an installed distribution's files, 0 if it is not installed."""
    try:
        files = metadata.files(name) or []
    except metadata.PackageNotFoundError:
        return 0
    paths = (Path(str(file.locate())) for file in files)
    return sum(path.stat().st_size for path in paths if path.is_file())


def is_for_gpus(name: str) -> bool:
    """Tell the libraries that only NVIDIA's GPUs need; a CPU build of torch does not bring them."""
    return name.startswith(("nvidia-", "cuda-", "triton"))


def main() -> None:
    core = closure(["tailorset"])
    print("extra       packages       MiB   of these for GPUs only")
    for extra in EXTRAS:
        names = closure([f"tailorset[{extra}]"]) - core if extra else core
        total, gpu = (sum(map(size_of, chosen)) / MIB for chosen in (names, filter(is_for_gpus, names)))
        print(f"{extra or 'core':10}{len(names):10}{total:10.0f}{gpu:10.0f}")


if __name__ == "__main__":
    main()
