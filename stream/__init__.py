"""The world outside: Kafka, files, clocks, settings, metrics, commands."""
