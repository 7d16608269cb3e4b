"""Checking a release on a device: asking for the measurement, and the verdict (pure)."""
