"""The leaderboard: its pages, exports and submissions, and the check of what strangers send."""
