"""The whole volume tree at once: real coordinator, real sessions and file systems, against a plain dictionary."""
