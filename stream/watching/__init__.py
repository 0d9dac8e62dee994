"""The live page's parts: what it follows, what it remembers, the pictures that it draws, and its server."""
