"""Limits of a stage: one run at a time with the same settings, and a clear error when the disk is full."""

from __future__ import annotations

import errno
import logging
import os
import resource
import signal
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tailorset.datasets.reading.photo_set import Photo, PhotoSet
from tailorset.images.codec import encode_png
from tailorset.project.limits import OutOfTime, clear_when_full, exclusive_run, time_limit
from tailorset.records import Rejected

HOLDER = """
import sys, time
from pathlib import Path
from tailorset.project.limits import exclusive_run
with exclusive_run("it", Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(300)
"""


def test_the_next_run_waits_and_says_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    order: list[str] = []
    waiting = threading.Event()

    def second() -> None:
        waiting.set()
        with exclusive_run("train", tmp_path / "locks" / "x.lock"):
            order.append("second")

    with caplog.at_level(logging.WARNING):
        with exclusive_run("train", tmp_path / "locks" / "x.lock"):
            thread = threading.Thread(target=second)
            thread.start()
            waiting.wait(10)
            thread.join(0.5)  # long enough for it to get in if nothing kept it out
            order.append("first")
        thread.join(10)
    assert order == ["first", "second"]
    assert "train is already running with the same settings" in caplog.text


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    lock = tmp_path / "x.lock"
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(lock)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    with exclusive_run("it", lock):
        pass


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_in_words_with_the_remedy(code: int) -> None:
    with (
        pytest.raises(OSError, match=r"tune: no room left .*free some and run it again") as raised,
        clear_when_full("tune"),
    ):
        raise OSError(code, os.strerror(code), "a/file")
    assert raised.value.errno == code


def test_what_safetensors_cannot_write_is_said_too(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="no room left"), clear_when_full("tune"):
            save_file({"x": torch.zeros(10_000)}, tmp_path / "x.safetensors")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_other_errors_pass_as_they_are() -> None:
    with pytest.raises(FileNotFoundError) as raised, clear_when_full("tune"):
        raise FileNotFoundError(errno.ENOENT, "no such file", "a/file")
    assert "room" not in str(raised.value)


def test_the_cap_is_not_taken_for_a_photo_that_cannot_be_read(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)
    (tmp_path / "photo.png").write_bytes(encode_png(noise))
    photos = [Photo(str(number), tmp_path / "photo.png", frozenset(), ()) for number in range(1000)]
    read = PhotoSet({"test": photos}, 64, ()).samples("test")
    with pytest.raises(OutOfTime, match="x has run for max_hours"), time_limit("x", 1e-4):
        assert not [sample for sample in read if isinstance(sample, Rejected)]
