"""The settings of a node: `node.yaml`, and the command line flags that override it."""
