"""Avro schemas of the alerts: MAJOR/MINOR/*.avsc (package data)."""
