"""The parts of the temple world: the track and the runner (pure logic), textures, meshes, and the stage that draws."""
