"""Contractions through oneDNN: finding it, describing operations to it. ``native/onednn`` is the other half."""
