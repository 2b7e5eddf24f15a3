"""The console: a web page for one pool, and the REST API that it and other programs use."""
