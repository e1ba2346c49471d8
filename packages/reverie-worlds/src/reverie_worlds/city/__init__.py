"""The parts of the `city` world: plan, textures, buildings, street furniture, traffic, people, driving, light."""
