"""Procedural drawings: single figures, composed training scenes, and the demo clip."""
