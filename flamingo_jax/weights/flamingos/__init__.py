"""Published Flamingos, OpenFlamingo's and IDEFICS's, as ours and back."""
