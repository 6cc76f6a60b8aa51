"""Pretrained encoders: read from packages, dequantised, trimmed and given heads."""
