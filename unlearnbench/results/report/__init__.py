"""Reports on finished runs, and the paper's claims compared with them."""
