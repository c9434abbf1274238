"""How a feature vector becomes a score and an explanation: train, export, bundle, scorer, explain."""
