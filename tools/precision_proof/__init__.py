"""The parts of measure_precision.py."""
