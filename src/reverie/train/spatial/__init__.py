"""Training of models with a spatial memory: packs of recordings on the device, geometry networks, views, the task."""
