"""The certificate: what was removed from which model, measured before and after, against stated limits."""
