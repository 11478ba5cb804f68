"""Scenarios: who holds the images, checked against the data set, the seeds and what is to be forgotten."""
