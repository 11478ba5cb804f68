"""What gives a forged record away, and who has run a recorded row again."""
