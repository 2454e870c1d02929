"""Trains groundd's bundled model, nano. See ../README.md."""
