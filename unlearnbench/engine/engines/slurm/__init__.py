"""The engine on Slurm: functions lie in a folder that all nodes see, and jobs compute them."""
