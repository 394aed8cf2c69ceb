"""Starting runs on many machines; imports nothing of the other packages."""
