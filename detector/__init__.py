"""Pixels and geometry: what one frame shows, how frames connect. No torch, no Kafka."""
