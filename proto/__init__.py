"""Every word that two RedFS processes say to each other: control-plane messages, data-plane frames, error mapping."""
