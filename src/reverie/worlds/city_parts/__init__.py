"""The parts of the `city` world: street plan, textures, buildings, street furniture, traffic, people, driving, light."""
