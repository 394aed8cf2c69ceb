"""Records of a built dataset, by their numbers, on disk or in a bucket."""
