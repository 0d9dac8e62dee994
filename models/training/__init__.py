"""Training recipes, one file a network, and the loop they share."""
