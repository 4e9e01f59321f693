"""Contractions through oneDNN: finding it, describing operations to it, planning them. See ``native/onednn`` for the other half."""
