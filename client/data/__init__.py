"""The client's data path: blocks to segments to nodes, and back."""
