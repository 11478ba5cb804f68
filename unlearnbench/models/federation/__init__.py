"""Federated training: the settings, each party's share of the images, and the rounds of averaging."""
