"""Published checkpoints as folders of ours, and back."""
