"""Image geometry without networks: cameras, projection, view synthesis."""
