"""Clusters of two versions: rolled from an earlier commit to this one, and back."""
