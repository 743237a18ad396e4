"""What tools/measure_skipping.py is made of."""
