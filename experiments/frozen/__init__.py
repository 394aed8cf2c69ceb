"""A recipe's frozen parts, and the features that are computed once."""
