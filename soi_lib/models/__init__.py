"""Pretrained encoders: brought from packages, dequantised, trimmed, and given heads."""
