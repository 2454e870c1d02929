//! Against the reference processors: tensors dumped from them by `tests/data/codec/generate.py`.
