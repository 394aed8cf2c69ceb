"""Raw pages and other people's datasets as datasets of ours."""
