"""Simulated skies, instruments and impostors: seeded, for training, tests and the demo."""
