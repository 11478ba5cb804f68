"""Federations whose parties train in workers of their own: the servers, and what the workers do for them."""
