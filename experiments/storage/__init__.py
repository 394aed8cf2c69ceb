"""Where runs and finished models lie: on disk, or in a bucket."""
