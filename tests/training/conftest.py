"""Fixtures of the tests of training."""

from tests.tiny_classifier import backbones, label_space, real, synthetic, val  # noqa: F401
