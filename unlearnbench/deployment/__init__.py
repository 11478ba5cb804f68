"""What a model in use needs before and after a run: a first look, new weights, a certificate, others' weights."""
