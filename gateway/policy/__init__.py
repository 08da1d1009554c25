"""PURE: who may have which bytes, as data in and data out. No I/O, clock, randomness or logging."""
