"""Reports on finished runs, and the paper's claims held against them."""
