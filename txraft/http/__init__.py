"""The HTTP API of a key-value node, in the shapes of Consul's KV dialect."""
