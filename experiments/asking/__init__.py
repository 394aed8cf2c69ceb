"""What the commands share that ask a finished model."""
