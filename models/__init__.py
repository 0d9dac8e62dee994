"""What is learned: networks, their simulated training data, training and evaluation."""
