"""`node.yaml`, the command line flags over it, and what both may say."""
