"""Fixtures of the tests of classifiers."""

from tests.tiny_classifier import backbones, label_space, real, synthetic, val  # noqa: F401
