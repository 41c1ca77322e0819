"""Certifiers put to the test on classifiers whose class probabilities and radii are known."""
