"""Copy the finished foundation models to their folder in git, within the size the repository allows."""

from __future__ import annotations

import shutil
from pathlib import Path

from foundation_settings import load_settings

from tailorset.messages import MIB
from tailorset.storage.checksums import seal

MODELS = ("diffusion", "discriminator", "judge", "backbone", "llm", "oracle")
LIMIT_MIB = 44


def size_mib(folders: list[Path]) -> float:
    return sum(file.stat().st_size for folder in folders for file in folder.rglob("*") if file.is_file()) / MIB


def main() -> None:
    settings = load_settings()
    sources = [settings.output / name for name in MODELS]
    total = size_mib(sources)
    if total > LIMIT_MIB:
        raise ValueError(f"foundation models take {total:.1f} MiB, the limit is {LIMIT_MIB}: make one of them smaller")
    for source in sources:
        shutil.copytree(source, settings.published / source.name, dirs_exist_ok=True)
        seal(settings.published / source.name)
        print(f"{source.name:14} {size_mib([source]):6.2f} MiB")
    print(f"{'total':14} {total:6.2f} MiB of {LIMIT_MIB}")


if __name__ == "__main__":
    main()
