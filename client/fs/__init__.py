"""The mounted file system: metadata cache and write log, dirty data, files, and the FUSE adapter over them."""
