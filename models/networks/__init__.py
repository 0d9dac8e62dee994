"""The networks, one noun a file."""
