"""The shipped weights and their cards (package data)."""
